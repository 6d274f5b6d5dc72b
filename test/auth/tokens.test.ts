import { createSign, generateKeyPairSync } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { MintRequest } from "../../src/domain/Access.ts"
import { BackendFailed } from "../../src/domain/Errors.ts"
import { localOwner, Owner } from "../../src/domain/Ids.ts"
import * as MemoryKeyStore from "../../src/layers/auth/MemoryKeyStore.ts"
import * as TokenAuthenticator from "../../src/layers/auth/TokenAuthenticator.ts"
import { Authenticator } from "../../src/services/Authenticator.ts"
import { KeyStore, Keys } from "../../src/services/Keys.ts"
import { audience, authenticator, claims, ids, jwt, localToken, secret } from "./support.ts"

const authenticate = (token: string | undefined) =>
  Authenticator.use((one) => one.authenticate(token === undefined ? undefined : Redacted.make(token)))

const refused = (token: string | undefined) =>
  Effect.map(Effect.flip(authenticate(token)), (error) => {
    assert.strictEqual(error._tag, "Authentication")
    return error.message
  })

const alice = Owner.make("alice")
const mint = (ttlMillis?: number) =>
  Keys.use((keys) =>
    keys.mint({
      owner: alice,
      scope: "exec",
      label: "laptop",
      ...(ttlMillis === undefined ? {} : { ttlMillis })
    })
  )

/** A store of keys that removes them, and does not live to say so. */
const withoutAnswers = Layer.effect(
  KeyStore,
  Effect.map(KeyStore, (store) => ({
    ...store,
    remove: (id) =>
      Effect.andThen(
        store.remove(id),
        new BackendFailed({ backend: "store", operation: "remove a key", reason: "late", outcome: "unknown" })
      )
  }))
).pipe(Layer.provide(MemoryKeyStore.layer))

describe("a JSON web token", () => {
  const promise = (name: string, body: Effect.Effect<void, unknown, Authenticator | Keys>) =>
    it.effect(name, () => Effect.provide(body, authenticator()))

  promise(
    "is its subject, with the scope it claims",
    Effect.gen(function* () {
      const subject = { owner: "jwt:/alice", scope: "exec", name: "jwt:/alice" }
      assert.deepStrictEqual<unknown>(yield* authenticate(jwt(claims)), subject)
      const admin = yield* authenticate(
        jwt({ ...claims, aud: ["other", audience], scope: "openid read admin" })
      )
      assert.strictEqual(admin.scope, "admin")
    })
  )

  promise(
    "is nobody else, whatever its subject and issuer are called",
    Effect.gen(function* () {
      const { token } = yield* mint()
      const key = (yield* authenticate(Redacted.value(token))).owner
      const names = ["local", "alice", "jwt:/alice", "/alice", "a/alice", "%2Falice"]
      const subjects = names.map((sub) => ({ sub }))
      const issued = names.flatMap((iss) => names.map((sub) => ({ iss, sub })))
      const owners = yield* Effect.forEach([...subjects, ...issued], (who) =>
        Effect.map(authenticate(jwt({ ...claims, ...who })), ({ owner }) => owner)
      )
      const all = [localOwner, key, ...owners]
      assert.strictEqual(new Set(all).size, all.length)
      for (const owner of owners) {
        const mint = Schema.decodeUnknownEffect(MintRequest)({ owner, scope: "exec" })
        assert.match((yield* Effect.flip(mint)).message, /begins with jwt:/)
      }
    })
  )

  const wrong: ReadonlyArray<readonly [string, string]> = [
    ["signed with another secret", jwt(claims, { key: "another secret of enough bytes to do" })],
    [
      "whose claims were changed",
      jwt(claims).replace(/\.[^.]+\./, `.${jwt({ ...claims, sub: "bob" }).split(".")[1]}.`)
    ],
    ["without a signature", jwt(claims).replace(/[^.]+$/, "")],
    ["that says alg none", jwt(claims, { header: { alg: "none" } })],
    [
      "that says alg none and has no signature",
      jwt(claims, { header: { alg: "none" } }).replace(/[^.]+$/, "")
    ],
    ["that says alg nOnE", jwt(claims, { header: { alg: "nOnE" } }).replace(/[^.]+$/, "")],
    ["of HS512, well signed", jwt(claims, { header: { alg: "HS512" }, hash: "sha512" })],
    ["of HS384, well signed", jwt(claims, { header: { alg: "HS384" }, hash: "sha384" })],
    ["that says RS256 and is signed with the secret", jwt(claims, { header: { alg: "RS256" } })],
    ["with a critical extension nobody knows", jwt(claims, { header: { crit: ["x"], x: 1 } })],
    [
      "with a key of its own in its header",
      jwt(claims, { key: "k".repeat(32), header: { jwk: { kty: "oct", k: "a2tr" } } })
    ],
    ["that has expired", jwt({ ...claims, exp: 0 })],
    ["without an expiry", jwt({ ...claims, exp: undefined })],
    ["with an expiry that is no number", jwt({ ...claims, exp: "3600" })],
    ["that is not valid yet", jwt({ ...claims, nbf: 60 })],
    ["for another audience", jwt({ ...claims, aud: "another" })],
    ["without an audience", jwt({ ...claims, aud: undefined })],
    ["without a subject", jwt({ ...claims, sub: undefined })],
    ["with an empty subject", jwt({ ...claims, sub: "" })],
    ["with an endless subject", jwt({ ...claims, sub: "a".repeat(600) })],
    ["with an issuer that is no text", jwt({ ...claims, iss: "\ud800" })],
    ["without a scope", jwt({ ...claims, scope: undefined })],
    ["with a scope that is none of ours", jwt({ ...claims, scope: "root superadmin" })],
    ["of three parts that are nothing", "a.b.c"],
    ["larger than any", jwt({ ...claims, more: "x".repeat(10_000) })]
  ]
  for (const [what, token] of wrong) {
    promise(`${what} is refused`, Effect.asVoid(refused(token)))
  }

  promise(
    "signed with a public key where the verifier has a secret is refused",
    Effect.gen(function* () {
      const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
      const signed = jwt(claims, { header: { alg: "RS256" } })
        .split(".")
        .slice(0, 2)
        .join(".")
      const signature = createSign("RSA-SHA256").update(signed).sign(privateKey, "base64url")
      yield* refused(`${signed}.${signature}`)
    })
  )

  promise(
    "is refused from the moment it expires, though it was taken before",
    Effect.gen(function* () {
      const token = jwt({ ...claims, exp: 30 })
      yield* authenticate(token)
      yield* TestClock.adjust(29_999)
      yield* authenticate(token)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* refused(token), "not authenticated: the token has expired")
    })
  )

  promise(
    "is taken from the moment it becomes valid, though it was refused before",
    Effect.gen(function* () {
      const token = jwt({ ...claims, nbf: 10 })
      yield* refused(token)
      yield* TestClock.adjust(10_000)
      yield* authenticate(token)
    })
  )

  it.effect("needs no audience where none is set", () =>
    Effect.gen(function* () {
      yield* authenticate(jwt({ ...claims, aud: undefined }))
    }).pipe(Effect.provide(authenticator({ jwt: { secret: Redacted.make(secret) } })))
  )

  it.effect("is refused where no secret is set", () =>
    Effect.asVoid(refused(jwt(claims))).pipe(Effect.provide(authenticator({ jwt: undefined })))
  )

  it.effect("is not verified with a secret of less than 32 bytes: the service does not start", () =>
    Effect.gen(function* () {
      const short = TokenAuthenticator.layer({ jwt: { secret: Redacted.make("x".repeat(31)) } })
      const error = yield* Effect.flip(Effect.scoped(Layer.build(short)))
      assert.deepInclude(error, { _tag: "InvalidArgument", field: "JWT_SECRET" })
      assert.match(error.message, /31 bytes, at least 32/)
    }).pipe(Effect.provide(authenticator()))
  )
})

describe("an API key", () => {
  const promise = (name: string, body: Effect.Effect<void, unknown, Authenticator | Keys | KeyStore>) =>
    it.effect(name, () => Effect.provide(body, authenticator()))

  promise(
    "is its owner, with its scope, under its own name",
    Effect.gen(function* () {
      const { info, token } = yield* mint()
      assert.match(Redacted.value(token), /^fbk_[a-z2-7]{10}_[a-z2-7]{52}$/)
      assert.deepStrictEqual(yield* authenticate(Redacted.value(token)), {
        owner: alice,
        scope: "exec",
        name: `key ${info.id}`
      })
    })
  )

  promise(
    "is kept as a digest only, and shown nowhere again",
    Effect.gen(function* () {
      const minted = yield* mint()
      const token = Redacted.value(minted.token)
      const kept = JSON.stringify([
        yield* KeyStore.use((store) => store.list),
        yield* Keys.use((keys) => keys.list)
      ])
      assert.notInclude(kept, token.slice(15))
      assert.notInclude(`${JSON.stringify(minted)} ${String(minted.token)}`, token.slice(15))
    })
  )

  promise(
    "is listed with when it was last used, to the minute",
    Effect.gen(function* () {
      const { token } = yield* mint()
      const used = Keys.use((keys) => Effect.map(keys.list, (list) => list.map((key) => key.lastUsedAt)))
      assert.deepStrictEqual(yield* used, [undefined])
      yield* TestClock.adjust(5_000)
      yield* authenticate(Redacted.value(token))
      assert.deepStrictEqual(yield* used, [5_000])
      yield* TestClock.adjust(120_000)
      yield* authenticate(Redacted.value(token))
      assert.deepStrictEqual(yield* used, [125_000])
    })
  )

  promise(
    "is refused as soon as it is revoked, though it was just used",
    Effect.gen(function* () {
      const { info, token } = yield* mint()
      yield* authenticate(Redacted.value(token))
      yield* Keys.use((keys) => keys.revoke(info.id))
      yield* refused(Redacted.value(token))
      const again = yield* Effect.flip(Keys.use((keys) => keys.revoke(info.id)))
      assert.deepInclude(again, { _tag: "NotFound", kind: "key" })
    })
  )

  it.effect("is refused once it was revoked, though nobody was told that it was", () =>
    Effect.gen(function* () {
      const { info, token } = yield* mint()
      yield* authenticate(Redacted.value(token))
      const error = yield* Effect.flip(Keys.use((keys) => keys.revoke(info.id)))
      assert.deepInclude(error, { _tag: "BackendFailed", outcome: "unknown" })
      yield* refused(Redacted.value(token))
    }).pipe(Effect.provide(authenticator({}, withoutAnswers)))
  )

  promise(
    "is refused as soon as it has expired, though it was just used",
    Effect.gen(function* () {
      const { token } = yield* mint(10_000)
      yield* TestClock.adjust(9_999)
      yield* authenticate(Redacted.value(token))
      yield* TestClock.adjust(1)
      yield* refused(Redacted.value(token))
    })
  )

  it.effect("lets its holder in though it cannot be noted that it was used", () => {
    const full = new BackendFailed({
      backend: "store",
      operation: "touch a key",
      reason: "full",
      outcome: "not-started"
    })
    const store = Layer.effect(
      KeyStore,
      Effect.map(KeyStore, (keys) => ({ ...keys, touch: () => Effect.fail(full) }))
    ).pipe(Layer.provide(Layer.fresh(MemoryKeyStore.layer)))
    return Effect.gen(function* () {
      const { token } = yield* mint()
      assert.strictEqual((yield* authenticate(Redacted.value(token))).owner, alice)
    }).pipe(
      Effect.provide(
        TokenAuthenticator.layer({}).pipe(
          Layer.provideMerge(Keys.layer),
          Layer.provide(store),
          Layer.provide(ids),
          Layer.fresh
        )
      )
    )
  })

  promise(
    "with another secret, another id or another ending is refused with the same words as none",
    Effect.gen(function* () {
      const token = Redacted.value((yield* mint()).token)
      const other = Redacted.value((yield* mint()).token)
      const words = yield* refused("nonsense")
      for (const wrong of [
        token.slice(0, 15) + other.slice(15),
        `fbk_${"a".repeat(10)}${token.slice(14)}`,
        `${token}a`,
        token.toUpperCase(),
        token.slice(0, -1)
      ]) {
        assert.strictEqual(yield* refused(wrong), words)
      }
    })
  )

  promise(
    "is compared in full, however much of it is right",
    // What a clock could tell of a comparison of digests tells nothing of the secret: an attacker cannot choose them.
    Effect.gen(function* () {
      const token = Redacted.value((yield* mint()).token)
      for (let at = 15; at < token.length; at += 7) {
        const wrong = token.slice(0, at) + (token[at] === "a" ? "b" : "a") + token.slice(at + 1)
        const exit = yield* Effect.exit(authenticate(wrong))
        assert.isTrue(Exit.isFailure(exit), `a change at ${at}`)
      }
      yield* authenticate(token)
    })
  )
})

describe("the service's own token", () => {
  it.effect("is its user, who may do everything", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* authenticate(localToken), {
        owner: "local",
        scope: "admin",
        name: "local"
      })
      yield* refused(`${localToken}a`)
      yield* refused(undefined)
      yield* refused("")
    }).pipe(Effect.provide(authenticator()))
  )

  it.effect("is nobody's where there is none", () =>
    Effect.asVoid(refused(localToken)).pipe(Effect.provide(authenticator({ localToken: undefined })))
  )
})
