/**
 * Worlds with something wrong in them: the random lives must find it, and show
 * it in few steps, which their token runs again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import type { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import { LifeSystem, ModelRunner } from "../../src/testing.ts"
import * as World from "./lifeMemory.ts"

/** A backend whose machines are changed. */
const withMachines =
  (change: (machine: Machine) => Machine) =>
  (backend: Backend["Service"]): Backend["Service"] => ({
    ...backend,
    provision: (request) => Effect.map(backend.provision(request), change),
    adopt: (request) => Effect.map(backend.adopt(request), change)
  })

const quiet = Logger.layer([])
const options = { runs: 1000, seed: 7, maxCommands: 12, maxShrinks: 200 }

/** What is said of a flawed world, with the steps that show it. */
const found = Effect.fnUntraced(function* (flaws: World.Flaws) {
  const spec = LifeSystem.spec(World.make(flaws))
  const result = yield* ModelRunner.check(spec, options)
  if (result._tag !== "Falsified") return assert.fail(`nothing was found: ${result._tag}`)
  assert.isAtMost(result.shrunkInput.length, 4, ModelRunner.report(result))
  const again = yield* ModelRunner.check(spec, { replay: result.replay })
  assert.strictEqual(again._tag, "Falsified")
  return result.failure._tag === "PropertyError" ? result.failure.error.actual : assert.fail("no reason")
})

describe("random lives find", () => {
  it.live(
    "a store that forgets that a sandbox was stopped",
    () =>
      Effect.gen(function* () {
        const said = yield* found({
          store: (store) => ({
            ...store,
            save: (record, events) =>
              record.status === "stopped"
                ? store.save({ ...record, status: "running" }, events)
                : store.save(record, events)
          })
        })
        assert.match(said, /should be|no machine runs|generation/)
      }).pipe(Effect.provide(quiet)),
    300_000
  )

  it.live(
    "a store that forgets times to live",
    () =>
      Effect.gen(function* () {
        const said = yield* found({
          store: (store) => ({
            ...store,
            save: (record, events) => store.save({ ...record, expiresAt: undefined }, events)
          })
        })
        assert.match(said, /time to live/)
      }).pipe(Effect.provide(quiet)),
    300_000
  )

  it.live(
    "a machine that is not ended",
    () =>
      Effect.gen(function* () {
        const said = yield* found({
          backend: withMachines((machine) => ({ ...machine, terminate: Effect.void }))
        })
        assert.match(said, /a machine runs/)
      }).pipe(Effect.provide(quiet)),
    300_000
  )

  it.live(
    "a removal that keeps the disk",
    () =>
      Effect.gen(function* () {
        const said = yield* found({ backend: (backend) => ({ ...backend, remove: backend.end }) })
        assert.match(said, /remains|left/)
      }).pipe(Effect.provide(quiet)),
    300_000
  )

  it.live(
    "a write that is acknowledged before it is written",
    () =>
      Effect.gen(function* () {
        const said = yield* found({
          backend: withMachines((machine) => ({
            ...machine,
            files: { ...machine.files, write: () => Effect.void }
          }))
        })
        assert.match(said, /is not there/)
      }).pipe(Effect.provide(quiet)),
    300_000
  )

  it.live(
    "a program's end that never comes",
    () =>
      Effect.gen(function* () {
        const said = yield* found({
          backend: withMachines((machine) => ({
            ...machine,
            processes: { ...machine.processes, kill: () => Effect.void }
          }))
        })
        assert.match(said, /runs|did not end/)
      }).pipe(Effect.provide(quiet)),
    300_000
  )
})
