/**
 * What bounds a program from outside: its time limit, and the lease of the
 * client that wants it.
 *
 * They bound all that was started from the moment its start is accepted, before
 * the machine hears of it and whether or not anybody reads its events. The
 * limit stays until nothing of it is left; the lease until the program itself
 * has exited: what it leaves behind is nobody's to hold.
 */
import { Effect, FiberHandle, Schedule } from "effect"
import type { LeaseId, Owner, ProcessId, SandboxId } from "../../domain/Ids.ts"
import type { ProcessSpec } from "../../domain/Process.ts"
import { Leases } from "../Leases.ts"
import type { EndCause, Machine, Start } from "../Machine.ts"
import { Recent } from "../Recent.ts"
import { makeDeadlines } from "./Deadlines.ts"
import { readLabel } from "./Label.ts"

/** The bounds of a machine's programs. */
export interface Bounds {
  /** Begins to bound what is about to be started. Bounds that have begun stay as they are; tells whether these have begun now. */
  readonly begin: (
    start: Start,
    bounds: Pick<ProcessSpec, "timeoutMillis" | "lease">
  ) => Effect.Effect<boolean>
  /** Tells, as long as it is asked, whether the time of this process has passed: then its limit in milliseconds. */
  readonly overdue: (processId: ProcessId) => () => number | undefined
  /** For how many milliseconds the client of a program was not heard of, if it was ended for that. */
  readonly lapsed: (processId: ProcessId) => number | undefined
  /** Forgets what was not started after all. */
  readonly refused: (processId: ProcessId) => void
  /** A program has exited; whether something that came from it is alive. */
  readonly exited: (processId: ProcessId, treeAlive: boolean) => void
  /** Bounds again what an adopted machine runs, as far as it knows; tries until the machine has said. */
  readonly restore: (machine: Machine) => Effect.Effect<void>
  /** Lets no time pass while the machine is paused. */
  readonly suspend: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Forgets all: the machine is gone. */
  readonly clear: Effect.Effect<void>
}

interface Bounded {
  readonly start: Start
  readonly timeoutMillis: number | undefined
  lease: LeaseId | undefined
  isOverdue: boolean
}

/** Of how many programs it is remembered that they were ended with their leases. */
const lapsesKept = 1024

const backoff = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/** What bounds need of the sandbox. */
export interface BoundsOptions {
  /** Ends a program whose time is up or whose lease has lapsed. */
  readonly end: (start: Start, cause: EndCause) => Effect.Effect<void>
  /** Tells the machine, once it runs, how much of its limit a program has left. */
  readonly tell: (processId: ProcessId, leftMillis: number) => Effect.Effect<void>
}

/** The bounds of one sandbox's programs. */
export const makeBounds = Effect.fnUntraced(function* (
  sandbox: { readonly id: SandboxId; readonly owner: Owner },
  { end, tell }: BoundsOptions
) {
  const leases = yield* Leases
  const { id, owner } = sandbox
  const bounded = new Map<ProcessId, Bounded>()
  /** The last programs that were ended with their leases, and for how long these were not renewed. */
  const lapsed = new Recent<ProcessId, number>(lapsesKept)
  const restoring = yield* FiberHandle.make()
  const telling = yield* FiberHandle.make()

  const nameOf = (processId: ProcessId) => `${id}/${processId}`

  const letGo = (processId: ProcessId, one: Bounded) => {
    if (one.lease !== undefined) leases.drop(owner, one.lease, nameOf(processId))
    one.lease = undefined
  }

  const forget = (processId: ProcessId) => {
    const one = bounded.get(processId)
    if (one === undefined) return
    deadlines.cancel(processId)
    letGo(processId, one)
    bounded.delete(processId)
  }

  const deadlines = yield* makeDeadlines((processId) =>
    Effect.suspend(() => {
      const one = bounded.get(processId)
      if (one === undefined) return Effect.void
      one.isOverdue = true
      return Effect.andThen(
        end(one.start, "limit"),
        Effect.sync(() => forget(processId))
      )
    })
  )

  const begin: Bounds["begin"] = (start, { timeoutMillis, lease }) =>
    Effect.suspend(() => {
      const { processId } = start
      if ((timeoutMillis === undefined && lease === undefined) || bounded.has(processId)) {
        return Effect.succeed(false)
      }
      bounded.set(processId, { start, timeoutMillis, lease, isOverdue: false })
      if (timeoutMillis !== undefined) deadlines.start(processId, timeoutMillis)
      if (lease === undefined) return Effect.succeed(true)
      // Not before it lapses: a machine is adopted while its actor is still being made.
      const release = (silentMillis: number | undefined) =>
        Effect.suspend(() => {
          if (silentMillis !== undefined) lapsed.set(processId, silentMillis)
          return end(start, "request")
        })
      return Effect.as(leases.hold(owner, lease, nameOf(processId), release), true)
    })

  const readFrom = Effect.fnUntraced(function* (machine: Machine) {
    for (const { processId, identity, exit, label, leftMillis, treeAlive } of yield* machine.processes.list) {
      if (!treeAlive) continue
      const timeoutMillis = leftMillis === undefined ? undefined : Math.max(1, leftMillis)
      const lease = exit === undefined ? readLabel(label).lease : undefined
      yield* begin({ processId, identity }, { timeoutMillis, lease })
    }
  })

  const bounds: Bounds = {
    begin,
    overdue: (processId) => {
      const one = bounded.get(processId)
      return () => (one?.isOverdue === true ? one.timeoutMillis : undefined)
    },
    lapsed: (processId) => lapsed.get(processId),
    refused: forget,
    exited: (processId, treeAlive) => {
      const one = bounded.get(processId)
      if (one === undefined) return
      if (treeAlive) letGo(processId, one)
      else forget(processId)
    },
    suspend: deadlines.suspend,
    // The machine cannot know how long it stood still.
    resume: Effect.andThen(
      deadlines.resume,
      FiberHandle.run(
        telling,
        Effect.suspend(() =>
          Effect.forEach(deadlines.left(), ([processId, left]) => tell(processId, Math.max(1, left)), {
            discard: true
          })
        )
      )
    ),
    clear: Effect.andThen(
      Effect.andThen(FiberHandle.clear(restoring), FiberHandle.clear(telling)),
      Effect.sync(() => {
        for (const processId of [...bounded.keys()]) forget(processId)
        lapsed.clear()
      })
    ),
    restore: (machine) =>
      readFrom(machine).pipe(
        Effect.catch((error) =>
          Effect.andThen(
            Effect.logWarning(`the time limits of ${id} are not known yet: ${error.message}`),
            FiberHandle.run(restoring, Effect.retry(readFrom(machine), backoff).pipe(Effect.ignore))
          )
        ),
        Effect.asVoid
      )
  }
  return bounds
})
