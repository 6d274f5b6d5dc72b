/**
 * A stream that goes on where it was when what carries it breaks.
 */
import { type Array as Arr, Cause, Effect, Exit, Pull, Scope, Stream } from "effect"
import type { Connection } from "../../domain/Errors.ts"
import { isLost, type Lost } from "./Lost.ts"
import type { Patience } from "./Patience.ts"

/** One stream in as many attempts as it takes. */
export interface Course<A, E> {
  /** What to ask for now, after all that was seen so far. */
  readonly open: () => Stream.Stream<A, E | Lost>
  /** What of the items that came is passed on. */
  readonly see: (items: Arr.NonEmptyReadonlyArray<A>) => ReadonlyArray<A>
  /** Whether the end of an attempt is the end of all; a part of a long stream may be served at a time. Default: always. */
  readonly isOver?: () => boolean
}

type Pulling<A, E> = Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E>

const isNonEmpty = <A>(items: ReadonlyArray<A>): items is Arr.NonEmptyReadonlyArray<A> => items.length > 0

/** Opens the course again whenever it is lost, for as long as patience lasts. */
export const resumed = <A, E>(course: Course<A, E>, patience: Patience): Stream.Stream<A, E | Connection> => {
  const start = Effect.gen(function* () {
    const whole = yield* Effect.scope
    let attempt: { readonly scope: Scope.Closeable; readonly pull: Pulling<A, E | Lost> } | undefined
    let gave = false

    const open = Effect.gen(function* () {
      const scope = yield* Scope.fork(whole)
      const pull = yield* Scope.provide(Stream.toPull(course.open()), scope)
      attempt = { scope, pull }
      gave = false
      return yield* pull
    })

    const leave = Effect.suspend(() => {
      const left = attempt
      attempt = undefined
      return left === undefined ? Effect.void : Scope.close(left.scope, Exit.void)
    })

    const next: Pulling<A, E | Connection> = Effect.suspend(() => attempt?.pull ?? open).pipe(
      Effect.flatMap((items): Pulling<A, E | Connection> => {
        patience.progress()
        gave = true
        const seen = course.see(items)
        return isNonEmpty(seen) ? Effect.succeed(seen) : next
      }),
      Effect.catchIf(
        (error: E | Lost | Connection | Cause.Done<void>): error is Lost => isLost(error),
        (lost): Pulling<A, E | Connection> =>
          leave.pipe(Effect.andThen(patience.again(lost, true)), Effect.andThen(next))
      ),
      Pull.catchDone(
        (): Pulling<A, E | Connection> =>
          (course.isOver?.() ?? true) || !gave ? Cause.done() : Effect.andThen(leave, next)
      )
    )
    return next
  })
  return Stream.scoped(Stream.fromPull(start))
}
