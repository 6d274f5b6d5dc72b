import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Logger, Option } from "effect"
import { ModelRunner, ModelSystem } from "../../src/testing.ts"
import * as World from "./world.ts"

const settings = Effect.gen(function* () {
  const runs = yield* Config.option(Config.Int("FIBERBOX_MODEL_RUNS"))
  const seed = yield* Config.option(Config.String("FIBERBOX_MODEL_SEED"))
  const replay = yield* Config.option(Config.String("FIBERBOX_MODEL_REPLAY"))
  return {
    runs: Option.getOrElse(runs, () => 1000),
    seed: Option.getOrUndefined(seed),
    replay: Option.getOrUndefined(replay)
  }
})

/** Machines die here all the time: what the service logs about it is not news. */
const quiet = Logger.layer([])

describe("random programs in memory", () => {
  it.effect(
    "go where the model says, whatever dies, breaks or is interrupted on the way",
    () =>
      Effect.gen(function* () {
        const options = { ...(yield* settings), stuckMillis: 20_000 }
        const result = yield* ModelRunner.check(ModelSystem.spec(World.make()), options)
        const problem = ModelRunner.report(result, "FIBERBOX_MODEL_REPLAY")
        if (problem !== undefined) assert.fail(problem)
        assert.strictEqual(result._tag, "Passed")
      }).pipe(Effect.provide(quiet)),
    600_000
  )
})
