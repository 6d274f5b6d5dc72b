/**
 * HS256 JSON web tokens (RFC 7519), verified by `jose`.
 */
import { Clock, Effect, Option, Redacted, Schema } from "effect"
import { errors, jwtVerify } from "jose"
import { AccessScope, allows } from "../../domain/Access.ts"
import { Authentication, InvalidArgument } from "../../domain/Errors.ts"
import { Owner, tokenOwner } from "../../domain/Ids.ts"
import { isUtf8 } from "../../domain/Text.ts"
import type { Caller } from "../../services/Authenticator.ts"

/** What tokens are verified with. */
export interface JwtSettings {
  /** The shared secret; its UTF-8 bytes are the key, at least 32 of them (RFC 7518, 3.2). */
  readonly secret: Redacted.Redacted<string>
  /** When set, a token has to name it. */
  readonly audience?: string | undefined
}

/** A caller, and until when the token says so, in milliseconds since the epoch. */
export interface Verified {
  readonly caller: Caller
  readonly expiresAt: number
}

const minSecretBytes = 32

const Claims = Schema.Struct({
  sub: Schema.NonEmptyString.check(isUtf8),
  iss: Schema.optional(Schema.String.check(isUtf8)),
  exp: Schema.Finite,
  /** OAuth's form: words with spaces between (RFC 8693, 4.2). */
  scope: Schema.String
})
const decodeOwner = Schema.decodeOption(Owner)
const decodeClaims = Schema.decodeUnknownOption(Claims)

const refuse = (reason: string) => Effect.fail(new Authentication({ reason }))

/** The largest scope of ours among the words of a scope claim. */
const scopeOf = (claim: string): AccessScope | undefined =>
  claim
    .split(" ")
    .filter(Schema.is(AccessScope))
    .reduce<AccessScope | undefined>(
      (best, word) => (best === undefined || allows(word, best) ? word : best),
      undefined
    )

const reasonOf = (cause: unknown): string => {
  if (cause instanceof errors.JWTExpired) return "the token has expired"
  if (cause instanceof errors.JWTClaimValidationFailed) {
    return cause.claim === "nbf"
      ? "the token is not valid yet"
      : `the token's claim ${cause.claim} is missing or wrong`
  }
  return "the token is not valid"
}

/**
 * How tokens are verified. Only HS256 is taken, whatever a token's own header
 * says. A token needs `exp`, `sub` (its owner, with `iss`: see `tokenOwner`), a `scope` that names `read`, `exec` or
 * `admin`, and `aud` when an audience is set. A secret of less than 32 bytes is
 * `InvalidArgument`.
 */
export const makeVerifier = Effect.fnUntraced(function* ({ secret, audience }: JwtSettings) {
  const key = new TextEncoder().encode(Redacted.value(secret))
  if (key.byteLength < minSecretBytes) {
    const reason = `it has ${key.byteLength} bytes, at least ${minSecretBytes} are needed; \`openssl rand -hex 32\` makes one`
    return yield* new InvalidArgument({ field: "JWT_SECRET", reason })
  }
  return Effect.fnUntraced(function* (token: string): Effect.fn.Return<Verified, Authentication> {
    const now = yield* Clock.currentTimeMillis
    const { payload } = yield* Effect.tryPromise({
      try: () =>
        jwtVerify(token, key, {
          algorithms: ["HS256"],
          requiredClaims: ["exp", "sub", "scope"],
          currentDate: new Date(now),
          ...(audience === undefined ? {} : { audience })
        }),
      catch: (cause) => new Authentication({ reason: reasonOf(cause) })
    })
    const claims = decodeClaims(payload)
    if (Option.isNone(claims)) return yield* refuse("the token's claims are not what they should be")
    const { exp, iss = "", sub } = claims.value
    const owner = Option.getOrUndefined(decodeOwner(tokenOwner(iss, sub)))
    if (owner === undefined) return yield* refuse("the token's issuer and subject are too long")
    const scope = scopeOf(claims.value.scope)
    if (scope === undefined) return yield* refuse("the token's scope names none of read, exec, admin")
    return { caller: { owner, scope, name: owner }, expiresAt: exp * 1000 }
  })
})
