/**
 * The time limits of a machine's processes. Time does not run while the
 * machine is paused.
 */
import { Clock, Effect, FiberSet } from "effect"
import type { ProcessId } from "../../domain/Ids.ts"
import { makeAlarms } from "../Alarms.ts"

interface Deadline {
  remainingMillis: number
  /** When it began to run; undefined while suspended. */
  since: number | undefined
  cancel: (() => void) | undefined
}

/** The running limits, by process. */
export interface Deadlines {
  /** Calls `expire` once the process has run for `millis`. A process that has a limit keeps it. */
  readonly start: (processId: ProcessId, millis: number) => void
  /** Forgets a process that has ended. */
  readonly cancel: (processId: ProcessId) => void
  /** Whether the process was ended by its limit. */
  readonly expired: (processId: ProcessId) => boolean
  readonly suspend: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Forgets all: the machine is gone. */
  readonly clear: Effect.Effect<void>
}

/**
 * No limits yet. `expire` is run in the present scope, once for each process
 * that ran into its limit; one that `hasEnded` by then, with nobody attached to notice, did not.
 */
export const makeDeadlines = Effect.fnUntraced(function* (
  expire: (processId: ProcessId) => Effect.Effect<void>,
  hasEnded: (processId: ProcessId) => Effect.Effect<boolean> = () => Effect.succeed(false)
) {
  const alarms = yield* makeAlarms
  const fork = yield* FiberSet.makeRuntime<never, void>()
  const deadlines = new Map<ProcessId, Deadline>()
  const expired = new Set<ProcessId>()
  const clock = yield* Clock.Clock

  /** The time of a process is up: unless it had ended by then, it is ended. */
  const end = (processId: ProcessId, deadline: Deadline) =>
    Effect.flatMap(hasEnded(processId), (ended) => {
      // It was cancelled meanwhile, or suspended: then it comes back when time runs again.
      if (deadlines.get(processId) !== deadline || deadline.since === undefined) return Effect.void
      deadlines.delete(processId)
      if (ended) return Effect.void
      expired.add(processId)
      return expire(processId)
    })

  const run = (processId: ProcessId, deadline: Deadline) => {
    deadline.since = clock.currentTimeMillisUnsafe()
    deadline.cancel = alarms.set(deadline.remainingMillis, () => fork(end(processId, deadline)))
  }

  const stop = (deadline: Deadline) => {
    deadline.cancel?.()
    deadline.cancel = undefined
  }

  const result: Deadlines = {
    start: (processId, millis) => {
      if (deadlines.has(processId)) return
      const deadline: Deadline = { remainingMillis: millis, since: undefined, cancel: undefined }
      deadlines.set(processId, deadline)
      run(processId, deadline)
    },
    cancel: (processId) => {
      const deadline = deadlines.get(processId)
      if (deadline === undefined) return
      stop(deadline)
      deadlines.delete(processId)
    },
    expired: (processId) => expired.has(processId),
    suspend: Effect.sync(() => {
      const now = clock.currentTimeMillisUnsafe()
      for (const deadline of deadlines.values()) {
        if (deadline.since === undefined) continue
        deadline.remainingMillis = Math.max(0, deadline.remainingMillis - (now - deadline.since))
        deadline.since = undefined
        stop(deadline)
      }
    }),
    resume: Effect.sync(() => {
      for (const [processId, deadline] of deadlines) {
        if (deadline.since === undefined) run(processId, deadline)
      }
    }),
    clear: Effect.sync(() => {
      for (const deadline of deadlines.values()) stop(deadline)
      deadlines.clear()
      expired.clear()
    })
  }
  return result
})
