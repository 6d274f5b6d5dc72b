import { Effect } from "effect"
import { Memory } from "../../src/memory.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { sampled, timed } from "../shared/Timing.ts"

const micros = (millis: number) => millis * 1000

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const sandbox = yield* Sandboxes.create()
  const once = (effect: Effect.Effect<unknown, unknown>) => Effect.map(timed(effect), micros)
  const options = { warmUp: 2000, runs: settings.runs ?? 2000 }
  const exec = yield* sampled(options, once(sandbox.process.run(["true"])))
  const info = yield* sampled(options, once(sandbox.info))
  return [row('process.run(["true"])', "µs", exec), row("info", "µs", info)]
}, Effect.scoped)

export const measurement: Measurement = {
  title: "What a call costs in process",
  about:
    "The same calls on the memory backend, where no kernel takes part: facade, contract, actor, and the simulation itself.",
  measure: (settings) => measure(settings).pipe(Effect.provide(Memory.layer()))
}
