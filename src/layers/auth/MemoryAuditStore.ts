/**
 * The audit in memory: for tests, and for services that keep nothing.
 */
import { Effect, Layer } from "effect"
import type { AuditEntry } from "../../domain/Audit.ts"
import { AuditStore, auditKept } from "../../services/Audit.ts"

/** No entries at first, and none left when the layer ends. */
export const layer: Layer.Layer<AuditStore> = Layer.effect(
  AuditStore,
  Effect.sync(() => {
    let entries: ReadonlyArray<AuditEntry> = []
    return AuditStore.of({
      append: (added) =>
        Effect.sync(() => {
          entries = [...entries, ...added].slice(-auditKept)
        }),
      read: (after, limit) =>
        Effect.sync(() => entries.filter(({ sequence }) => sequence > after).slice(0, limit)),
      last: Effect.sync(() => entries.at(-1)?.sequence ?? 0)
    })
  })
)
