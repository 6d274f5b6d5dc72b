/**
 * Turns at work that takes so long that everybody feels it. One is taken at a
 * time, by the callers in rotation, however many each of them waits for; and
 * after each the service is left to all others for as long as it took.
 */
import { Clock, Effect, Latch, type Scope } from "effect"
import type { Owner } from "../../domain/Ids.ts"

/** A turn that is taken. */
export interface Turn {
  /** Ends it before the work does that has it; repeating that does nothing. */
  readonly end: () => void
}

/** Gives turns to callers. */
export interface Turns {
  /** Does work as soon as it is this caller's turn; the turn ends with it at the latest. */
  readonly during: <A, E, R>(
    owner: Owner,
    work: (turn: Turn) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, R>
  /** Waits for this caller's turn, which is for what is done at once then: it ends with that round of the event loop. */
  readonly take: (owner: Owner) => Effect.Effect<void>
}

/** The least that others have between two turns, in milliseconds: a round of the event loop. */
const leastRest = 1

/** No turns are taken yet. The rests end with the scope. */
export const makeTurns: Effect.Effect<Turns, never, Scope.Scope> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context())
  /** Who waits, the caller first whose turn it is next. */
  const waiting = new Map<Owner, Set<() => void>>()
  let isTaken = false

  const next = () => {
    for (const [owner, waiters] of waiting) {
      waiting.delete(owner)
      for (const begin of waiters) {
        waiters.delete(begin)
        if (waiters.size > 0) waiting.set(owner, waiters)
        return begin()
      }
    }
    isTaken = false
  }

  /** A place among those who wait; ending it before its turn has come leaves it. */
  const wait = (owner: Owner) => {
    const hasCome = Latch.makeUnsafe(false)
    let began: bigint | undefined
    let isOver = false
    const begin = () => {
      began = clock.currentTimeNanosUnsafe()
      hasCome.openUnsafe()
    }
    const leave = () => {
      const waiters = waiting.get(owner)
      waiters?.delete(begin)
      if (waiters?.size === 0) waiting.delete(owner)
    }
    const end = () => {
      if (isOver) return
      isOver = true
      if (began === undefined) return leave()
      const took = Number(clock.currentTimeNanosUnsafe() - began) / 1e6
      run(Effect.forkIn(Effect.delay(Effect.sync(next), Math.max(leastRest, took)), scope))
    }
    if (isTaken) {
      const waiters = waiting.get(owner) ?? new Set()
      waiters.add(begin)
      waiting.set(owner, waiters)
    } else {
      isTaken = true
      begin()
    }
    return { hasCome, turn: { end } }
  }

  return {
    take: (owner) =>
      Effect.suspend(() => {
        const { hasCome, turn } = wait(owner)
        const end = Effect.sync(turn.end)
        return hasCome.await.pipe(
          Effect.onInterrupt(() => end),
          Effect.andThen(Effect.asVoid(Effect.forkIn(Effect.delay(end, leastRest), scope)))
        )
      }),
    during: (owner, work) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          const { hasCome, turn } = wait(owner)
          return Effect.ensuring(
            restore(
              Effect.andThen(
                hasCome.await,
                Effect.suspend(() => work(turn))
              )
            ),
            Effect.sync(turn.end)
          )
        })
      )
  }
})
