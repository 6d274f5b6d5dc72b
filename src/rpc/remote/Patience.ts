/**
 * How long, and how often, something lost is asked for again.
 */

import { Duration, Effect, Schedule } from "effect"
import { Connection } from "../../domain/Errors.ts"
import { elapsedMillis } from "../../services/Alarms.ts"
import { Releasing } from "../../services/SandboxClient.ts"
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

/** For how long after a service was given up it is not even asked to let something go, in milliseconds. */
const givenUpMillis = 2_000

const defaultBackoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)

const given = ({ reason, outcome }: Lost) => new Connection({ reason, outcome })

/** The patience of a client. */
export interface Patiences {
  /** That of one call. */
  readonly begin: () => Patience
  /** Fails where the calls that let things go have spent theirs, which they have together. */
  readonly unlessSpent: Effect.Effect<void, Connection>
}

/** No call has been lost yet. */
export const makePatience = (options: PatienceOptions): Patiences => {
  const limit = Duration.toMillis(Duration.fromInputUnsafe(options.patience ?? "30 seconds"))
  const steps = Schedule.toStep(options.backoff ?? defaultBackoff)

  /** Since when, and when last, calls were lost that let things go. */
  let outage: { readonly since: number; readonly lastAt: number } | undefined

  const isSpent = (now: number) =>
    outage !== undefined && now - outage.since >= limit && now - outage.lastAt < givenUpMillis

  const unlessSpent = Effect.gen(function* () {
    if (!(yield* Releasing) || !isSpent(yield* elapsedMillis)) return
    return yield* new Connection({ reason: "the service was given up", outcome: "not-started" })
  })

  const begin = (): Patience => {
    let since: number | undefined
    let mayHaveHappened = false
    let step: Effect.Success<typeof steps> | undefined

    /** Tells what is known of the whole call, not only of its last attempt. */
    const spent = (lost: Lost) =>
      new Connection({ reason: lost.reason, outcome: mayHaveHappened ? "unknown" : "not-started" })

    const wait = Effect.fnUntraced(function* (lost: Lost) {
      const now = yield* elapsedMillis
      since ??= now
      if (yield* Releasing) {
        const isSame = outage !== undefined && now - outage.lastAt < limit
        outage = { since: isSame && outage !== undefined ? outage.since : since, lastAt: now }
        since = outage.since
      }
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
  return { begin, unlessSpent }
}
