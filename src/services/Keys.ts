/**
 * API keys: random tokens that carry an owner and a scope. The token itself is
 * told once, when it is made; what is kept is its SHA-256.
 */
import { Clock, Context, Deferred, Effect, Exit, Layer, Redacted, Schema } from "effect"
import { Digest, Mac, SecureRandom } from "effect/crypto"
import { KeyId, KeyInfo, type MintedKey, type MintRequest } from "../domain/Access.ts"
import { type BackendFailed, NotFound } from "../domain/Errors.ts"
import { base32 } from "../domain/Ids.ts"
import type { WriteError } from "./SandboxStore.ts"

/** A key as it is kept. */
export const KeyRecord = Schema.Struct({
  ...KeyInfo.fields,
  /** SHA-256 of the whole token, in hexadecimal. */
  hash: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/))
})
export type KeyRecord = typeof KeyRecord.Type

/** Where keys are kept. A failing disk is `BackendFailed`. */
export class KeyStore extends Context.Service<
  KeyStore,
  {
    readonly insert: (key: KeyRecord) => Effect.Effect<void, WriteError>
    readonly get: (id: KeyId) => Effect.Effect<KeyRecord | undefined, BackendFailed>
    /** All of them, in order of creation. */
    readonly list: Effect.Effect<ReadonlyArray<KeyRecord>, BackendFailed>
    /** Removes a key; tells whether there was one. */
    readonly remove: (id: KeyId) => Effect.Effect<boolean, WriteError>
    /** Notes that a key was used. An unknown one is no error. */
    readonly touch: (id: KeyId, at: number) => Effect.Effect<void, WriteError>
  }
>()("fiberbox/services/KeyStore") {}

/** The keys of a service. */
export class Keys extends Context.Service<
  Keys,
  {
    /** Makes a key and tells its token. */
    readonly mint: (request: MintRequest) => Effect.Effect<MintedKey, WriteError>
    /** What there is, in order of creation; expired ones until they are revoked. */
    readonly list: Effect.Effect<ReadonlyArray<KeyInfo>, BackendFailed>
    /** Ends a key at once. */
    readonly revoke: (id: KeyId) => Effect.Effect<void, NotFound | WriteError>
    /** The key a token is, unless it is none, was revoked or has expired. Notes its use. */
    readonly verify: (token: string) => Effect.Effect<KeyInfo | undefined, BackendFailed>
    /** How often keys were revoked: whoever remembers a verification forgets it when this changes. */
    readonly revocations: () => number
    /** Waits until a key is revoked, or may have been. */
    readonly revoked: Effect.Effect<void>
  }
>()("fiberbox/services/Keys") {
  /** The keys in whatever store is provided. */
  static readonly layer: Layer.Layer<Keys, never, KeyStore | SecureRandom.SecureRandom | Digest.Digest> =
    Layer.effect(
      Keys,
      Effect.suspend(() => make)
    )
}

/** What every token of a key looks like: `fbk_<id>_<256 random bits>`. */
const tokenPattern = /^fbk_([a-z2-7]{10})_[a-z2-7]{52}$/

/** Whether a token looks like an API key. */
export const looksLikeKey = (token: string): boolean => tokenPattern.test(token)

/** Uses closer together than this are noted once. */
const touchMillis = 60_000

const encoder = new TextEncoder()

/** Without the hash. */
const infoOf = ({ hash: _, ...info }: KeyRecord): KeyInfo => info

const make = Effect.gen(function* () {
  const store = yield* KeyStore
  const random = yield* SecureRandom.SecureRandom
  const digests = yield* Digest.Digest
  let revocations = 0
  let next = Deferred.makeUnsafe<void>()

  const hashOf = (token: string) => digests.digestHex(Digest.sha256, encoder.encode(token))

  const mint = Effect.fnUntraced(function* ({ owner, scope, label = "", ttlMillis }: MintRequest) {
    const id = KeyId.make(base32(yield* random.randomBytes(7)).slice(0, 10))
    const token = `fbk_${id}_${base32(yield* random.randomBytes(32))}`
    const createdAt = yield* Clock.currentTimeMillis
    const expiresAt = ttlMillis === undefined ? undefined : createdAt + ttlMillis
    const info: KeyInfo = { id, owner, scope, label, createdAt, expiresAt }
    yield* store.insert({ ...info, hash: yield* hashOf(token) })
    return { info, token: Redacted.make(token, { label: `key ${id}` }) }
  })

  const verify = Effect.fnUntraced(function* (token: string) {
    const id = tokenPattern.exec(token)?.[1]
    if (id === undefined) return undefined
    const hash = yield* hashOf(token)
    const key = yield* store.get(KeyId.make(id))
    if (key === undefined || !Mac.timingSafeEqual(encoder.encode(hash), encoder.encode(key.hash))) {
      return undefined
    }
    const now = yield* Clock.currentTimeMillis
    if (key.expiresAt !== undefined && key.expiresAt <= now) return undefined
    if (key.lastUsedAt === undefined || now - key.lastUsedAt >= touchMillis) {
      // Told to whoever lists keys, and no more: who may come in to kill must not wait for a store that can be written.
      yield* Effect.ignore(store.touch(key.id, now))
    }
    return infoOf(key)
  })

  return Keys.of({
    mint,
    verify,
    list: Effect.map(store.list, (keys) => keys.map(infoOf)),
    revoke: Effect.fnUntraced(function* (id) {
      // Also when it failed: it may have been removed all the same.
      const removed = yield* Effect.ensuring(
        store.remove(id),
        Effect.sync(() => {
          revocations++
          Deferred.doneUnsafe(next, Exit.void)
          next = Deferred.makeUnsafe()
        })
      )
      if (!removed) return yield* new NotFound({ kind: "key", id })
    }),
    revocations: () => revocations,
    revoked: Effect.suspend(() => Deferred.await(next))
  })
})
