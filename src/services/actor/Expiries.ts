/**
 * The time to live and the idle time of one sandbox.
 *
 * A time to live is a point in time: it passes by the wall clock, also while the
 * service is away and when the clock is set. An idle time measures use, and only while the
 * sandbox runs. Neither lets go before its action has been carried out.
 */
import { type Cause, Clock, Effect, Exit, FiberSet, Stream } from "effect"
import { decideExpiry, type Status } from "../../domain/Status.ts"
import { monotonicMillis, SharedAlarms } from "../Alarms.ts"
import { backoffMillis } from "./backoff.ts"
import type { Journal } from "./Journal.ts"
import type { Passed } from "./Transition.ts"

/** What the watch needs to know of the sandbox's use. */
export interface Activity {
  /** Calls and attached readers at this moment. */
  readonly count: () => number
  /** When the last one ended, in milliseconds of a clock that nobody sets. */
  readonly lastAt: () => number
  /** Counts this moment as use. */
  readonly touch: () => void
}

/** How a limit stands: it passes later, or has passed. */
type Standing =
  | { readonly _tag: "Later"; readonly wait: (look: () => void) => () => void }
  | { readonly _tag: "Passed"; readonly limit: Passed }

/**
 * Watches the limits that the journal records, in the present scope, and calls
 * `expire` when one has passed and its action is possible. One that fails is tried
 * again, each time after a longer while.
 */
export const watchExpiries = Effect.fnUntraced(function* <E>(
  journal: Journal,
  activity: Activity,
  expire: (limit: Passed) => Effect.Effect<unknown, E>
) {
  const alarms = yield* SharedAlarms
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime<never, void>()

  /** How the time to live stands; undefined without one. */
  const ttl = (): Standing | undefined => {
    const { expiresAt, spec } = journal.current()
    if (expiresAt === undefined) return undefined
    return clock.currentTimeMillisUnsafe() < expiresAt
      ? { _tag: "Later", wait: (look) => alarms.at(expiresAt, look) }
      : { _tag: "Passed", limit: { what: "ttl", action: spec.ttl?.action ?? "kill", expiresAt } }
  }

  /** How the idle time stands; undefined while the sandbox cannot be idle. */
  const idle = (): Standing | undefined => {
    const { spec, status } = journal.current()
    if (spec.idle === undefined || status !== "running") return undefined
    const { action, afterMillis } = spec.idle
    const left = activity.count() > 0 ? afterMillis : activity.lastAt() + afterMillis - monotonicMillis(clock)
    return left > 0
      ? { _tag: "Later", wait: (look) => alarms.after(left, look) }
      : { _tag: "Passed", limit: { what: "idle", action } }
  }

  /** Looks at a limit whenever something may have changed about it. */
  const watch = (standing: () => Standing | undefined) => {
    let cancel = () => {}
    let isExpiring = false
    let failures = 0
    /** When a failed action may be tried again. */
    let notBefore = Number.NEGATIVE_INFINITY

    const look = (): void => {
      cancel()
      const { status } = journal.current()
      if (isExpiring || status === "killed") return
      const now = standing()
      if (now?._tag === "Later") cancel = now.wait(look)
      // Otherwise the next change of status is the time to look again.
      else if (now !== undefined && decideExpiry(now.limit.action, status) !== "later") {
        const left = notBefore - monotonicMillis(clock)
        if (left > 0) cancel = alarms.after(left, look)
        else act(now.limit)
      }
    }

    const act = (limit: Passed) => {
      isExpiring = true
      fork(
        Effect.flatMap(Effect.exit(expire(limit)), (exit) => {
          isExpiring = false
          failures = Exit.isSuccess(exit) ? 0 : failures + 1
          if (failures > 0) notBefore = monotonicMillis(clock) + backoffMillis(failures, 1_000)
          look()
          return Exit.isFailure(exit) && failures === 1 ? tell(limit, exit.cause) : Effect.void
        })
      )
    }

    const tell = ({ action, what }: Passed, cause: Cause.Cause<E>) =>
      Effect.logWarning(
        `the ${what} of ${journal.current().id} has passed, but its ${action} failed; trying again`,
        cause
      )

    return look
  }

  const looks = [watch(ttl), watch(idle)]
  let before: Status | undefined
  yield* Effect.forkScoped(
    Stream.runForEach(journal.changes, ({ status }) =>
      Effect.sync(() => {
        // It has been of use to somebody until now that it did not run.
        if (status === "running" && before !== status) activity.touch()
        before = status
        for (const look of looks) look()
      })
    )
  )
})
