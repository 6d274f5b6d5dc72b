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
    let entries: Array<AuditEntry> = []
    /** Where the entries after a number begin: they stand in the order of their numbers, with hardly a gap. */
    const placeAfter = (after: number): number => {
      let place = Math.min(entries.length, Math.max(0, after - (entries[0]?.sequence ?? 0) + 1))
      while (place > 0 && (entries[place - 1]?.sequence ?? 0) > after) place--
      return place
    }
    return AuditStore.of({
      append: (added) =>
        Effect.sync(() => {
          const last = entries.at(-1)?.sequence ?? 0
          for (const entry of added) if (entry.sequence > last) entries.push(entry)
          // Not at every entry: that would copy all of them each time.
          if (entries.length > 2 * auditKept) entries = entries.slice(-auditKept)
        }),
      read: (after, limit) =>
        Effect.sync(() => {
          const oldest = Math.max(0, entries.length - auditKept)
          const place = Math.max(oldest, placeAfter(after))
          return entries.slice(place, place + limit)
        }),
      last: Effect.sync(() => entries.at(-1)?.sequence ?? 0)
    })
  })
)
