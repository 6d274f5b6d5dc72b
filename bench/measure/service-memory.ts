import { Effect } from "effect"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { connect, type Service, serve } from "../shared/Service.ts"
import { sampled } from "../shared/Timing.ts"

const count = 200

/** In kB for each sandbox. */
const round = Effect.fnUntraced(function* (service: Service) {
  const sandboxes = yield* connect(service)
  yield* Effect.sleep("2 seconds")
  const before = yield* service.memory
  const after = yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.replicateEffect(sandboxes.create(), count, { concurrency: 4, discard: true })
      yield* Effect.sleep("2 seconds")
      return yield* service.memory
    })
  )
  const each = (name: keyof typeof before) => (after[name] - before[name]) / 1024 / count
  return { resident: each("rss"), heap: each("heapUsed"), external: each("external") }
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const service = yield* serve(settings)
  const rounds = yield* sampled({ warmUp: 1, runs: Math.min(settings.runs ?? 3, 10) }, round(service))
  const of = (name: keyof (typeof rounds)[number]) => rounds.map((one) => one[name])
  return [
    row("resident set", "kB", of("resident"), atMost(100)),
    row("JavaScript heap in use", "kB", of("heap"), atMost(100)),
    row("buffers and others outside of the heap", "kB", of("external"))
  ]
}, Effect.scoped)

export const measurement: Measurement = {
  title: "A service's own memory for an idle sandbox",
  about:
    `Differences of the process \`fiberbox serve\`, its garbage collected, between before and after ${count} sandboxes, divided by ${count}; ` +
    "one sample a round, after a first round that does not count. 1 kB is 1024 bytes.",
  measure
}
