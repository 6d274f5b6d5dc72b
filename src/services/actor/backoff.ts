/**
 * How long to wait after so many failures in a row, from 1, before trying
 * again, in milliseconds: twice as long each time, at most 30 seconds.
 */
export const backoffMillis = (failures: number, firstMillis = 100): number =>
  Math.min(30_000, firstMillis * 2 ** (failures - 1))
