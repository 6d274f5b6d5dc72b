/**
 * Bytes that may be held at one time, by one part of a whole and by the whole.
 */

/** So many bytes, of which users take and give back. */
export interface Budget {
  /** Takes bytes if the budget, and the whole it is a part of, has them. */
  readonly take: (bytes: number) => boolean
  /** Takes bytes that are there already, whether or not it has them. */
  readonly owe: (bytes: number) => void
  /** Gives back what was taken. */
  readonly give: (bytes: number) => void
  /** How many are taken. */
  readonly taken: () => number
}

/** A budget of so many bytes, as a part of a whole if one is given. */
export const makeBudget = (most: number, whole?: Budget): Budget => {
  let taken = 0
  return {
    take: (bytes) => {
      if (taken + bytes > most || whole?.take(bytes) === false) return false
      taken += bytes
      return true
    },
    owe: (bytes) => {
      whole?.owe(bytes)
      taken += bytes
    },
    give: (bytes) => {
      whole?.give(bytes)
      taken -= bytes
    },
    taken: () => taken
  }
}
