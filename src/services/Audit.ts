/**
 * The audit of a service: recorded in the order in which calls end, kept up to
 * a number of entries, followed as a stream.
 *
 * Entries are written in batches, since a write to the disk for every call
 * would cost more than the call. A service that is killed may lose the last
 * {@link flushMillis} of it; one that ends writes all.
 */
import { Context, Effect, Latch, Layer, Semaphore, Stream, SubscriptionRef } from "effect"
import type { AuditEntry } from "../domain/Audit.ts"
import type { BackendFailed } from "../domain/Errors.ts"
import type { Owner } from "../domain/Ids.ts"
import { backoffMillis } from "./actor/backoff.ts"
import type { WriteError } from "./SandboxStore.ts"

/** Entries kept; older ones are dropped. */
export const auditKept = 100_000

/** How long an entry waits for others before they are written together. */
export const flushMillis = 200

/** Entries that wait while the store cannot be written; what comes then is lost, and the log says so. */
const maxWaiting = 10_000
/** So many entries are written at once: others wait for the store meanwhile. */
const writtenAtOnce = 500
/**
 * How many calls of one owner that failed, and how many in all, are told one by one of those that are written together. What
 * comes beyond that in a flood is told by its number: nobody's entries are lost for it.
 */
const toldFailures = 50
const toldCalls = 1_000
const pageSize = 500

/** Where the audit is kept. A failing disk is `BackendFailed`. */
export class AuditStore extends Context.Service<
  AuditStore,
  {
    /** Adds entries, and drops the oldest beyond {@link auditKept}. Those it has come again when their first writing was not answered: they stay as they are. */
    readonly append: (entries: ReadonlyArray<AuditEntry>) => Effect.Effect<void, WriteError>
    /** The entries after a number, in order, at most `limit`. */
    readonly read: (after: number, limit: number) => Effect.Effect<ReadonlyArray<AuditEntry>, BackendFailed>
    /** The number of the newest entry; 0 when there is none. */
    readonly last: Effect.Effect<number, BackendFailed>
  }
>()("fiberbox/services/AuditStore") {}

/** The audit of one service. */
export class Audit extends Context.Service<
  Audit,
  {
    /** Records what was done. It neither fails nor waits. */
    readonly record: (entry: Omit<AuditEntry, "sequence">) => void
    /** The entries after a number (default 0, all that are kept), and those to come unless `once`. */
    readonly follow: (options?: {
      readonly after?: number | undefined
      readonly once?: boolean | undefined
    }) => Stream.Stream<AuditEntry, WriteError>
    /** Writes what waits. */
    readonly flush: Effect.Effect<void, WriteError>
  }
>()("fiberbox/services/Audit") {
  /** The audit in whatever store is provided. */
  static readonly layer: Layer.Layer<Audit, BackendFailed, AuditStore> = Layer.effect(
    Audit,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const store = yield* AuditStore
  let waiting: Array<AuditEntry> = []
  const floods = makeFloods()
  let lost = 0
  /** How often in a row it could not be written. */
  let failures = 0
  let sequence = yield* store.last
  const written = yield* SubscriptionRef.make(sequence)
  const arrived = yield* Latch.make(false)

  const write = Effect.gen(function* () {
    arrived.closeUnsafe()
    const batch = waiting
    if (batch.length === 0) return
    waiting = []
    floods.clear()
    while (batch.length > 0) {
      const slice = batch.slice(0, writtenAtOnce)
      yield* Effect.tapError(store.append(slice), () =>
        Effect.sync(() => {
          waiting = [...batch, ...waiting]
        })
      )
      batch.splice(0, slice.length)
      yield* SubscriptionRef.set(written, slice.at(-1)?.sequence ?? 0)
    }
    if (lost > 0)
      yield* Effect.logError(`${lost} entries of the audit were lost while it could not be written`)
    if (failures > 0) yield* Effect.logInfo("the audit is written again")
    lost = 0
    failures = 0
  })
  const writing = yield* Semaphore.make(1)
  const flush = Effect.uninterruptible(writing.withPermit(write))

  const tell = (error: WriteError) =>
    Effect.suspend(() => {
      arrived.openUnsafe()
      return ++failures > 1
        ? Effect.void
        : Effect.logError(`could not write the audit; trying again: ${error.message}`)
    })

  yield* arrived.await.pipe(
    Effect.andThen(Effect.suspend(() => Effect.sleep(backoffMillis(failures + 1, flushMillis)))),
    Effect.andThen(Effect.catch(flush, tell)),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    Effect.catch(flush, ({ message }) => Effect.logError(`the end of the audit is lost: ${message}`))
  )

  const read = (after: number, once: boolean): Stream.Stream<AuditEntry, WriteError> =>
    Stream.suspend(() => {
      let last = after
      const stored: Stream.Stream<AuditEntry, BackendFailed> = Stream.unwrap(
        Effect.map(
          Effect.suspend(() => store.read(last, pageSize)),
          (entries) => {
            last = entries.at(-1)?.sequence ?? last
            return entries.length === 0 ? Stream.empty : Stream.concat(Stream.fromIterable(entries), stored)
          }
        )
      )
      return once ? stored : Stream.flatMap(SubscriptionRef.changes(written), () => stored)
    })

  return Audit.of({
    record: (entry) => {
      const flood = floods.of(entry)
      if (flood?.entry !== undefined) {
        flood.entry.repeats++
        return
      }
      if (waiting.length >= maxWaiting) {
        lost++
        return
      }
      const told = { ...entry, sequence: ++sequence }
      waiting.push(flood === undefined ? told : flood.begin(told))
      arrived.openUnsafe()
    },
    follow: ({ after = 0, once = false } = {}) => Stream.unwrap(Effect.as(flush, read(after, once))),
    flush
  })
})

type Told = AuditEntry & { repeats: number }

/** Finds the calls of an owner that are too many to be told one by one. */
const makeFloods = () => {
  const calls = new Map<Owner, { failed: number; all: number }>()
  const entries = new Map<string, Told>()
  return {
    /** Of a call that is one of a flood, the entry that tells of it, or what begins such an entry. */
    of: ({ caller, operation, outcome, owner }: Omit<AuditEntry, "sequence">) => {
      const counts = calls.get(owner) ?? { failed: 0, all: 0 }
      calls.set(owner, counts)
      counts.all++
      if (outcome !== "ok") counts.failed++
      if (counts.all <= toldCalls && (outcome === "ok" || counts.failed <= toldFailures)) return undefined
      const key = [caller, owner, operation, outcome].join("\0")
      const begin = (entry: AuditEntry): AuditEntry => {
        const told = { ...entry, repeats: 0 }
        entries.set(key, told)
        return told
      }
      return { entry: entries.get(key), begin }
    },
    /** What was told is being written. */
    clear: () => {
      calls.clear()
      entries.clear()
    }
  }
}
