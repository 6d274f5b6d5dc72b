/**
 * Many time limits, and one fiber that sleeps for all of them: a limit that is
 * hardly ever reached costs no fiber and no timer of its own.
 */
import { Clock, Effect, FiberHandle, type Scope } from "effect"

/** Time limits that run. */
export interface Alarms {
  /** Calls `ring`, which does not throw, after so many milliseconds, at least 1. Returns what cancels it, with no effect once it has rung. */
  readonly set: (millis: number, ring: () => void) => () => void
}

interface Alarm {
  readonly at: number
  readonly ring: () => void
}

/** No limits yet; none rings after the scope has closed. */
export const makeAlarms: Effect.Effect<Alarms, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const run = yield* FiberHandle.makeRuntime<never>()
  const pending = new Set<Alarm>()
  /** When the sleeper wakes; infinite when there is none. */
  let wakesAt = Number.POSITIVE_INFINITY

  const sleep = (millis: number): Effect.Effect<void> => Effect.andThen(Effect.sleep(millis), wake)

  /** Rings what is due and sleeps until the next. A clock that was put back makes nothing late. */
  const wake = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    const due = Math.max(now, wakesAt)
    wakesAt = Number.POSITIVE_INFINITY
    const ringing: Array<Alarm> = []
    for (const alarm of pending) {
      if (alarm.at <= due) ringing.push(alarm)
      else wakesAt = Math.min(wakesAt, alarm.at)
    }
    const next = wakesAt
    for (const alarm of ringing) if (pending.delete(alarm)) alarm.ring()
    // What rang may have set another, which has its own sleeper then.
    return next === wakesAt && next < Number.POSITIVE_INFINITY ? sleep(Math.max(0, next - now)) : Effect.void
  })

  return {
    set: (millis, ring) => {
      // Never at once: whoever sets it may not be ready for it before this has returned.
      const after = Math.max(1, millis)
      const alarm = { at: clock.currentTimeMillisUnsafe() + after, ring }
      pending.add(alarm)
      if (alarm.at < wakesAt) {
        wakesAt = alarm.at
        run(sleep(after))
      }
      return () => pending.delete(alarm)
    }
  }
})
