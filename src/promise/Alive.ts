/**
 * What keeps this program running: a call that somebody waits for does, an idle
 * service does not.
 *
 * Timers and connections of the embedded service are therefore made not to hold
 * Node's event loop, and every pending call holds it instead.
 */
import { Clock, Duration, Effect, Layer } from "effect"
import { HoldsProcess } from "../services/HoldsProcess.ts"

/** The longest that Node's timers can wait, in milliseconds. */
const maxTimerMillis = 2 ** 31 - 1

let holders = 0
let holder: NodeJS.Timeout | undefined

/** Keeps the program running until a promise has settled. */
export const holdProcess = async <A>(pending: () => Promise<A>): Promise<A> => {
  holders += 1
  holder ??= setInterval(() => {}, maxTimerMillis)
  holder.ref()
  try {
    return await pending()
  } finally {
    holders -= 1
    if (holders === 0) holder.unref()
  }
}

const sleep = (millis: number): Effect.Effect<void> => {
  if (millis <= 0) return Effect.yieldNow
  if (!Number.isFinite(millis)) return Effect.never
  return Effect.callback<void>((resume) => {
    const rest = millis > maxTimerMillis ? sleep(millis - maxTimerMillis) : Effect.void
    const timer = setTimeout(() => resume(rest), Math.min(millis, maxTimerMillis))
    timer.unref()
    return Effect.sync(() => clearTimeout(timer))
  })
}

const clock = Layer.effect(
  Clock.Clock,
  Effect.map(
    Clock.Clock,
    (clock): Clock.Clock => ({
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
      currentTimeMillis: clock.currentTimeMillis,
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
      currentTimeNanos: clock.currentTimeNanos,
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration) => sleep(Duration.toMillis(duration))
    })
  )
)

/** For a service whose timers and connections do not keep the program running. */
export const layerIdle: Layer.Layer<never> = Layer.merge(clock, Layer.succeed(HoldsProcess, false))

const closers = new Set<() => Promise<void>>()

const closeAll = (): void => {
  // What could not be ended now is cleared away by the next start.
  for (const close of closers) close().catch(() => {})
}

/** Has `close` called when the program has nothing left to do, unless what is returned is called before. */
export const closeAtEnd = (close: () => Promise<void>): (() => void) => {
  if (closers.size === 0) process.on("beforeExit", closeAll)
  closers.add(close)
  return () => {
    closers.delete(close)
    if (closers.size === 0) process.off("beforeExit", closeAll)
  }
}
