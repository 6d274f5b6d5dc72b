/**
 * How long, and how often, something lost is asked for again.
 */
import { Clock, Duration, Effect, Schedule } from "effect"
import { Connection } from "../../domain/Errors.ts"
import type { Lost } from "./Lost.ts"

/** When to try again after a loss. */
export interface PatienceOptions {
  /** How long to go on without anything having arrived; default 30 seconds. */
  readonly patience?: Duration.Input | undefined
  /** The waits between attempts; default: from 50 ms doubling up to 2 s, each shortened or lengthened at random. */
  readonly backoff?: Schedule.Schedule<unknown> | undefined
}

/** The patience of one call. */
export interface Patience {
  /** Something arrived: patience begins anew. */
  readonly progress: () => void
  /** Waits before the next attempt, or fails when there shall be none. */
  readonly again: (lost: Lost, repeatable: boolean) => Effect.Effect<void, Connection>
}

const defaultBackoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)

const given = ({ reason, outcome }: Lost) => new Connection({ reason, outcome })

/** Makes the patience of one call after the other. */
export const makePatience = (options: PatienceOptions): (() => Patience) => {
  const limit = Duration.toMillis(Duration.fromInputUnsafe(options.patience ?? "30 seconds"))
  const steps = Schedule.toStep(options.backoff ?? defaultBackoff)

  return () => {
    let since: number | undefined
    let mayHaveHappened = false
    let step: Effect.Success<typeof steps> | undefined

    /** Tells what is known of the whole call, not only of its last attempt. */
    const spent = (lost: Lost) =>
      new Connection({ reason: lost.reason, outcome: mayHaveHappened ? "unknown" : "not-started" })

    const wait = Effect.fnUntraced(function* (lost: Lost) {
      const now = yield* Clock.currentTimeMillis
      since ??= now
      step ??= yield* steps
      const [, delay] = yield* Effect.catch(step(now, undefined), () => Effect.fail(spent(lost)))
      const left = limit - (now - since)
      if (left <= 0) return yield* spent(lost)
      return yield* Effect.sleep(Math.min(left, Duration.toMillis(delay)))
    })

    return {
      progress: () => {
        since = undefined
        step = undefined
      },
      again: (lost, repeatable) => {
        if (lost.outcome === "unknown") {
          if (!repeatable) return Effect.fail(given(lost))
          mayHaveHappened = true
        }
        return wait(lost)
      }
    }
  }
}
