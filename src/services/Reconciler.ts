/**
 * Brings what exists into line with what is recorded, when a service starts
 * and from then on: nothing acknowledged is lost, nothing else is left.
 */
import { Clock, Effect, Layer, Schedule } from "effect"
import type { BackendFailed, Timeout } from "../domain/Errors.ts"
import type { SandboxId } from "../domain/Ids.ts"
import { Backend } from "./Backend.ts"
import { SandboxActor } from "./SandboxActor.ts"
import { type SandboxRecord, SandboxStore, tombstoneMillis } from "./SandboxStore.ts"

/** What a service does with its sandboxes when it ends: leave the detached ones running, or kill all. */
export type OnClose = "leave" | "kill"

/** Sweeps come this often. */
const sweepMillis = 60_000
const concurrency = 16

/** How a service begins and ends. */
export interface Options {
  /** What becomes of detached sandboxes when the service ends; scoped ones always end. */
  readonly onClose: OnClose
  /** Whether its instance has just been made, so that there is nothing to put in order. Default: no. */
  readonly isNew?: boolean | undefined
}

/** What was found and done when a service started. */
export interface Report {
  /** Scoped sandboxes of a program that has ended, now killed. */
  readonly ended: ReadonlyArray<SandboxId>
  /** Machines and disks that no living sandbox owns, now removed. */
  readonly removed: ReadonlyArray<SandboxId>
  /** Sandboxes that live on; their actors take them up. */
  readonly alive: ReadonlyArray<SandboxId>
}

const nothing: Report = { ended: [], removed: [], alive: [] }

const remove = Effect.fnUntraced(function* (ids: ReadonlyArray<SandboxId>) {
  const backend = yield* Backend
  yield* Effect.forEach(ids, backend.remove, { concurrency, discard: true })
})

/** Whether a sandbox outlives its service: nobody holds it, or a client does who may come back. */
const isKept = (record: SandboxRecord): boolean => record.detached || record.lease !== undefined

/** Ends a sandbox whose program is gone. Only before its actor lives, which is the one to write otherwise. */
const bury = Effect.fnUntraced(function* (record: SandboxRecord) {
  const store = yield* SandboxStore
  const killedAt = yield* Clock.currentTimeMillis
  const reason = "the program that created it has ended"
  yield* store.save({ ...record, status: "killed", reason, killedAt }, [
    { _tag: "StatusChanged", from: record.status, to: "killed", reason }
  ])
})

/** Removes what no living sandbox owns. One killed less than a sweep ago is still being removed by its actor. */
const sweep = Effect.gen(function* () {
  const backend = yield* Backend
  const store = yield* SandboxStore
  const now = yield* Clock.currentTimeMillis
  const found = yield* backend.list
  const orphans: Array<SandboxId> = []
  for (const { sandboxId } of found) {
    const record = yield* store.get(sandboxId)
    if (record === undefined || (record.killedAt !== undefined && record.killedAt <= now - sweepMillis)) {
      orphans.push(sandboxId)
    }
  }
  yield* remove(orphans)
  yield* store.purge(now - tombstoneMillis)
  return orphans
})

/**
 * Puts everything in order before any actor lives: scoped sandboxes of the
 * ended program are killed, and what nobody owns is removed.
 */
export const reconcile: Effect.Effect<Report, BackendFailed | Timeout, Backend | SandboxStore> = Effect.gen(
  function* () {
    const backend = yield* Backend
    const store = yield* SandboxStore
    const records = yield* store.alive
    const scoped = records.filter((record) => !isKept(record))
    yield* Effect.forEach(scoped, bury, { discard: true })
    const alive = new Set(records.filter(isKept).map((record) => record.id))
    const found = (yield* backend.list).map((ref) => ref.sandboxId)
    const removed = found.filter((id) => !alive.has(id))
    yield* remove(removed)
    return { ended: scoped.map((record) => record.id), removed, alive: [...alive] }
  }
)

/**
 * Reconciles when it is built, wakes the actors of the sandboxes that live on,
 * sweeps from time to time, and at its end does what `onClose` says.
 */
export const layer = (options: Options) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const store = yield* SandboxStore
      const actorOf = yield* SandboxActor.client
      const report = options.isNew ? nothing : yield* reconcile
      if (report.ended.length + report.removed.length + report.alive.length > 0) {
        yield* Effect.logInfo("reconciled").pipe(Effect.annotateLogs({ ...report }))
      }
      yield* Effect.forEach(
        report.alive,
        (sandboxId) =>
          Effect.catchCause(actorOf(sandboxId).Wake({ sandboxId }), (cause) =>
            Effect.logWarning(`could not take up ${sandboxId}`, cause)
          ),
        { concurrency, discard: true }
      ).pipe(Effect.forkScoped)
      yield* Effect.addFinalizer(() =>
        Effect.gen(function* () {
          const records = yield* store.alive
          const doomed = options.onClose === "kill" ? records : records.filter((record) => !isKept(record))
          yield* Effect.forEach(
            doomed,
            ({ id }) => actorOf(id).ChangeStatus({ sandboxId: id, command: "kill" }),
            { concurrency, discard: true }
          )
        }).pipe(Effect.catchCause((cause) => Effect.logError("could not end all sandboxes", cause)))
      )
      yield* Effect.catchCause(sweep, (cause) => Effect.logWarning("could not sweep", cause)).pipe(
        Effect.schedule(Schedule.spaced(sweepMillis)),
        Effect.delay(sweepMillis),
        Effect.forkScoped
      )
    })
  )
