/**
 * The record of one sandbox as its actor sees it: read from memory, written to
 * the store before anything else hears of a change.
 */
import { Clock, Effect, Semaphore, Stream, SubscriptionRef } from "effect"
import type { BackendFailed } from "../../domain/Errors.ts"
import type { EventBody, SandboxEvent } from "../../domain/Event.ts"
import { canBecome, type Status } from "../../domain/Status.ts"
import { type SandboxRecord, SandboxStore } from "../SandboxStore.ts"

/** Parts of a record that may change. */
export type Change = Partial<Omit<SandboxRecord, "id" | "owner" | "createdAt" | "status">>

/** A sandbox's record and events. */
export interface Journal {
  /** The record as it stands. */
  readonly current: () => SandboxRecord
  /** Writes a change and its events. */
  readonly write: (change: Change, events: ReadonlyArray<EventBody>) => Effect.Effect<void, BackendFailed>
  /** Writes a change of status, with its event. One that the table does not allow is a defect of ours. */
  readonly become: (
    status: Status,
    options?: {
      readonly reason?: string
      readonly change?: Change
      readonly also?: ReadonlyArray<EventBody>
    }
  ) => Effect.Effect<void, BackendFailed>
  /** The record now, and again after every change. */
  readonly changes: Stream.Stream<SandboxRecord>
  /** Events after a sequence number, and those to come unless `once`. Ends after the sandbox was killed. */
  readonly events: (after: number, once: boolean) => Stream.Stream<SandboxEvent, BackendFailed>
}

const pageSize = 100

/** The journal of the sandbox that `initial` describes. */
export const makeJournal = Effect.fnUntraced(function* (initial: SandboxRecord) {
  const store = yield* SandboxStore
  const ref = yield* SubscriptionRef.make(initial)
  const writing = yield* Semaphore.make(1)

  const save = (
    edit: (record: SandboxRecord) => SandboxRecord,
    bodies: (before: SandboxRecord) => ReadonlyArray<EventBody>
  ) =>
    Effect.gen(function* () {
      const before = SubscriptionRef.getUnsafe(ref)
      const after = edit(before)
      yield* store.save(after, bodies(before))
      yield* SubscriptionRef.set(ref, after)
    }).pipe(Effect.uninterruptible, writing.withPermit)

  const become: Journal["become"] = (status, options = {}) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      save(
        (record) => {
          if (!canBecome(record.status, status)) throw new Error(`${record.status} may not become ${status}`)
          const killedAt = status === "killed" ? now : undefined
          return { ...record, ...options.change, status, reason: options.reason, killedAt }
        },
        (before) => [
          ...(options.also ?? []),
          { _tag: "StatusChanged", from: before.status, to: status, reason: options.reason }
        ]
      )
    )

  const events: Journal["events"] = (after, once) =>
    Stream.suspend(() => {
      let last = after
      const stored: Stream.Stream<SandboxEvent, BackendFailed> = Stream.unwrap(
        Effect.map(
          Effect.suspend(() => store.events(initial.id, last, pageSize)),
          (events) => {
            last = events.at(-1)?.sequence ?? last
            return events.length === 0 ? Stream.empty : Stream.concat(Stream.fromIterable(events), stored)
          }
        )
      )
      if (once) return stored
      return SubscriptionRef.changes(ref).pipe(
        Stream.takeUntil((record) => record.status === "killed"),
        Stream.flatMap(() => stored)
      )
    })

  const journal: Journal = {
    current: () => SubscriptionRef.getUnsafe(ref),
    write: (change, events) =>
      save(
        (record) => ({ ...record, ...change }),
        () => events
      ),
    become,
    changes: SubscriptionRef.changes(ref),
    events
  }
  return journal
})
