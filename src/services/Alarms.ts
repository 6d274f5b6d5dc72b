/**
 * Many time limits, and one fiber that sleeps for all of them: a limit that is
 * hardly ever reached costs no fiber and no timer of its own.
 *
 * A span of time is measured by a clock that nobody sets, and a point in time
 * is read off the wall clock, which may be set an hour on or a day back.
 */
import { Clock, Context, Effect, FiberHandle, Layer, type Scope } from "effect"

/** Time limits that run. */
export interface Alarms {
  /** Calls `ring`, which does not throw, after so many milliseconds, at least 1. Returns what cancels it, with no effect once it has rung. */
  readonly set: (millis: number, ring: () => void) => () => void
}

/** How late the wall clock's being set may be noticed, in milliseconds. */
export const lookMillis = 1_000

interface Alarm {
  readonly at: number
  readonly ring: () => void
}

/** The time by a clock that nobody sets, in milliseconds since whenever. */
export const monotonicMillis = (clock: Clock.Clock): number =>
  Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

/** The same, in the clock that there is. */
export const elapsedMillis: Effect.Effect<number> = Effect.map(Clock.Clock, monotonicMillis)

/** Rings by what `now` says, and sleeps at most for `longest` without asking it again. */
const makeSleeper = Effect.fnUntraced(function* (now: () => number, longest: number) {
  const run = yield* FiberHandle.makeRuntime<never>()
  const pending = new Set<Alarm>()
  /** What the sleeper wakes for; infinite when there is none. */
  let wakesFor = Number.POSITIVE_INFINITY

  const sleep = (millis: number): Effect.Effect<void> =>
    // Whole milliseconds, since a timer that is cut short would only have to be set again.
    Effect.andThen(Effect.sleep(Math.min(longest, Math.max(1, Math.ceil(millis)))), wake)

  const wake = Effect.suspend(() => {
    const present = now()
    wakesFor = Number.POSITIVE_INFINITY
    const ringing: Array<Alarm> = []
    for (const alarm of pending) {
      if (alarm.at <= present) ringing.push(alarm)
      else wakesFor = Math.min(wakesFor, alarm.at)
    }
    const next = wakesFor
    for (const alarm of ringing) if (pending.delete(alarm)) alarm.ring()
    // What rang may have set another, which has its own sleeper then.
    return next === wakesFor && next < Number.POSITIVE_INFINITY ? sleep(next - present) : Effect.void
  })

  return (at: number, ring: () => void) => {
    const alarm = { at, ring }
    pending.add(alarm)
    if (at < wakesFor) {
      wakesFor = at
      // Never at once: whoever sets it may not be ready for it before this has returned.
      run(sleep(at - now()))
    }
    return () => {
      pending.delete(alarm)
    }
  }
})

/** No limits yet; none rings after the scope has closed. */
export const makeAlarms: Effect.Effect<Alarms, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const now = () => monotonicMillis(clock)
  const setAt = yield* makeSleeper(now, Number.POSITIVE_INFINITY)
  return { set: (millis, ring) => setAt(now() + Math.max(1, millis), ring) }
})

/** The alarms that all sandboxes of a service share. */
export class SharedAlarms extends Context.Service<
  SharedAlarms,
  {
    /** Calls `ring`, which does not throw, after so many milliseconds. Returns what cancels it. */
    readonly after: (millis: number, ring: () => void) => () => void
    /** Calls `ring`, which does not throw, when it is that time by the wall clock, in milliseconds since the epoch, or up to a second later. Returns what cancels it. */
    readonly at: (epochMillis: number, ring: () => void) => () => void
  }
>()("fiberbox/services/SharedAlarms") {
  /** None yet; none rings after the layer has closed. */
  static readonly layer: Layer.Layer<SharedAlarms> = Layer.effect(
    SharedAlarms,
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      const { set: after } = yield* makeAlarms
      const at = yield* makeSleeper(() => clock.currentTimeMillisUnsafe(), lookMillis)
      return { after, at }
    })
  )
}
