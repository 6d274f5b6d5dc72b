/**
 * Recognises bearer tokens: API keys, JSON web tokens when a secret is set, and
 * the token that a service makes for its own user.
 *
 * What was recognised is remembered for a while, so that a call costs a look
 * into a table; never longer than the token is good, and a revocation empties
 * the table.
 */
import { hash } from "node:crypto"
import { Clock, Effect, Layer, Metric, Redacted } from "effect"
import { Mac } from "effect/crypto"
import { Authentication, type InvalidArgument } from "../../domain/Errors.ts"
import { localOwner } from "../../domain/Ids.ts"
import { Authenticator, type Caller } from "../../services/Authenticator.ts"
import { Keys, looksLikeKey } from "../../services/Keys.ts"
import * as ServiceMetrics from "../../services/ServiceMetrics.ts"
import { type JwtSettings, makeVerifier, type Verified } from "./Jwt.ts"

/** Which tokens are recognised besides API keys. */
export interface TokenOptions {
  readonly jwt?: JwtSettings | undefined
  /** A token that is the service's own user, with scope `admin`. */
  readonly localToken?: Redacted.Redacted<string> | undefined
}

/** No token of ours, nor any sensible one, is longer; others are not even looked at. */
const maxTokenLength = 8192
const rememberedMillis = 60_000
const rememberedTokens = 10_000

const local: Caller = { owner: localOwner, scope: "admin", name: "local" }

interface Remembered {
  readonly caller: Caller
  readonly until: number
}

/** The name under which a token is remembered, which tells nobody the token. */
const digestOf = (token: string): string => hash("sha256", token, "base64")

const make = Effect.fnUntraced(function* (options: TokenOptions) {
  const keys = yield* Keys
  const verifyJwt = options.jwt === undefined ? undefined : yield* makeVerifier(options.jwt)
  const localHash =
    options.localToken === undefined
      ? undefined
      : encoder.encode(digestOf(Redacted.value(options.localToken)))
  const remembered = new Map<string, Remembered>()
  let revocations = keys.revocations()

  const recognise = Effect.fnUntraced(function* (token: string, digest: string) {
    if (localHash !== undefined && Mac.timingSafeEqual(encoder.encode(digest), localHash)) {
      return { caller: local, expiresAt: Number.POSITIVE_INFINITY }
    }
    if (looksLikeKey(token)) {
      const key = yield* keys.verify(token)
      if (key === undefined) return yield* new Authentication({ reason: "the token is not valid" })
      const { id, owner, scope, expiresAt = Number.POSITIVE_INFINITY } = key
      const verified: Verified = { caller: { owner, scope, name: `key ${id}` }, expiresAt }
      return verified
    }
    if (verifyJwt === undefined) return yield* new Authentication({ reason: "the token is not valid" })
    return yield* verifyJwt(token)
  })

  const remember = (digest: string, { caller, expiresAt }: Verified, now: number) => {
    if (remembered.size >= rememberedTokens) {
      const [oldest] = remembered.keys()
      if (oldest !== undefined) remembered.delete(oldest)
    }
    remembered.set(digest, { caller, until: Math.min(expiresAt, now + rememberedMillis) })
    return caller
  }

  const check = Effect.fnUntraced(function* (token: Redacted.Redacted<string> | undefined) {
    if (token === undefined) return yield* new Authentication({ reason: "a bearer token is needed" })
    const text = Redacted.value(token)
    if (text.length > maxTokenLength) return yield* new Authentication({ reason: "the token is not valid" })
    if (keys.revocations() !== revocations) {
      revocations = keys.revocations()
      remembered.clear()
    }
    const now = yield* Clock.currentTimeMillis
    const digest = digestOf(text)
    const known = remembered.get(digest)
    if (known !== undefined && now < known.until) return known.caller
    remembered.delete(digest)
    const before = revocations
    const verified = yield* recognise(text, digest)
    // A key revoked while it was being verified must not be remembered.
    return before === keys.revocations() ? remember(digest, verified, now) : verified.caller
  })

  return Authenticator.of({
    revoked: keys.revoked,
    authenticate: (token) =>
      Effect.tapError(check(token), (error) =>
        error._tag === "Authentication" ? Metric.update(ServiceMetrics.refusedTokens, 1) : Effect.void
      )
  })
})

const encoder = new TextEncoder()

/** Recognises tokens. A secret that is too short is `InvalidArgument`. */
export const layer = (options: TokenOptions = {}): Layer.Layer<Authenticator, InvalidArgument, Keys> =>
  Layer.effect(Authenticator, make(options))
