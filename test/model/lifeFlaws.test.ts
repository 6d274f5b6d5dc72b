/**
 * Worlds with something wrong in them: the random lives must find it, and show
 * it in few steps, which their token runs again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { LifeSystem, ModelRunner } from "../../src/testing.ts"
import { flaws } from "./lifeFlaws.ts"
import * as World from "./lifeMemory.ts"

const options = { runs: 1000, seed: 7, maxCommands: 12, maxShrinks: 200 }

describe("random lives find", () => {
  for (const [name, flaw] of Object.entries(flaws)) {
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const spec = LifeSystem.spec(World.make(flaw))
          const result = yield* ModelRunner.check(spec, options)
          if (result._tag !== "Falsified") return assert.fail(`nothing was found: ${result._tag}`)
          assert.isAtMost(result.shrunkInput.length, 4, ModelRunner.report(result))
          const again = yield* ModelRunner.check(spec, { replay: result.replay })
          assert.strictEqual(again._tag, "Falsified")
          const { failure } = result
          assert.match(failure._tag === "PropertyError" ? failure.error.actual : failure._tag, flaw.said)
        }).pipe(Effect.provide(Logger.layer([]))),
      300_000
    )
  }
})
