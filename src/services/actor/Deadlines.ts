/**
 * The time limits of a machine's processes. Time does not run while the
 * machine is paused.
 */
import { Clock, Effect, FiberSet } from "effect"
import type { ProcessId } from "../../domain/Ids.ts"
import { makeAlarms, monotonicMillis } from "../Alarms.ts"

interface Deadline {
  remainingMillis: number
  /** When it began to run; undefined while suspended. */
  since: number | undefined
  cancel: (() => void) | undefined
}

/** The running limits, by process. */
export interface Deadlines {
  /** Calls `expire` once so many milliseconds have passed. A process that has a limit keeps it. */
  readonly start: (processId: ProcessId, millis: number) => void
  /** Forgets a process of which nothing is left. */
  readonly cancel: (processId: ProcessId) => void
  /** What is left of the limits. */
  readonly left: () => ReadonlyArray<readonly [ProcessId, number]>
  readonly suspend: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Forgets all: the machine is gone. */
  readonly clear: Effect.Effect<void>
}

/** No limits yet. `expire` is run in the present scope, once for each process whose time is up. */
export const makeDeadlines = Effect.fnUntraced(function* (
  expire: (processId: ProcessId) => Effect.Effect<void>
) {
  const alarms = yield* makeAlarms
  const fork = yield* FiberSet.makeRuntime<never, void>()
  const deadlines = new Map<ProcessId, Deadline>()
  const clock = yield* Clock.Clock

  const run = (processId: ProcessId, deadline: Deadline) => {
    deadline.since = monotonicMillis(clock)
    deadline.cancel = alarms.set(deadline.remainingMillis, () => {
      deadlines.delete(processId)
      fork(expire(processId))
    })
  }

  const stop = (deadline: Deadline) => {
    deadline.cancel?.()
    deadline.cancel = undefined
  }

  const remaining = ({ remainingMillis, since }: Deadline, now: number) =>
    Math.max(0, remainingMillis - (since === undefined ? 0 : now - since))

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
    left: () => {
      const now = monotonicMillis(clock)
      return Array.from(deadlines, ([processId, deadline]) => [processId, remaining(deadline, now)] as const)
    },
    suspend: Effect.sync(() => {
      const now = monotonicMillis(clock)
      for (const deadline of deadlines.values()) {
        deadline.remainingMillis = remaining(deadline, now)
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
    })
  }
  return result
})
