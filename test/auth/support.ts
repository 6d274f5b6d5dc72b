/**
 * Tokens and whoever recognises them, in memory.
 */
import { createHmac } from "node:crypto"
import { Layer, Redacted } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import * as MemoryKeyStore from "../../src/layers/auth/MemoryKeyStore.ts"
import * as TokenAuthenticator from "../../src/layers/auth/TokenAuthenticator.ts"
import { Keys } from "../../src/services/Keys.ts"

export const ids = Layer.merge(SecureRandom.layerWebCrypto, Digest.layerWebCrypto)
export const secret = "0123456789abcdef0123456789abcdef"
export const audience = "fiberbox-test"
export const localToken = `fbt_${"a".repeat(52)}`

/** An authenticator that takes keys of a store, tokens of the test's secret and audience, and the local token. */
export const authenticator = (options: TokenAuthenticator.TokenOptions = {}, keys = MemoryKeyStore.layer) =>
  TokenAuthenticator.layer({
    jwt: { secret: Redacted.make(secret), audience },
    localToken: Redacted.make(localToken),
    ...options
  }).pipe(Layer.provideMerge(Keys.layer), Layer.provideMerge(keys), Layer.provideMerge(ids), Layer.fresh)

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

/** A token made by hand, so that nothing keeps it from being wrong. */
export const jwt = (
  claims: Record<string, unknown>,
  { header = {}, key = secret, hash = "sha256" }: { header?: object; key?: string; hash?: string } = {}
): string => {
  const signed = `${encode({ alg: "HS256", typ: "JWT", ...header })}.${encode(claims)}`
  return `${signed}.${createHmac(hash, key).update(signed).digest("base64url")}`
}

/** Claims that are good at time 0 of a test's clock, for an hour. */
export const claims = { sub: "alice", aud: audience, scope: "exec", exp: 3600 }
