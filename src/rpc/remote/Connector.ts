/**
 * The one link that calls share: made when it is needed and there is none, by
 * one attempt for all who wait.
 */

import { Deferred, Effect, Exit, Scope } from "effect"
import { elapsedMillis } from "../../services/Alarms.ts"
import type { Link } from "./Carried.ts"
import type { Lost, Refused } from "./Lost.ts"

/** The least time between a failed attempt and the next, in milliseconds. */
const pauseMillis = 50

/** Gives the present link. Links are opened in the surrounding scope. */
export const makeConnector = Effect.fnUntraced(function* (
  open: Effect.Effect<Link, Lost | Refused, Scope.Scope>
): Effect.fn.Return<Effect.Effect<Link, Lost | Refused>, never, Scope.Scope> {
  // Its own, so that what is set up after it is closed before it, with links that still work.
  const whole = yield* Scope.fork(yield* Effect.scope)
  let present: { readonly link: Link; readonly scope: Scope.Closeable } | undefined
  let pending: Deferred.Deferred<Link, Lost | Refused> | undefined
  let failedAt: number | undefined

  const pause = Effect.gen(function* () {
    if (failedAt === undefined) return
    const now = yield* elapsedMillis
    yield* Effect.sleep(Math.max(0, pauseMillis - (now - failedAt)))
  })

  /** Closing a link at once would interrupt the calls on it, whose callers would take that for their own interruption. */
  const retire = Effect.suspend(() => {
    if (present === undefined) return Effect.void
    const { link, scope } = present
    present = undefined
    const gone = Effect.andThen(link.retire, Scope.close(scope, Exit.void))
    return Effect.asVoid(Effect.forkIn(gone, whole, { startImmediately: true }))
  })

  const attempt = Effect.gen(function* () {
    yield* retire
    yield* pause
    const scope = yield* Scope.fork(whole)
    const link = yield* Scope.provide(open, scope).pipe(
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
    present = { link, scope }
    return link
  })

  const settle = (waiting: Deferred.Deferred<Link, Lost | Refused>) =>
    Effect.onExit(attempt, (exit) =>
      Effect.gen(function* () {
        failedAt = Exit.isSuccess(exit) ? undefined : yield* elapsedMillis
        pending = undefined
        yield* Deferred.done(waiting, exit)
      })
    )

  return Effect.suspend(() => {
    if (present?.link.isAlive()) return Effect.succeed(present.link)
    if (pending !== undefined) return Deferred.await(pending)
    const waiting = Deferred.makeUnsafe<Link, Lost | Refused>()
    pending = waiting
    return Effect.andThen(Effect.forkIn(settle(waiting), whole), Deferred.await(waiting))
  })
})
