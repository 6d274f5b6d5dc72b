/**
 * Shares of what is done a little at a time: whoever asks for much of it waits
 * for himself, and keeps nobody else from it.
 */
import { Effect, Semaphore } from "effect"

/** Lets so many of the effects of each key run at one time; the others of that key wait. */
export const makeShares = (atOnce: number) => {
  const shares = new Map<string, { readonly permits: Semaphore.Semaphore; users: number }>()
  return (key: string) =>
    <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.suspend(() => {
        const share = shares.get(key) ?? { permits: Semaphore.makeUnsafe(atOnce), users: 0 }
        shares.set(key, share)
        share.users++
        return Effect.ensuring(
          share.permits.withPermit(work),
          Effect.sync(() => {
            if (--share.users === 0) shares.delete(key)
          })
        )
      })
}
