/**
 * API keys in memory: for tests, and for services that keep nothing.
 */
import { Effect, Layer } from "effect"
import { type KeyRecord, KeyStore } from "../../services/Keys.ts"

/** No keys at first, and none left when the layer ends. */
export const layer: Layer.Layer<KeyStore> = Layer.effect(
  KeyStore,
  Effect.sync(() => {
    const keys = new Map<string, KeyRecord>()
    return KeyStore.of({
      insert: (key) => Effect.sync(() => void keys.set(key.id, key)),
      get: (id) => Effect.sync(() => keys.get(id)),
      list: Effect.sync(() => [...keys.values()]),
      remove: (id) => Effect.sync(() => keys.delete(id)),
      touch: (id, at) =>
        Effect.sync(() => {
          const key = keys.get(id)
          if (key !== undefined) keys.set(id, { ...key, lastUsedAt: at })
        })
    })
  })
)
