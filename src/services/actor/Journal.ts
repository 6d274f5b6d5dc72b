/**
 * The record of one sandbox as its actor sees it.
 *
 * What is promised is written to the store before anybody hears of it. What has
 * happened is so whether the store takes it or not: it is heard of at once, and
 * written as soon as the store can.
 */
import { Clock, Effect, Exit, Fiber, Semaphore, Stream, SubscriptionRef } from "effect"
import type { BackendFailed } from "../../domain/Errors.ts"
import type { EventBody, SandboxEvent } from "../../domain/Event.ts"
import { canBecome, type Status } from "../../domain/Status.ts"
import { type SandboxRecord, SandboxStore, type WriteError } from "../SandboxStore.ts"
import { backoffMillis } from "./backoff.ts"

/** Parts of a record that may change. */
export type Change = Partial<Omit<SandboxRecord, "id" | "owner" | "createdAt" | "status">>

/** What else changes together with a status. */
export interface Become {
  readonly reason?: string | undefined
  readonly change?: Change | ((record: SandboxRecord) => Change) | undefined
  /** Events before that of the status. */
  readonly before?: ReadonlyArray<EventBody> | undefined
  /** Events after that of the status. */
  readonly after?: ReadonlyArray<EventBody> | undefined
}

/** A sandbox's record and events. */
export interface Journal {
  /** The record as it stands. */
  readonly current: () => SandboxRecord
  /** Writes a change and its events; what fails has changed nothing here, nor in the store unless the outcome is unknown: the next write says it anew. */
  readonly write: (change: Change, events: ReadonlyArray<EventBody>) => Effect.Effect<void, WriteError>
  /** Writes a change of status, with its event; a failure is as with {@link write}. One that the table does not allow is a defect of ours. */
  readonly become: (status: Status, options?: Become) => Effect.Effect<void, WriteError>
  /** Takes note of a status that the sandbox is in, whether that can be written now or not. */
  readonly note: (status: Status, options?: Become) => Effect.Effect<void>
  /** Takes note of events. */
  readonly noteEvents: (events: ReadonlyArray<EventBody>) => Effect.Effect<void>
  /** Tries now to write what was noted, if it is not written yet. */
  readonly recorded: Effect.Effect<void, WriteError>
  /** The record now, and again after every change. */
  readonly changes: Stream.Stream<SandboxRecord>
  /** Events after a sequence number, and those to come unless `once`. Ends after the sandbox was killed. */
  readonly events: (after: number, once: boolean) => Stream.Stream<SandboxEvent, BackendFailed>
}

const pageSize = 100

/** The journal of the sandbox that `initial` describes. */
export const makeJournal = Effect.fnUntraced(function* (initial: SandboxRecord) {
  const store = yield* SandboxStore
  const actor = yield* Effect.scope
  const ref = yield* SubscriptionRef.make(initial)
  const writing = yield* Semaphore.make(1)
  const current = () => SubscriptionRef.getUnsafe(ref)
  /** Events that were noted and are not in the store. */
  let unwritten: ReadonlyArray<EventBody> = []
  /** The record as it is in the store. */
  let stored = initial

  let isKeeping = false

  const isWritten = () => stored === current() && unwritten.length === 0

  /** Writes come one after the other, and whoever waits for one may go away: it goes on without him. */
  const inTurn = <E>(write: Effect.Effect<void, E>) =>
    Effect.flatMap(Effect.forkIn(writing.withPermit(write), actor, { startImmediately: true }), Fiber.join)

  /** Writes a record together with all that was noted. */
  const save = (record: SandboxRecord, bodies: ReadonlyArray<EventBody>) =>
    Effect.suspend(() => {
      const noted = unwritten
      return Effect.map(store.save(record, [...noted, ...bodies]), () => {
        stored = record
        unwritten = unwritten.slice(noted.length)
      })
    })

  /** Writes an edited record. What is noted meanwhile stands; `merge` says what the edit makes of it. */
  const promise = (
    edit: (record: SandboxRecord) => SandboxRecord,
    merge: (record: SandboxRecord) => SandboxRecord,
    bodies: (before: SandboxRecord) => ReadonlyArray<EventBody>
  ) =>
    inTurn(
      Effect.suspend(() => {
        const before = current()
        const after = edit(before)
        return Effect.andThen(
          save(after, bodies(before)),
          SubscriptionRef.update(ref, (now) => (now === before ? after : merge(now)))
        )
      })
    )

  const recorded = Effect.suspend(() =>
    isWritten()
      ? Effect.void
      : inTurn(
          Effect.suspend(() =>
            isWritten()
              ? Effect.void
              : // Followers of the events read them from the store: they are told again now that they are there.
                Effect.andThen(
                  save(current(), []),
                  SubscriptionRef.update(ref, (now) => now)
                )
          )
        )
  )

  /** Writes what was noted, however long that takes. The log tells of trouble once, and once when it is over. */
  const keep = Effect.gen(function* () {
    let failures = 0
    while (!isWritten()) {
      const exit = yield* Effect.exit(recorded)
      if (Exit.isSuccess(exit)) continue
      failures++
      if (failures === 1) {
        yield* Effect.logWarning(`the status of ${initial.id} cannot be recorded; trying again`, exit.cause)
      }
      yield* Effect.sleep(backoffMillis(failures))
    }
    isKeeping = false
    if (failures > 0) yield* Effect.logInfo(`the status of ${initial.id} has been recorded after all`)
  })

  const noted = (edit: (record: SandboxRecord) => SandboxRecord) =>
    Effect.uninterruptible(
      Effect.andThen(
        SubscriptionRef.update(ref, edit),
        Effect.suspend(() => {
          if (isKeeping) return Effect.void
          isKeeping = true
          return Effect.asVoid(Effect.forkIn(keep, actor))
        })
      )
    )

  const becoming =
    (status: Status, { change = {}, reason }: Become, now: number) =>
    (record: SandboxRecord) => {
      if (!canBecome(record.status, status)) throw new Error(`${record.status} may not become ${status}`)
      const killedAt = status === "killed" ? now : undefined
      const changed = typeof change === "function" ? change(record) : change
      return { ...record, ...changed, status, reason, killedAt }
    }

  const eventsOf = (from: Status, to: Status, { after = [], before = [], reason }: Become) => [
    ...before,
    { _tag: "StatusChanged", from, to, reason } as const,
    ...after
  ]

  const events: Journal["events"] = (after, once) =>
    Stream.suspend(() => {
      let last = after
      const page: Stream.Stream<SandboxEvent, BackendFailed> = Stream.unwrap(
        Effect.map(
          Effect.suspend(() => store.events(initial.id, last, pageSize)),
          (events) => {
            last = events.at(-1)?.sequence ?? last
            return events.length === 0 ? Stream.empty : Stream.concat(Stream.fromIterable(events), page)
          }
        )
      )
      if (once) return page
      return SubscriptionRef.changes(ref).pipe(
        Stream.takeUntil((record) => record.status === "killed" && isWritten()),
        Stream.flatMap(() => page)
      )
    })

  const journal: Journal = {
    current,
    write: (change, events) => {
      const edit = (record: SandboxRecord) => ({ ...record, ...change })
      return promise(edit, edit, () => events)
    },
    become: (status, options = {}) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        promise(
          becoming(status, options, now),
          (noted) => noted,
          ({ status: from }) => eventsOf(from, status, options)
        )
      ),
    note: (status, options = {}) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        noted((record) => {
          const after = becoming(status, options, now)(record)
          unwritten = [...unwritten, ...eventsOf(record.status, status, options)]
          return after
        })
      ),
    noteEvents: (events) =>
      noted((record) => {
        unwritten = [...unwritten, ...events]
        return record
      }),
    recorded,
    changes: SubscriptionRef.changes(ref),
    events
  }
  return journal
})
