import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Logger, Option } from "effect"
import { LifeSystem, ModelRunner } from "../../src/testing.ts"
import { canRunContainers } from "../canRunContainers.ts"
import * as World from "./lifeContainers.ts"
import * as Ground from "./lifeGround.ts"

const settings = Effect.gen(function* () {
  const runs = yield* Config.option(Config.Int("FIBERBOX_LIFE_CONTAINER_RUNS"))
  const seed = yield* Config.option(Config.String("FIBERBOX_LIFE_SEED"))
  const replay = yield* Config.option(Config.String("FIBERBOX_LIFE_CONTAINER_REPLAY"))
  return {
    runs: Option.getOrElse(runs, () => 100),
    // The same programs each time, so that a failure tells of a change; FIBERBOX_LIFE_SEED explores others.
    seed: Option.getOrElse(seed, () => "1"),
    replay: Option.getOrUndefined(replay)
  }
})

/** Most of a program's time is spent waiting: so many of them go on at once, each with a service of its own. */
const services = 4

describe.runIf(canRunContainers)("random lives on containers", () => {
  it.live(
    "keep every promise, whatever is killed, stands still or jumps on the way",
    () =>
      Effect.gen(function* () {
        const { runs, seed, replay } = yield* settings
        const lanes = replay === undefined ? Math.min(services, runs) : 1
        const check = Effect.fnUntraced(function* (lane: number) {
          const ground = yield* Ground.make()
          return yield* ModelRunner.check(LifeSystem.spec(World.make(ground), { steps: World.steps }), {
            runs: Math.ceil(runs / lanes),
            seed: `${seed} ${lane}`,
            replay,
            minCommands: 1,
            maxCommands: 8,
            maxShrinks: 30,
            stuckMillis: 120_000
          })
        }, Effect.scoped)
        const results = yield* Effect.forEach(
          Array.from({ length: lanes }, (_, lane) => lane),
          check,
          { concurrency: "unbounded" }
        )
        const problems = results.flatMap(
          (result) => ModelRunner.report(result, "FIBERBOX_LIFE_CONTAINER_REPLAY") ?? []
        )
        assert.deepStrictEqual(problems, [])
      }).pipe(Effect.provide(Logger.layer([]))),
    3_600_000
  )
})
