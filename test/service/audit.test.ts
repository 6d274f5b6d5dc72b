import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted, type Scope, Stream } from "effect"
import { type AuditEntry, maxArguments, maxDetail } from "../../src/domain/Audit.ts"
import { adminOf, sandboxesOf, start } from "./support.ts"

const promise = <E>(name: string, body: Effect.Effect<void, E, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body))

const setUp = Effect.gen(function* () {
  const service = yield* start()
  const admin = yield* adminOf(service, service.token)
  const { info, token } = yield* admin.mintKey({ owner: "alice", scope: "exec", label: "for a test" })
  const sandboxes = yield* sandboxesOf(service, Redacted.value(token))
  return { service, admin, sandboxes, caller: `key ${info.id}`, keyId: info.id }
})

const all = (admin: Effect.Success<ReturnType<typeof adminOf>>) =>
  Stream.runCollect(admin.audit({ once: true }))

const who = (entry: AuditEntry | undefined) =>
  `${entry?.sequence} ${entry?.caller} ${entry?.owner} ${entry?.sandboxId}`

describe("the audit of a service", () => {
  promise(
    "tells of a flood by its number, and loses nobody's entries for it",
    Effect.gen(function* () {
      const { admin, caller, sandboxes, service } = yield* setUp
      const minted = yield* admin.mintKey({ owner: "mallory", scope: "read" })
      const flooding = yield* sandboxesOf(service, Redacted.value(minted.token))
      const flood = Effect.replicateEffect(Effect.ignore(flooding.createDetached()), 3_000, {
        concurrency: 500,
        discard: true
      })
      const work = Effect.replicateEffect(
        Effect.flatMap(sandboxes.createDetached(), (sandbox) => sandbox.kill),
        30,
        { discard: true }
      )
      yield* Effect.all([flood, work], { concurrency: 2 })
      const entries = yield* all(admin)
      const own = entries.filter((entry) => entry.caller === caller)
      assert.strictEqual(own.length, 60)
      assert.isTrue(own.every(({ outcome, repeats = 0 }) => outcome === "ok" && repeats === 0))
      const floods = entries.filter(({ owner }) => owner === "mallory")
      assert.isBelow(floods.length, 1_500)
      assert.strictEqual(
        floods.reduce((sum, { repeats = 0 }) => sum + 1 + repeats, 0),
        3_000
      )
    })
  )

  promise(
    "tells who did what to which sandbox, when, how long and with what outcome",
    Effect.gen(function* () {
      const { admin, caller, keyId, sandboxes } = yield* setUp
      const before = Date.now()
      const sandbox = yield* sandboxes.createDetached({ name: "web" })
      yield* sandbox.commands.run("exit 3").pipe(Effect.ignore)
      yield* Effect.ignore(sandbox.files.readText("/no/such/file"))
      yield* sandbox.files.write("/home/user/x", "content")
      yield* sandbox.kill
      yield* Effect.ignore(sandbox.stop())
      const entries = yield* all(admin)
      assert.deepStrictEqual(
        entries.map(({ operation, outcome }) => `${operation} ${outcome}`),
        [
          "MintKey ok",
          "CreateSandbox ok",
          "ExecProcess ok",
          "StatFile FileFailed",
          "ReadFile FileFailed",
          "WriteFile ok",
          "ChangeStatus ok",
          "ChangeStatus NotFound"
        ]
      )
      const [minted, created, ran, , , wrote, killed] = entries
      assert.strictEqual(who(minted), "1 local local undefined")
      assert.deepStrictEqual(minted?.details, { keyOwner: "alice" })
      assert.strictEqual(who(created), `2 ${caller} alice ${sandbox.id}`)
      assert.deepStrictEqual(created?.details, { name: "web" })
      assert.deepStrictEqual(ran?.details?.argv?.slice(-1), ["exit 3"])
      assert.strictEqual(wrote?.details?.path, "/home/user/x")
      assert.strictEqual(killed?.details?.command, "kill")
      for (const { at, durationMillis } of entries.slice(1)) {
        assert.isAtLeast(at, before)
        assert.isTrue(durationMillis > 0 && at + durationMillis <= Date.now() + 1)
      }
      yield* admin.revokeKey(keyId)
      assert.deepInclude((yield* all(admin)).at(-1), { operation: "RevokeKey", details: { key: keyId } })
    })
  )

  promise(
    "holds no secret: no token, no environment, no content, no input, no output",
    Effect.gen(function* () {
      const { admin, sandboxes } = yield* setUp
      const minted = yield* admin.mintKey({ owner: "bob", scope: "read" })
      const sandbox = yield* sandboxes.createDetached({ env: { TOKEN: "hush-1" } })
      yield* sandbox.files.write("/home/user/x", "hush-2")
      yield* sandbox.process.run(["sh", "-c", "cat /home/user/x; echo $OTHER; cat"], {
        env: { OTHER: "hush-3" },
        stdin: "hush-4"
      })
      yield* sandbox.files.readText("/home/user/x")
      yield* sandbox.update({ env: { TOKEN: "hush-5" } })
      const text = JSON.stringify(yield* all(admin))
      assert.notInclude(text, "hush")
      assert.notInclude(text, Redacted.value(minted.token).slice(15))
      assert.include(text, "cat /home/user/x")
    })
  )

  promise(
    "cuts long arguments, and keeps only the first of many",
    Effect.gen(function* () {
      const { admin, sandboxes } = yield* setUp
      const sandbox = yield* sandboxes.createDetached()
      yield* Effect.ignore(
        sandbox.process.run(["echo", "x".repeat(10_000), ...Array.from({ length: 100 }, () => "y")])
      )
      const entry = (yield* all(admin)).at(-1)
      assert.strictEqual(entry?.details?.argv?.length, maxArguments)
      assert.strictEqual(entry?.details?.argv?.[1]?.length, maxDetail)
    })
  )

  promise(
    "tells of attempts on what is not the caller's, and beyond a token's scope",
    Effect.gen(function* () {
      const { admin, sandboxes, service } = yield* setUp
      const sandbox = yield* sandboxes.createDetached()
      const reader = yield* admin.mintKey({ owner: "mallory", scope: "read" })
      const mallory = yield* sandboxesOf(service, Redacted.value(reader.token))
      yield* Effect.flip(mallory.get(sandbox.id))
      yield* Effect.flip(mallory.createDetached())
      const told = (yield* all(admin)).filter(({ owner }) => owner === "mallory")
      assert.deepStrictEqual(
        told.map(({ caller, operation, outcome }) => [caller, operation, outcome]),
        [
          [`key ${reader.info.id}`, "FindSandbox", "NotFound"],
          [`key ${reader.info.id}`, "CreateSandbox", "PolicyDenied"]
        ]
      )
    })
  )

  promise(
    "can be followed, from where a reader left off",
    Effect.gen(function* () {
      const { admin, sandboxes } = yield* setUp
      const sandbox = yield* sandboxes.createDetached()
      const last = (yield* all(admin)).at(-1)?.sequence ?? 0
      const following = yield* Effect.forkChild(
        Stream.runCollect(Stream.take(admin.audit({ after: last }), 2))
      )
      yield* sandbox.pause
      yield* sandbox.resume
      assert.deepStrictEqual(
        (yield* Fiber.join(following)).map(({ details }) => details?.command),
        ["pause", "resume"]
      )
    })
  )
})

describe("the keys of a service", () => {
  promise(
    "are made, listed and revoked from elsewhere",
    Effect.gen(function* () {
      const { admin, keyId, sandboxes } = yield* setUp
      const [key, ...others] = yield* admin.listKeys
      assert.strictEqual(
        `${key?.id} ${key?.owner} ${key?.scope} ${key?.label}`,
        `${keyId} alice exec for a test`
      )
      assert.deepStrictEqual([others, key?.lastUsedAt], [[], undefined])
      yield* sandboxes.list()
      assert.isNumber((yield* admin.listKeys)[0]?.lastUsedAt)
      yield* admin.revokeKey(keyId)
      assert.deepStrictEqual(yield* admin.listKeys, [])
      assert.strictEqual((yield* Effect.flip(admin.revokeKey(keyId)))._tag, "NotFound")
    })
  )

  promise(
    "are refused with wrong arguments, and to whoever is nobody",
    Effect.gen(function* () {
      const { admin, service } = yield* setUp
      assert.strictEqual(
        (yield* Effect.flip(admin.mintKey({ owner: "", scope: "exec" })))._tag,
        "InvalidArgument"
      )
      assert.strictEqual((yield* Effect.flip(admin.revokeKey("../..")))._tag, "InvalidArgument")
      const nobody = yield* adminOf(service, "nobody")
      assert.strictEqual((yield* Effect.flip(nobody.listKeys))._tag, "Authentication")
      const gone = yield* adminOf(yield* Effect.scoped(start()), "nobody")
      assert.deepInclude(yield* Effect.flip(gone.listKeys), { _tag: "Connection", outcome: "not-started" })
    })
  )
})
