/** Taking samples of effects with the monotonic clock of the process. */
import { Effect } from "effect"

/** Milliseconds on a clock that all threads and processes of this machine share. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

/** How long an effect takes, in milliseconds. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const start = now()
    return Effect.map(effect, () => now() - start)
  })

/** Runs an effect some times without looking, then `runs` times, and gives what it gave each of these times. */
export const sampled = <A, E, R>(
  options: { readonly warmUp: number; readonly runs: number },
  effect: Effect.Effect<A, E, R>
): Effect.Effect<ReadonlyArray<A>, E, R> =>
  Effect.gen(function* () {
    for (let i = 0; i < options.warmUp; i++) yield* effect
    const samples: Array<A> = []
    for (let i = 0; i < options.runs; i++) samples.push(yield* effect)
    return samples
  })

/** `bytes` in `millis`, in megabytes (10^6) a second. */
export const rate = (bytes: number, millis: number): number => bytes / 1e3 / millis
