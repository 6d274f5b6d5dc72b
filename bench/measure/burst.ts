import { Effect } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { containers, toOutput } from "../shared/Sandboxing.ts"
import { median } from "../shared/Stats.ts"
import { now, sampled } from "../shared/Timing.ts"

const count = 100

/** Some sandboxes, each from its creation to its output, and then all removed. */
const round = Effect.fnUntraced(function* (concurrency: number) {
  const start = now()
  let answered = 0
  const each = yield* Effect.scoped(
    Effect.gen(function* () {
      const one = Effect.gen(function* () {
        const start = now()
        const sandbox = yield* Sandboxes.create()
        const created = now() - start
        return created + (yield* toOutput(sandbox, ["echo", "hello"])).firstOutput
      })
      const each = yield* Effect.replicateEffect(one, count, { concurrency })
      answered = now() - start
      return each
    })
  )
  return { each, answered, removed: now() - start - answered }
})

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const rounds = Math.min(settings.runs ?? 5, 5)
  const { burst, single } = yield* Effect.gen(function* () {
    const burst = yield* sampled({ warmUp: 1, runs: rounds }, round(count))
    const single = yield* sampled({ warmUp: 0, runs: Math.min(rounds, 2) }, round(1))
    return { burst, single }
  }).pipe(Effect.provide(containers(settings)))
  const answered = (rounds: typeof burst) => rounds.map((round) => round.answered)
  return [
    row("at once: until all have answered", "ms", answered(burst)),
    row(
      "at once: each, from its creation to its output",
      "ms",
      burst.flatMap((round) => round.each)
    ),
    row(
      "at once: until all are removed",
      "ms",
      burst.map((round) => round.removed)
    ),
    row("one by one: until all have answered", "ms", answered(single)),
    row(
      "one by one: each, from its creation to its output",
      "ms",
      single.flatMap((round) => round.each)
    ),
    row("at once, faster than one by one", "times", [median(answered(single)) / median(answered(burst))])
  ]
})

export const measurement: Measurement = {
  title: `${count} sandboxes at once`,
  about: `\`echo hello\` in each of ${count} sandboxes, all asked for at the same moment and kept until all have answered; and one after the other.`,
  measure
}
