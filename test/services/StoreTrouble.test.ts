/**
 * A store that fails does not decide the life of a sandbox.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { history, inPlace, only, pass, refuseProvision } from "./shaky.ts"

const killed = { when: ({ status }: { readonly status: string }) => status === "killed" }
const refuse = { _tag: "Refuse" } as const

describe("a kill", () => {
  it.effect("succeeds though its first write fails", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* place.store.inject("save", refuse, killed)
        const killing = yield* Effect.forkChild(sandbox.kill)
        yield* pass(10_000)
        yield* Fiber.join(killing)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "killed")
        assert.strictEqual(place.machine(sandbox.id), "none")
      })
    )
  )

  it.effect(
    "ends the programs though the store refuses it, is told to be of unknown outcome, and is recorded when the store is back",
    () =>
      inPlace((place) =>
        Effect.gen(function* () {
          const { sandboxes } = yield* place.service
          const sandbox = yield* sandboxes.createDetached()
          yield* place.store.inject("save", refuse, { ...killed, times: Number.POSITIVE_INFINITY })
          const killing = yield* Effect.forkChild(Effect.flip(sandbox.kill))
          yield* pass(10_000)
          const error = yield* Fiber.join(killing)
          assert.deepStrictEqual([error._tag, error.outcome], ["BackendFailed", "unknown"])
          assert.strictEqual(place.machine(sandbox.id), "none")
          assert.isFalse(place.world.state.homes.has(sandbox.id))
          // It answers as one that was killed.
          assert.strictEqual((yield* sandbox.info).status, "killed")
          assert.strictEqual((yield* Effect.flip(sandbox.start))._tag, "NotFound")
          assert.strictEqual((yield* Effect.flip(sandbox.commands.run("true")))._tag, "NotFound")

          yield* place.store.clear
          yield* pass(60_000, 1_000)
          assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "killed")
          yield* sandbox.kill
        })
      )
  )

  it.effect("is answered anew each time it is asked for, not with an old failure", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* faults.inject("remove", refuse, { times: 3 })
        const killing = yield* Effect.forkChild(Effect.flip(sandbox.kill))
        yield* pass(500)
        assert.strictEqual((yield* Fiber.join(killing))._tag, "BackendFailed")
        yield* sandbox.kill
        assert.isFalse(place.world.state.homes.has(sandbox.id))
      })
    )
  )

  it.effect("that could not remove everything goes on by itself", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* faults.inject("remove", refuse, { times: 7 })
        yield* Effect.flip(sandbox.kill)
        yield* pass(20_000, 1_000)
        assert.isFalse(place.world.state.homes.has(sandbox.id))
        assert.strictEqual(place.logs.length, 1, place.logs.join("\n"))
      })
    )
  )

  it.effect("ends the programs within two seconds though the store never answers", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* place.store.inject("save", { _tag: "Hang" }, { times: Number.POSITIVE_INFINITY })
        const killing = yield* Effect.forkChild(Effect.flip(sandbox.kill))
        yield* pass(2_000)
        assert.strictEqual(place.machine(sandbox.id), "none")
        yield* pass(10_000)
        assert.strictEqual((yield* Fiber.join(killing)).outcome, "unknown")
        yield* place.store.clear
        yield* pass(10_000)
        yield* sandbox.kill
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "killed")
      })
    )
  )

  it.effect("waits for no transition whose write hangs", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* place.store.inject("save", { _tag: "Hang" }, { when: ({ status }) => status === "stopping" })
        yield* Effect.forkChild(Effect.exit(sandbox.stop()))
        yield* pass(1_000)
        yield* Effect.forkChild(Effect.exit(sandbox.kill))
        yield* pass(2_000)
        assert.strictEqual(place.machine(sandbox.id), "none")
      })
    )
  )
})

describe("a creation that fails", () => {
  it.effect("is of unknown outcome when it cannot be recorded that it was taken back", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const service = yield* place.service
        yield* refuseProvision(service, 1)
        yield* place.store.inject("save", refuse, { ...killed, times: Number.POSITIVE_INFINITY })
        const creating = yield* Effect.forkChild(Effect.flip(service.sandboxes.createDetached()))
        yield* pass(30_000)
        const error = yield* Fiber.join(creating)
        assert.deepStrictEqual([error._tag, error.outcome], ["BackendFailed", "unknown"])
      })
    )
  )

  it.effect("says why, and leaves nothing, when that can be recorded", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const service = yield* place.service
        yield* refuseProvision(service, 1)
        const error = yield* Effect.flip(service.sandboxes.createDetached())
        assert.deepStrictEqual([error._tag, error.outcome], ["BackendFailed", "not-started"])
        assert.deepStrictEqual((yield* service.sandboxes.list()).sandboxes, [])
      })
    )
  )
})

describe("a machine that dies while nothing can be written", () => {
  it.effect("is started again by its policy, and the record follows", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({
          restartPolicy: { _tag: "Always", initialMillis: 1_000, factor: 1, maxMillis: 1_000 }
        })
        yield* place.store.inject("save", refuse, { times: 4 })
        yield* faults.killMachine(sandbox.id)
        yield* pass(60_000, 500)
        assert.strictEqual(place.machine(sandbox.id), "running")
        const recorded = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([recorded.status, recorded.generation], ["running", 2])
        assert.strictEqual(only(yield* history(sandbox), "MachineDied").length, 1)
      })
    )
  )

  it.effect("has failed at once for those who ask the sandbox", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* place.store.inject("save", refuse, { times: Number.POSITIVE_INFINITY })
        yield* faults.killMachine(sandbox.id, { reason: "a bolt of lightning" })
        yield* pass(100)
        const info = yield* sandbox.info
        assert.deepStrictEqual([info.status, info.reason], ["failed", "a bolt of lightning"])
        yield* pass(3_600_000, 60_000)
        assert.strictEqual(place.logs.length, 1, place.logs.join("\n"))
        yield* place.store.clear
        yield* pass(60_000, 10_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "failed")
      })
    )
  )
})

describe("a change of status that cannot be recorded", () => {
  for (const command of ["pause", "stop", "restart"] as const) {
    it.effect(`has not happened: ${command}`, () =>
      inPlace((place) =>
        Effect.gen(function* () {
          const { sandboxes } = yield* place.service
          const sandbox = yield* sandboxes.createDetached()
          yield* place.store.inject("save", refuse)
          const changed = command === "stop" ? sandbox.stop() : sandbox[command]
          assert.strictEqual((yield* Effect.flip(changed)).outcome, "not-started")
          const info = yield* sandbox.info
          assert.deepStrictEqual([info.status, info.generation], ["running", 1])
          assert.strictEqual(place.machine(sandbox.id), "running")
        })
      )
    )
  }

  it.effect("has not happened: resume", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* sandbox.pause
        yield* place.store.inject("save", refuse)
        assert.strictEqual((yield* Effect.flip(sandbox.resume)).outcome, "not-started")
        assert.strictEqual((yield* sandbox.info).status, "paused")
        assert.strictEqual(place.machine(sandbox.id), "frozen")
      })
    )
  )

  it.effect("has happened all the same when its machine was changed before: a stop, a creation", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        yield* place.store.inject("save", refuse, { when: ({ status }) => status === "running" })
        const sandbox = yield* sandboxes.createDetached()
        assert.strictEqual((yield* sandbox.info).status, "running")
        yield* place.store.inject("save", refuse, { when: ({ status }) => status === "stopped" })
        const stopping = yield* Effect.forkChild(sandbox.stop())
        yield* pass(2_000)
        assert.strictEqual((yield* Fiber.join(stopping)).status, "stopped")
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "stopped")
      })
    )
  )
})

describe("a time limit that cannot be recorded", () => {
  it.effect("is tried again after longer and longer whiles, and told of once", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ ttl: { afterMillis: 1_000, action: "stop" } })
        const before = (yield* place.store.calls).length
        yield* place.store.inject("save", refuse, { times: Number.POSITIVE_INFINITY })
        yield* pass(600_000, 1_000)
        const tries = (yield* place.store.calls).length - before
        assert.isAbove(tries, 5)
        assert.isBelow(tries, 60)
        assert.strictEqual(place.logs.length, 1, place.logs.join("\n"))
        yield* place.store.clear
        yield* pass(60_000, 1_000)
        const info = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([info.status, info.expiresAt], ["stopped", undefined])
        assert.strictEqual(only(yield* history(sandbox), "Expired").length, 1)
      })
    )
  )

  for (const action of ["kill", "stop", "pause"] as const) {
    it.effect(`is not lost when the service dies before its effect is recorded: ${action}`, () =>
      inPlace((place) =>
        Effect.gen(function* () {
          const first = yield* place.service
          const sandbox = yield* first.sandboxes.createDetached({ ttl: { afterMillis: 1_000, action } })
          yield* place.store.inject("save", refuse, { times: Number.POSITIVE_INFINITY })
          yield* pass(1_500)
          yield* place.crash
          yield* place.store.clear
          const second = yield* place.service
          yield* pass(10_000)
          const { status } = yield* second.sandboxes.get(sandbox.id)
          assert.strictEqual(status, { kill: "killed", stop: "stopped", pause: "paused" }[action])
          yield* TestClock.adjust("1 minute")
        })
      )
    )
  }
})
