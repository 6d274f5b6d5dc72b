/**
 * A stream that is read ahead of who takes it, so that what is taken at once is
 * large although it came in small pieces, and the next is there when it is
 * asked for.
 */
import {
  type Array as Arr,
  type Cause,
  Effect,
  type Exit,
  Latch,
  type Pull,
  type Scope,
  Stream
} from "effect"
import { makeBudget } from "../../services/Budget.ts"
import { Held } from "./Held.ts"
import { CurrentSession } from "./Session.ts"

/** What waits for a reader of the present session. */
export const heldHere = Effect.map(
  CurrentSession,
  (session) => new Held(session?.output ?? makeBudget(Number.POSITIVE_INFINITY))
)

/** A stream being read. */
export interface Ahead<A, E> {
  /** All that is there, waiting for something to be. Gives nothing, and fails as `otherwise` does, once it is not wanted. */
  readonly take: <E2>(
    isWanted: () => boolean,
    otherwise: Effect.Effect<never, E2>
  ) => Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E | E2>
}

/** Reads a stream up to `maxSize` ahead, and as far as `held` allows, for as long as the scope lives. */
export const readAhead = Effect.fnUntraced(function* <A, E, R>(
  source: Stream.Stream<A, E, R>,
  sizeOf: (item: A) => number,
  maxSize: number,
  held: Held
): Effect.fn.Return<Ahead<A, E>, never, R | Scope.Scope> {
  const pull = yield* Stream.toPull(source)
  const arrived = Latch.makeUnsafe(false)
  const room = Latch.makeUnsafe(true)
  let items: ReadonlyArray<A> = []
  let size = 0
  let ended: Exit.Exit<never, E | Cause.Done<void>> | undefined

  const step = Effect.map(pull, (pulled: Arr.NonEmptyReadonlyArray<A>) => {
    for (const item of pulled) size += sizeOf(item)
    items = items.length === 0 ? pulled : [...items, ...pulled]
    if (!held.ahead(size) || size >= maxSize) room.closeUnsafe()
    arrived.openUnsafe()
  })
  yield* Effect.andThen(room.await, step).pipe(
    Effect.forever,
    Effect.onExit((exit) =>
      Effect.sync(() => {
        ended = exit
        arrived.openUnsafe()
      })
    ),
    Effect.ignoreCause,
    Effect.forkScoped
  )

  /** What was given before has arrived when more is asked for. */
  const give = (given: Arr.NonEmptyReadonlyArray<A>) => {
    held.ahead(0)
    held.given(size)
    items = []
    size = 0
    room.openUnsafe()
    return given
  }
  yield* Effect.addFinalizer(() => Effect.sync(() => held.clear()))

  const take = <E2>(isWanted: () => boolean, otherwise: Effect.Effect<never, E2>) => {
    const next: Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E | E2> = Effect.suspend(() => {
      if (!isWanted()) return otherwise
      if (isNonEmpty(items)) return Effect.succeed(give(items))
      held.given(0)
      if (ended !== undefined) return ended
      arrived.closeUnsafe()
      return Effect.andThen(arrived.await, next)
    })
    return next
  }
  return { take }
})

/** A stream that is read up to `maxSize` ahead of who takes it. */
export const ahead = <A, E, R>(
  source: Stream.Stream<A, E, R>,
  sizeOf: (item: A) => number,
  maxSize: number
): Stream.Stream<A, E, Exclude<R, Scope.Scope>> =>
  heldHere.pipe(
    Effect.flatMap((held) => readAhead(source, sizeOf, maxSize, held)),
    Effect.map(({ take }) => take(() => true, Effect.never)),
    Stream.fromPull,
    Stream.scoped
  )

const isNonEmpty = <A>(items: ReadonlyArray<A>): items is Arr.NonEmptyReadonlyArray<A> => items.length > 0
