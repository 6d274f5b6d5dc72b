/**
 * Attempts to create something that may be cancelled from elsewhere, at any
 * moment: before they arrive, while they are under way, after they have succeeded.
 */
import { Clock, Deferred, Effect } from "effect"
import { Conflict } from "../domain/Errors.ts"
import type { AttemptId, Owner } from "../domain/Ids.ts"
import { monotonicMillis } from "./Alarms.ts"

/** How long a cancelled attempt may be on its way here, in milliseconds; and how many of them are remembered. */
const rememberedMillis = 10 * 60_000
const maxRemembered = 100_000

/** The attempts of one service. */
export interface Attempts {
  /**
   * Makes an attempt: `make`, and when it was cancelled meanwhile, `undo` what it made. One that was cancelled
   * before it arrived is refused with `Conflict`.
   */
  readonly run: <A, E>(
    owner: Owner,
    attempt: AttemptId | undefined,
    make: Effect.Effect<A, E>,
    undo: (made: A) => Effect.Effect<void>
  ) => Effect.Effect<A, E | Conflict>
  /** Cancels an attempt for good, by `undo`ing what is known of it, and waits until it is over. */
  readonly cancel: <E>(
    owner: Owner,
    attempt: AttemptId,
    undo: Effect.Effect<void, E>
  ) => Effect.Effect<void, E>
}

const cancelled = (attempt: AttemptId) =>
  new Conflict({ kind: "idempotency-key", id: attempt, reason: "this attempt was cancelled" })

/** None yet. */
export const makeAttempts: Effect.Effect<Attempts> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const keyOf = (owner: Owner, attempt: AttemptId) => `${owner}\0${attempt}`
  /** When each was cancelled, oldest first. */
  const refused = new Map<string, number>()
  /** What is told when those under way are over. */
  const underWay = new Map<string, Set<Deferred.Deferred<void>>>()

  const remember = (key: string) => {
    const now = monotonicMillis(clock)
    refused.delete(key)
    refused.set(key, now)
    for (const [oldest, at] of refused) {
      if (refused.size <= maxRemembered && now - at <= rememberedMillis) break
      refused.delete(oldest)
    }
  }

  const begin = (key: string) => {
    const over = Deferred.makeUnsafe<void>()
    const all = underWay.get(key) ?? new Set()
    underWay.set(key, all.add(over))
    return Effect.sync(() => {
      Deferred.doneUnsafe(over, Effect.void)
      all.delete(over)
      if (all.size === 0) underWay.delete(key)
    })
  }

  return {
    run: <A, E>(
      owner: Owner,
      attempt: AttemptId | undefined,
      make: Effect.Effect<A, E>,
      undo: (made: A) => Effect.Effect<void>
    ) =>
      Effect.suspend((): Effect.Effect<A, E | Conflict> => {
        if (attempt === undefined) return make
        const key = keyOf(owner, attempt)
        if (refused.has(key)) return Effect.fail(cancelled(attempt))
        const unlessCancelled = (made: A) =>
          refused.has(key)
            ? Effect.andThen(undo(made), Effect.fail(cancelled(attempt)))
            : Effect.succeed(made)
        return Effect.uninterruptibleMask((restore) =>
          Effect.ensuring(Effect.flatMap(restore(make), unlessCancelled), begin(key))
        )
      }),
    cancel: (owner, attempt, undo) =>
      Effect.suspend(() => {
        const key = keyOf(owner, attempt)
        remember(key)
        const others = Effect.suspend(() =>
          Effect.forEach(underWay.get(key) ?? [], (over) => Deferred.await(over), { discard: true })
        )
        return Effect.ensuring(undo, others)
      })
  }
})
