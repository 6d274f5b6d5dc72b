/**
 * The time limits of a machine's processes. Time does not run while the
 * machine is paused.
 */
import { Clock, Effect, type Fiber } from "effect"
import type { ProcessId } from "../../domain/Ids.ts"

interface Deadline {
  remainingMillis: number
  /** When it began to run; undefined while suspended. */
  since: number | undefined
  fiber: Fiber.Fiber<void> | undefined
}

/** The running limits, by process. */
export interface Deadlines {
  /** Calls `expire` once the process has run for `millis`. A process that has a limit keeps it. */
  readonly start: (processId: ProcessId, millis: number) => Effect.Effect<void>
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
  const scope = yield* Effect.scope
  const deadlines = new Map<ProcessId, Deadline>()
  const expired = new Set<ProcessId>()
  const clock = yield* Clock.Clock

  const run = Effect.fnUntraced(function* (processId: ProcessId, deadline: Deadline) {
    deadline.since = clock.currentTimeMillisUnsafe()
    deadline.fiber = yield* Effect.sleep(deadline.remainingMillis).pipe(
      Effect.andThen(Effect.suspend(() => hasEnded(processId))),
      Effect.flatMap((ended) => {
        deadlines.delete(processId)
        if (ended) return Effect.void
        expired.add(processId)
        return expire(processId)
      }),
      Effect.forkIn(scope)
    )
  })

  const stop = (deadline: Deadline) => {
    deadline.fiber?.interruptUnsafe()
    deadline.fiber = undefined
  }

  const result: Deadlines = {
    start: Effect.fnUntraced(function* (processId, millis) {
      if (deadlines.has(processId)) return
      const deadline: Deadline = { remainingMillis: millis, since: undefined, fiber: undefined }
      deadlines.set(processId, deadline)
      yield* run(processId, deadline)
    }),
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
    resume: Effect.suspend(() =>
      Effect.forEach(
        [...deadlines].filter(([, deadline]) => deadline.since === undefined),
        ([processId, deadline]) => run(processId, deadline),
        { discard: true }
      )
    ),
    clear: Effect.sync(() => {
      for (const deadline of deadlines.values()) stop(deadline)
      deadlines.clear()
      expired.clear()
    })
  }
  return result
})
