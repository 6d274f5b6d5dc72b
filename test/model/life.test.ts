import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Logger, Option } from "effect"
import { LifeSystem, ModelRunner } from "../../src/testing.ts"
import * as World from "./lifeMemory.ts"

const settings = Effect.gen(function* () {
  const runs = yield* Config.option(Config.Int("FIBERBOX_LIFE_RUNS"))
  const seed = yield* Config.option(Config.String("FIBERBOX_LIFE_SEED"))
  const replay = yield* Config.option(Config.String("FIBERBOX_LIFE_REPLAY"))
  return {
    runs: Option.getOrElse(runs, () => 2000),
    // The same programs each time, so that a failure tells of a change; FIBERBOX_LIFE_SEED explores others.
    seed: Option.getOrElse(seed, () => "91"),
    replay: Option.getOrUndefined(replay)
  }
})

/** Everything fails here all the time: what the service logs about it is not news. */
const quiet = Logger.layer([])

describe("random lives in memory", () => {
  it.live(
    "keep every promise, whatever is killed, fails, hangs or jumps on the way",
    () =>
      Effect.gen(function* () {
        const options = { ...(yield* settings), maxCommands: 12, stuckMillis: 20_000 }
        const result = yield* ModelRunner.check(LifeSystem.spec(World.make()), options)
        const problem = ModelRunner.report(result, "FIBERBOX_LIFE_REPLAY")
        if (problem !== undefined) assert.fail(problem)
        assert.strictEqual(result._tag, "Passed")
      }).pipe(Effect.provide(quiet)),
    600_000
  )
})
