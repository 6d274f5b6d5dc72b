/**
 * Brings what exists into line with what is recorded, when a service starts
 * and from then on.
 *
 * Only what the store says was killed is removed. What the store does not know
 * at all is there because the store has lost something: a machine is never made
 * before its record. Its programs are ended and its disk is kept, and `Remains`
 * shows it. Each sandbox is dealt with by itself: one that fails is named in the
 * log and tried again by the next sweep, and holds up nothing.
 */
import { Clock, Effect, Fiber, FiberSet, Layer, Schedule } from "effect"
import { Timeout } from "../domain/Errors.ts"
import type { SandboxId } from "../domain/Ids.ts"
import { Backend, type MachineRef } from "./Backend.ts"
import { SandboxActor } from "./SandboxActor.ts"
import { type Known, type SandboxRecord, SandboxStore, tombstoneMillis } from "./SandboxStore.ts"

/** What a service does with its sandboxes when it ends: leave the detached ones running, or kill all. */
export type OnClose = "leave" | "kill"

/** Sweeps come this often. */
const sweepMillis = 60_000
/** The most time a start waits for removals, and an end for one kill; they go on without it. */
const patienceMillis = 15_000
const concurrency = 16

/** How a service begins and ends. */
export interface Options {
  /** What becomes of detached sandboxes when the service ends; scoped ones always end. */
  readonly onClose: OnClose
  /** Whether its instance has just been made, so that there is nothing to put in order. Default: no. */
  readonly isNew?: boolean | undefined
}

/** What exists, and what is recorded of it. */
interface Findings {
  readonly refs: ReadonlyArray<MachineRef>
  readonly known: ReadonlyMap<SandboxId, Known>
}

/** Of what was found, what belongs to sandboxes killed up to a time; without one, to any that was killed. */
const leftOver = ({ known, refs }: Findings, killedUntil?: number): ReadonlyArray<SandboxId> =>
  refs
    .map((ref) => ref.sandboxId)
    .filter((id) => {
      const killedAt = known.get(id)?.killedAt
      return killedAt !== undefined && (killedUntil === undefined || killedAt <= killedUntil)
    })

const unknown = ({ known, refs }: Findings): ReadonlyArray<MachineRef> =>
  refs.filter((ref) => !known.has(ref.sandboxId))

/** Whether a sandbox outlives its service: nobody holds it, or a client does who may come back. */
const isKept = (record: SandboxRecord): boolean => record.detached || record.lease !== undefined

/** Whether a machine is the one that the record tells of. One that is being made is settled by whoever makes it. */
const isOf = ({ generation, status }: SandboxRecord, running: MachineRef): boolean => {
  switch (status) {
    case "provisioning":
    case "restarting":
      return true
    case "stopped":
    case "failed":
    case "killed":
      return false
    case "running":
    case "paused":
    case "stopping":
    case "lost":
      return running.generation === generation
  }
}

/** Does the same with each of several sandboxes; what fails is named, and the others are done all the same. Gives those that were done. */
const each = <E, R>(
  doing: string,
  ids: Iterable<SandboxId>,
  act: (id: SandboxId) => Effect.Effect<unknown, E, R>
): Effect.Effect<ReadonlyArray<SandboxId>, never, R> =>
  Effect.forEach(
    ids,
    (id) =>
      act(id).pipe(
        Effect.as([id]),
        Effect.catchCause((cause) =>
          Effect.as(Effect.logWarning(`could not ${doing} ${id}; it is tried again`, cause), [])
        )
      ),
    { concurrency }
  ).pipe(Effect.map((done) => done.flat()))

const make = Effect.fnUntraced(function* (options: Options) {
  const backend = yield* Backend
  const store = yield* SandboxStore
  const actorOf = yield* SandboxActor.client
  /** What somebody waited for and may wait no more. */
  const underWay = yield* FiberSet.make<unknown, unknown>()
  /** Sandboxes of an ended program whose end could not be recorded yet. */
  let unburied: ReadonlySet<SandboxId> = new Set()
  /** The unknown sandboxes that were told of. */
  let told: ReadonlySet<SandboxId> = new Set()

  /** Waits for the end of an effect as long as patience lasts; it goes on all the same. */
  const patiently = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.flatMap(FiberSet.run(underWay, effect), (fiber) =>
      Effect.timeoutOrElse(Fiber.join(fiber), {
        duration: patienceMillis,
        orElse: () => Effect.fail(new Timeout({ limit: "drain", millis: patienceMillis, outcome: "unknown" }))
      })
    )

  const kill = (id: SandboxId) => actorOf(id).ChangeStatus({ sandboxId: id, command: "kill" })

  /** Ends the programs of what nobody knows, leaves the rest, and says so once. */
  const setAside = Effect.fnUntraced(function* (refs: ReadonlyArray<MachineRef>) {
    const ids = refs.map((ref) => ref.sandboxId)
    const isNews = ids.some((id) => !told.has(id))
    told = new Set(ids)
    if (isNews) {
      // The commands of a terminal show errors only, and this is for a person to decide.
      yield* Effect.logError(
        `the store does not know these sandboxes, and they have disks here: ${ids.join(", ")}. Their programs are ended, their disks are kept; \`fiberbox remains\` shows, adopts and removes them`
      )
    }
    const running = refs.filter((ref) => ref.generation !== undefined)
    yield* each(
      "end the machine of the unknown sandbox",
      running.map((ref) => ref.sandboxId),
      backend.end
    )
  })

  const survey = Effect.gen(function* () {
    const refs = yield* backend.list
    const findings: Findings = { refs, known: yield* store.known(refs.map((ref) => ref.sandboxId)) }
    return findings
  })

  /** Ends a sandbox whose program is gone. Only before its actor lives, which is the one to write otherwise. */
  const bury = Effect.fnUntraced(function* (record: SandboxRecord) {
    const killedAt = yield* Clock.currentTimeMillis
    const reason = "the program that created it has ended"
    yield* store.save({ ...record, status: "killed", reason, killedAt }, [
      { _tag: "StatusChanged", from: record.status, to: "killed", reason }
    ])
  })

  /** Puts everything in order before any actor lives. Gives the sandboxes that live on. */
  const reconcile = Effect.gen(function* () {
    const records = yield* store.alive
    const byId = new Map(records.map((record) => [record.id, record]))
    const scoped = records.filter((record) => !isKept(record))
    const ended = yield* each(
      "record the end of",
      scoped.map((record) => record.id),
      (id) => {
        const record = byId.get(id)
        return record === undefined ? Effect.void : bury(record)
      }
    )
    unburied = new Set(scoped.map((record) => record.id).filter((id) => !ended.includes(id)))
    const alive = records.filter(isKept)
    const findings = yield* Effect.catch(survey, (error) =>
      Effect.as(
        Effect.logError(`could not look for what the last service left; it is tried again: ${error.message}`),
        {
          refs: [],
          known: new Map()
        } satisfies Findings
      )
    )
    const removed = leftOver(findings)
    const astray = findings.refs.filter((ref) => {
      const record = byId.get(ref.sandboxId)
      return ref.generation !== undefined && record !== undefined && isKept(record) && !isOf(record, ref)
    })
    const cleaning = Effect.all(
      [
        each("remove", removed, backend.remove),
        each(
          "end the machine, of which its record does not tell, of",
          astray.map((ref) => ref.sandboxId),
          backend.end
        ),
        setAside(unknown(findings))
      ],
      { concurrency: "unbounded", discard: true }
    )
    yield* Effect.catch(patiently(cleaning), (error) =>
      Effect.logWarning(`removing what the last service left goes on in the background: ${error.message}`)
    )
    if (ended.length + removed.length + alive.length > 0) {
      yield* Effect.logInfo("reconciled").pipe(
        Effect.annotateLogs({ ended, removed, alive: alive.map((record) => record.id) })
      )
    }
    return alive.map((record) => record.id)
  })

  const sweep = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const buried = yield* each("end", unburied, kill)
    unburied = new Set([...unburied].filter((id) => !buried.includes(id)))
    const findings = yield* survey
    // One killed less than a sweep ago is still being removed by its actor.
    yield* each("remove", leftOver(findings, now - sweepMillis), backend.remove)
    yield* setAside(unknown(findings))
    // What is not removed yet must not be forgotten: nobody would know then that it may be removed.
    yield* store.purge(
      now - tombstoneMillis,
      findings.refs.map((ref) => ref.sandboxId)
    )
  })

  const close = Effect.gen(function* () {
    const records = yield* store.alive
    const doomed = options.onClose === "kill" ? records : records.filter((record) => !isKept(record))
    yield* each(
      "end",
      doomed.map((record) => record.id),
      (id) => patiently(kill(id))
    )
  })

  /** One whose time had run out is killed while it is taken up, and that is all there was to do. */
  const wake = (id: SandboxId) =>
    Effect.catchTag(actorOf(id).Wake({ sandboxId: id }), "NotFound", () => Effect.void)

  return { reconcile, sweep, close, wake }
})

/**
 * Reconciles when it is built, wakes the actors of the sandboxes that live on,
 * sweeps from time to time, and at its end does what `onClose` says. It fails
 * only when the store cannot be read.
 */
export const layer = (options: Options) =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { close, reconcile, sweep, wake } = yield* make(options)
      const alive = options.isNew === true ? [] : yield* reconcile
      yield* Effect.forkScoped(each("take up", alive, wake))
      yield* Effect.addFinalizer(() =>
        Effect.catchCause(close, (cause) => Effect.logError("could not end all sandboxes", cause))
      )
      yield* Effect.catchCause(sweep, (cause) => Effect.logWarning("could not sweep", cause)).pipe(
        Effect.repeat(Schedule.spaced(sweepMillis)),
        Effect.delay(sweepMillis),
        Effect.forkScoped
      )
    })
  )
