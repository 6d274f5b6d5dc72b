/**
 * What is told in bulk, in rounds of the event loop: in each, every caller has
 * a share, and all together no more than takes some milliseconds, so that a
 * call that needs many rounds is not late because others read a lot.
 */
import { Effect } from "effect"
import type { Owner } from "../../domain/Ids.ts"

/** Lets bulk pass. */
export interface Rounds {
  /** Waits for a round in which this caller may tell so many bytes; mostly it is the present one. */
  readonly pass: (owner: Owner, bytes: number) => Effect.Effect<void>
}

/** What a caller may tell in a round, and all of them, in bytes; what has begun below that may go beyond it. */
const ownerBytes = 256 * 1024
const roundBytes = 1024 * 1024

interface Waiter {
  readonly bytes: number
  readonly go: () => void
}

/** The first round. `nextRound` runs something in the next one. */
export const makeRounds = (nextRound: (begin: () => void) => void = setImmediate): Rounds => {
  /** What has been told in this round. */
  const told = new Map<Owner, number>()
  let inAll = 0
  /** Who waits for a later one: the callers in rotation, each with all that waits of it. */
  const waiting = new Map<Owner, Set<Waiter>>()
  let isDue = false

  const mayTell = (owner: Owner) => inAll < roundBytes && (told.get(owner) ?? 0) < ownerBytes

  const tell = (owner: Owner, bytes: number) => {
    told.set(owner, (told.get(owner) ?? 0) + bytes)
    inAll += bytes
    if (isDue) return
    isDue = true
    nextRound(begin)
  }

  const begin = () => {
    isDue = false
    told.clear()
    inAll = 0
    for (const [owner, waiters] of [...waiting]) {
      if (inAll >= roundBytes) break
      for (const waiter of waiters) {
        if (!mayTell(owner)) break
        waiters.delete(waiter)
        tell(owner, waiter.bytes)
        // It goes on within this call, and may well wait again: among these.
        waiter.go()
      }
      // Behind those who have to wait longer.
      waiting.delete(owner)
      if (waiters.size > 0) waiting.set(owner, waiters)
    }
  }

  const wait = (owner: Owner, bytes: number) =>
    Effect.callback<void>((resume) => {
      const waiter: Waiter = { bytes, go: () => resume(Effect.void) }
      const waiters = waiting.get(owner) ?? new Set()
      waiters.add(waiter)
      waiting.set(owner, waiters)
      return Effect.sync(() => {
        waiters.delete(waiter)
        if (waiters.size === 0 && waiting.get(owner) === waiters) waiting.delete(owner)
      })
    })

  return {
    pass: (owner, bytes) =>
      Effect.suspend(() => {
        if (waiting.has(owner) || !mayTell(owner)) return wait(owner, bytes)
        tell(owner, bytes)
        return Effect.void
      })
  }
}
