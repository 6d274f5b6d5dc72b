/**
 * Worlds with something wrong in them: the random programs must find it, and
 * show it in as few operations as it takes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import { Model, ModelRunner, ModelSystem } from "../../src/testing.ts"
import * as World from "./world.ts"

/** Keeps the old content when a file is written again. */
const losesWrites = Layer.effect(
  Backend,
  Effect.map(Backend, (backend) => {
    const wrap = (machine: Machine): Machine => ({
      ...machine,
      files: {
        ...machine.files,
        write: (path, data, options) =>
          Effect.matchEffect(machine.files.stat(path, "user"), {
            onSuccess: () => Effect.void,
            onFailure: () => machine.files.write(path, data, options)
          })
      }
    })
    return {
      ...backend,
      provision: (request) => Effect.map(backend.provision(request), wrap),
      adopt: (request) => Effect.map(backend.adopt(request), wrap)
    } satisfies Backend["Service"]
  })
)

/** What the shortest failing program does, its details left out. */
const shortest = (result: ModelRunner.Result<Model.Command>) => {
  if (result._tag !== "Falsified") return assert.fail(`nothing was found: ${result._tag}`)
  return result.shrunkInput.map((command) =>
    command._tag === "Change" ? command.command : command._tag.toLowerCase()
  )
}

const spec = (flaws: World.Flaws) => ModelSystem.spec(World.make(flaws))
const quiet = Logger.layer([])
const options = { runs: 1000, seed: 7 }

describe("random programs find", () => {
  it.effect(
    "a backend that loses a write, and show it in three operations",
    () =>
      Effect.gen(function* () {
        const flawed = spec({ backend: losesWrites })
        const found = yield* ModelRunner.check(flawed, options)
        assert.deepStrictEqual(shortest(found), ["write", "write", "read"])
        if (found._tag !== "Falsified") return
        const again = yield* ModelRunner.check(flawed, { replay: found.replay })
        assert.deepStrictEqual(shortest(again), shortest(found))
        const mended = yield* ModelRunner.check(spec({}), { replay: found.replay })
        assert.strictEqual(mended._tag, "ReplayMismatch")
      }).pipe(Effect.provide(quiet)),
    120_000
  )

  it.effect(
    "a store that forgets that a sandbox was paused, and show it in one",
    () =>
      Effect.gen(function* () {
        const flawed = spec({
          store: (store) => ({
            ...store,
            save: (record, events) =>
              record.status === "paused"
                ? store.save({ ...record, status: "running" }, events)
                : store.save(record, events)
          })
        })
        assert.deepStrictEqual(shortest(yield* ModelRunner.check(flawed, options)), ["pause"])
      }).pipe(Effect.provide(quiet)),
    120_000
  )

  it.effect(
    "a status table with a hole, and show the transition that is missing",
    () =>
      Effect.gen(function* () {
        const sound = spec({})
        const flawed: typeof sound = {
          ...sound,
          predict: (model, command) =>
            command._tag === "Change" &&
            command.command === "stop" &&
            model.boxes[command.slot]?.status === "paused"
              ? { model, outcome: "InvalidState paused" }
              : Model.predict(model, command)
        }
        const found = yield* ModelRunner.check(flawed, options)
        assert.deepStrictEqual(shortest(found), ["pause", "stop"])
      }).pipe(Effect.provide(quiet)),
    120_000
  )
})
