/**
 * What is held for one reader, or of one connection: a little whatever others
 * hold, and more only as long as there is more for its connection, its caller
 * and the service. A reader that gets no more keeps what it has and is served;
 * its program waits.
 */
import type { Budget } from "../../services/Budget.ts"

/** What each may have held in any case, in bytes. */
const leastBytes = 32 * 1024

/** The bytes that are held for one: read ahead of it, and given to it without being known to have arrived. */
export class Held {
  #budget: Budget
  #drawn = 0
  #ahead = 0
  #given = 0

  constructor(budget: Budget) {
    this.#budget = budget
  }

  /** Sets how much is read ahead; tells whether there may be more. */
  ahead(bytes: number): boolean {
    this.#ahead = bytes
    return this.#settle()
  }

  /** Sets how much is given; tells whether there may be more. */
  given(bytes: number): boolean {
    this.#given = bytes
    return this.#settle()
  }

  /** Nothing is held any more. */
  clear(): void {
    this.#ahead = 0
    this.given(0)
  }

  /** It counts for another connection from now on. */
  moveTo(budget: Budget): void {
    this.#budget.give(this.#drawn)
    budget.owe(this.#drawn)
    this.#budget = budget
  }

  #settle(): boolean {
    const beyond = Math.max(0, this.#ahead + this.#given - leastBytes)
    const more = beyond - this.#drawn
    this.#drawn = beyond
    if (more <= 0) {
      this.#budget.give(-more)
      return true
    }
    if (this.#budget.take(more)) return true
    // It is there: it was read before it was known how much it would be.
    this.#budget.owe(more)
    return false
  }
}
