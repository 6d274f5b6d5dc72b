/**
 * The time to live and the idle time of one sandbox.
 */
import { Clock, Effect, FiberHandle, Stream } from "effect"
import type { ExpiryAction } from "../../domain/Sandbox.ts"
import type { Journal } from "./Journal.ts"

/** What the watch needs to know of the sandbox's use. */
export interface Activity {
  /** Calls and attached readers at this moment. */
  readonly count: () => number
  /** When the last one ended, in milliseconds since the epoch. */
  readonly lastAt: () => number
  /** Counts this moment as use. */
  readonly touch: () => void
}

/**
 * Watches the limits that the journal records, in the present scope, and calls
 * `act` when one has passed: the time to live by the wall clock, the idle time
 * only while the sandbox runs and nobody uses it.
 */
export const watchExpiries = Effect.fnUntraced(function* <E>(
  journal: Journal,
  activity: Activity,
  act: (action: ExpiryAction) => Effect.Effect<unknown, E>
) {
  const scope = yield* Effect.scope
  const timer = yield* FiberHandle.make()
  let expiring = false

  /** In a fiber of its own, since the change it makes sets the timer anew. */
  const expire = (what: "ttl" | "idle", action: ExpiryAction) =>
    Effect.suspend(() => {
      expiring = true
      activity.touch()
      return journal.write(what === "ttl" ? { expiresAt: undefined } : {}, [{ _tag: "Expired", what }])
    }).pipe(
      Effect.andThen(act(action)),
      Effect.catchCause((cause) => Effect.logError("could not expire a sandbox", cause)),
      Effect.ensuring(
        Effect.suspend(() => {
          expiring = false
          return rearm
        })
      ),
      Effect.forkIn(scope)
    )

  /** Milliseconds until the sandbox may have been idle for too long; undefined while that cannot be. */
  const idleIn = (now: number): number | undefined => {
    const { spec, status } = journal.current()
    if (spec.idle === undefined || status !== "running") return undefined
    return activity.count() > 0 ? spec.idle.afterMillis : activity.lastAt() + spec.idle.afterMillis - now
  }

  const watch: Effect.Effect<unknown> = Effect.gen(function* () {
    const { spec, expiresAt } = journal.current()
    const now = yield* Clock.currentTimeMillis
    const ttl = expiresAt === undefined ? undefined : expiresAt - now
    const idle = idleIn(now)
    if (ttl !== undefined && ttl <= 0) return yield* expire("ttl", spec.ttl?.action ?? "kill")
    if (idle !== undefined && idle <= 0) return yield* expire("idle", spec.idle?.action ?? "kill")
    const wait = Math.min(ttl ?? Number.POSITIVE_INFINITY, idle ?? Number.POSITIVE_INFINITY)
    if (!Number.isFinite(wait)) return
    yield* Effect.sleep(wait)
    return yield* watch
  })

  const rearm: Effect.Effect<unknown> = Effect.suspend(() => {
    const { status, spec, expiresAt } = journal.current()
    if (expiring) return Effect.void
    const limited = status !== "killed" && (expiresAt !== undefined || spec.idle !== undefined)
    return limited ? FiberHandle.run(timer, watch) : FiberHandle.clear(timer)
  })

  yield* Effect.forkScoped(Stream.runForEach(journal.changes, () => rearm))
})
