/**
 * Services of containers with something wrong in them: the random lives must
 * find it and show it in few steps, and leave nothing of what they find behind.
 */
import { existsSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Logger, Schema } from "effect"
import { LifeSystem, ModelRunner } from "../../src/testing.ts"
import { canRunContainers } from "../canRunContainers.ts"
import * as World from "./lifeContainers.ts"
import { flaws } from "./lifeFlaws.ts"
import * as Ground from "./lifeGround.ts"
import { census } from "./lifeKernel.ts"

const program = new URL("./lifeFlawedHost.ts", import.meta.url)

const slot = "a"
const write: LifeSystem.Command = { _tag: "Write", slot, path: "f", text: "x" }
const harmless: ReadonlyArray<LifeSystem.Command> = [{ _tag: "Echo", slot, text: "x" }, write]

/** Each with the steps that it shows in, among others that do nothing to it. */
const planted: { readonly [name: string]: ReadonlyArray<LifeSystem.Command> } = {
  "a store that forgets that a sandbox was stopped": [{ _tag: "Change", slot, command: "stop" }],
  "a store that forgets times to live": [{ _tag: "SetTtl", slot, ttl: { units: 3, action: "stop" } }],
  "a machine that is not ended": [{ _tag: "Change", slot, command: "stop" }],
  "a removal that keeps the disk": [{ _tag: "Change", slot, command: "kill" }],
  "a write that is acknowledged before it is written": [{ _tag: "Read", slot, path: "f" }],
  "a program's end that never comes": [
    { _tag: "Start", slot, shape: "alone", limit: null },
    { _tag: "KillProgram", slot }
  ]
}

/** Programs of these steps alone. */
const stepsOf = (steps: ReadonlyArray<LifeSystem.Command>) =>
  Arbitrary.map(
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: steps.length - 1 }))),
    (index) => steps[index] ?? write
  )

/** What is wrong here is wrong for good, and needs no long look. */
const bounds = { callMillis: 20_000, orderMillis: 3_000 }
const options = { runs: 20, seed: 7, minCommands: 1, maxCommands: 6, maxShrinks: 12, stuckMillis: 60_000 }

/** Finds what is wrong with a service, and looks for what is left of it afterwards. */
const find = Effect.fnUntraced(function* (name: string, steps: ReadonlyArray<LifeSystem.Command>) {
  const said = flaws[name]?.said ?? assert.fail(`there is no ${name}`)
  let isGone = () => false
  yield* Effect.scoped(
    Effect.gen(function* () {
      const ground = yield* Ground.make(program, name)
      const base = ground.base()
      const instance = ground.instance()
      isGone = () => !existsSync(base) && census(base, instance).length === 0
      const spec = LifeSystem.spec(World.make(ground, bounds), { steps: stepsOf([...steps, ...harmless]) })
      const result = yield* ModelRunner.check(spec, options)
      if (result._tag !== "Falsified") return assert.fail(`${name}: nothing was found: ${result._tag}`)
      const report = `${name}: ${ModelRunner.report(result)}`
      assert.isAtMost(result.shrunkInput.length, 3, report)
      const { failure } = result
      assert.match(failure._tag === "PropertyError" ? failure.error.actual : failure._tag, said, report)
      const again = yield* ModelRunner.check(spec, { ...options, replay: result.replay })
      assert.strictEqual(again._tag, "Falsified", report)
    })
  )
  assert.isTrue(isGone(), `${name}: something is left`)
})

/** So many services at once, since most of their time is spent waiting. */
const services = 3

describe.runIf(canRunContainers)("random lives on containers", () => {
  it.live(
    "find, shorten and run again what is wrong with a service, and leave nothing of it",
    () =>
      Effect.forEach(Object.entries(planted), ([name, steps]) => find(name, steps), {
        concurrency: services,
        discard: true
      }).pipe(Effect.provide(Logger.layer([]))),
    600_000
  )
})
