/**
 * Machines that cannot be made, adopted or ended: what becomes of their sandboxes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { RestartPolicy } from "../../src/domain/Sandbox.ts"
import { history, inPlace, only, type Place, pass, refuseProvision } from "./shaky.ts"

const refuse = { _tag: "Refuse" } as const
const policy = (maxRestarts: number, maxMillis = 60_000): RestartPolicy => ({
  _tag: "OnFailure",
  maxRestarts,
  initialMillis: 1_000,
  factor: 2,
  maxMillis
})
const attempts = (sandbox: Parameters<typeof history>[0]) =>
  Effect.map(history(sandbox), (events) =>
    only(events, "RestartScheduled").map(({ attempt, delayMillis }) => [attempt, delayMillis])
  )

describe("a restart policy", () => {
  it.effect("counts every failure to make a machine, and waits longer each time", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const service = yield* place.service
        const { sandboxes, faults } = service
        const sandbox = yield* sandboxes.createDetached({ restartPolicy: policy(4, 4_000) })
        yield* pass(5_000)
        yield* refuseProvision(service, Number.POSITIVE_INFINITY)
        yield* faults.killMachine(sandbox.id)
        yield* pass(120_000, 500)
        assert.deepStrictEqual(yield* attempts(sandbox), [
          [1, 1_000],
          [2, 2_000],
          [3, 4_000],
          [4, 4_000]
        ])
        assert.strictEqual(place.tampering.asked.provision, 1 + 4)
        const info = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([info.status, info.restarts], ["failed", 4])
      })
    )
  )

  it.effect("goes on counting when the service is started again", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const first = yield* place.service
        const sandbox = yield* first.sandboxes.createDetached({ restartPolicy: policy(4) })
        yield* refuseProvision(first, Number.POSITIVE_INFINITY)
        yield* first.faults.killMachine(sandbox.id)
        yield* pass(3_500)
        for (let restart = 0; restart < 5; restart++) {
          yield* place.crash
          const next = yield* place.service
          yield* refuseProvision(next, Number.POSITIVE_INFINITY)
          yield* pass(500)
        }
        yield* pass(120_000, 500)
        assert.strictEqual(place.tampering.asked.provision, 1 + 4)
      })
    )
  )

  it.effect("begins to count anew once a machine has run for its longest wait", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ restartPolicy: policy(2) })
        for (let round = 0; round < 3; round++) {
          yield* faults.killMachine(sandbox.id)
          yield* pass(61_500, 500)
          assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "running")
        }
      })
    )
  )

  it.effect("is not ended by a write that fails while it restarts", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ restartPolicy: policy(1) })
        yield* faults.killMachine(sandbox.id)
        yield* pass(500)
        yield* place.store.inject("save", refuse, {
          times: 3,
          when: ({ status }) => status === "provisioning"
        })
        yield* pass(30_000, 500)
        const info = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([info.status, info.restarts], ["running", 1])
      })
    )
  )

  it.effect("acts also on a start and a restart that fail", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const service = yield* place.service
        const sandbox = yield* service.sandboxes.createDetached({ restartPolicy: policy(1) })
        yield* refuseProvision(service, 1)
        const error = yield* Effect.flip(sandbox.restart)
        // What ran has ended, whatever the machine that could not be made says of itself.
        assert.deepStrictEqual([error._tag, error.outcome], ["SandboxFailed", "unknown"])
        yield* pass(3_000)
        assert.strictEqual((yield* service.sandboxes.get(sandbox.id)).status, "running")
      })
    )
  )

  it.effect("is over when the sandbox is stopped", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ restartPolicy: policy(5) })
        yield* faults.killMachine(sandbox.id)
        yield* pass(100)
        assert.strictEqual((yield* sandbox.stop()).status, "stopped")
        yield* pass(60_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "stopped")
        assert.strictEqual((yield* sandbox.start).status, "running")
      })
    )
  )
})

describe("a restart that the service did not live to record", () => {
  const unrecorded = (place: Place) =>
    Effect.gen(function* () {
      const { sandboxes } = yield* place.service
      const sandbox = yield* sandboxes.createDetached()
      yield* place.store.inject("save", refuse, {
        times: Number.POSITIVE_INFINITY,
        when: ({ status }) => status === "running"
      })
      const restarting = yield* Effect.forkChild(sandbox.restart)
      yield* pass(5_000)
      const { generation } = yield* Fiber.join(restarting)
      assert.strictEqual(generation, 2)
      yield* sandbox.process.start(["sleep", "1000"], { processId: "sleeper" })
      yield* place.crash
      yield* place.store.clear
      return sandbox.id
    })

  it.effect("is taken over with what runs in its machine", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const id = yield* unrecorded(place)
        const { sandboxes } = yield* place.service
        yield* pass(1_000)
        const { status, generation } = yield* sandboxes.get(id)
        assert.deepStrictEqual([status, generation], ["running", 2])
        const sandbox = yield* sandboxes.connect(id)
        assert.strictEqual((yield* sandbox.process.connect("sleeper")).processId, "sleeper")
      })
    )
  )

  it.effect("is another generation when that machine has ended since", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const id = yield* unrecorded(place)
        place.world.state.running(id)?.end({ reason: "the host was started again", outOfMemory: false })
        yield* place.store.inject("save", refuse, { times: 3 })
        const { sandboxes } = yield* place.service
        yield* pass(10_000)
        const { status, generation } = yield* sandboxes.get(id)
        assert.deepStrictEqual([status, generation], ["running", 3])
      })
    )
  )
})

describe("a machine that could not be adopted", () => {
  it.effect("is lost at first, and taken over when that passes, with what runs in it", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const first = yield* place.service
        const sandbox = yield* first.sandboxes.createDetached()
        yield* place.crash
        const second = yield* place.service
        yield* second.faults.inject("adopt", refuse, { times: 2 })
        yield* pass(500)
        assert.strictEqual((yield* second.sandboxes.get(sandbox.id)).status, "lost")
        yield* pass(10_000)
        const info = yield* second.sandboxes.get(sandbox.id)
        assert.deepStrictEqual([info.status, info.generation], ["running", 1])
        assert.strictEqual(place.machine(sandbox.id), "running")
      })
    )
  )

  it.effect("is ended before its sandbox has failed, when it does not pass", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const first = yield* place.service
        const sandbox = yield* first.sandboxes.createDetached()
        yield* place.crash
        const second = yield* place.service
        yield* second.faults.inject("adopt", refuse, { times: Number.POSITIVE_INFINITY })
        yield* pass(60_000, 500)
        assert.strictEqual((yield* second.sandboxes.get(sandbox.id)).status, "failed")
        assert.strictEqual(place.machine(sandbox.id), "none")
      })
    )
  )

  it.effect("is ended by a start and by a kill meanwhile", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const first = yield* place.service
        const started = yield* first.sandboxes.createDetached()
        const killed = yield* first.sandboxes.createDetached()
        yield* place.crash
        const { faults, sandboxes } = yield* place.service
        yield* faults.inject("adopt", refuse, { times: Number.POSITIVE_INFINITY })
        yield* pass(500)
        yield* (yield* sandboxes.connect(killed.id)).kill
        assert.strictEqual(place.machine(killed.id), "none")
        const info = yield* (yield* sandboxes.connect(started.id)).start
        assert.deepStrictEqual([info.status, info.generation], ["running", 2])
        yield* pass(60_000, 500)
        assert.strictEqual((yield* sandboxes.get(started.id)).status, "running")
      })
    )
  )
})

describe("whatever ends a transition, it leaves a status that is so", () => {
  for (const command of ["restart", "start"] as const) {
    it.effect(`a defect of the backend: ${command}`, () =>
      inPlace((place) =>
        Effect.gen(function* () {
          const { sandboxes } = yield* place.service
          const sandbox = yield* sandboxes.createDetached()
          if (command === "start") yield* sandbox.stop()
          place.tampering.provisions.push(() => Effect.die(new Error("a defect on purpose")))
          const error = yield* Effect.flip(sandbox[command])
          assert.deepStrictEqual([error._tag, error.outcome], ["BackendFailed", "unknown"])
          const info = yield* sandboxes.get(sandbox.id)
          assert.deepStrictEqual([info.status, info.reason], ["failed", "a defect on purpose"])
          assert.strictEqual((yield* sandbox.start).status, "running")
        })
      )
    )

    it.effect(`a machine that was made before the defect runs no more: ${command}`, () =>
      inPlace((place) =>
        Effect.gen(function* () {
          const { sandboxes } = yield* place.service
          const sandbox = yield* sandboxes.createDetached()
          if (command === "start") yield* sandbox.stop()
          place.tampering.provisions.push((provision) =>
            Effect.andThen(provision, Effect.die(new Error("a defect on purpose")))
          )
          yield* Effect.flip(sandbox[command])
          assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "failed")
          assert.strictEqual(place.machine(sandbox.id), "none")
        })
      )
    )
  }

  it.effect("a backend that interrupts itself", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        place.tampering.provisions.push(() => Effect.interrupt)
        yield* Effect.exit(sandbox.restart)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "failed")
      })
    )
  )

  it.effect("a machine that cannot be ended at once", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* faults.inject("terminate", refuse, { times: 8 })
        const stopping = yield* Effect.forkChild(Effect.exit(sandbox.stop({ graceMillis: 0 })))
        yield* pass(1_000)
        yield* Fiber.join(stopping)
        yield* pass(30_000, 500)
        assert.strictEqual(place.machine(sandbox.id), "none")
        const { status } = yield* sandboxes.get(sandbox.id)
        assert.strictEqual(status, "failed")
      })
    )
  )

  it.effect("a creation that is given up while a machine is being made", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        place.tampering.provisions.push(() => Effect.never)
        const creating = yield* Effect.forkChild(sandboxes.createDetached())
        yield* pass(500)
        yield* Fiber.interrupt(creating)
        assert.deepStrictEqual((yield* sandboxes.list()).sandboxes, [])
        assert.strictEqual(place.world.state.homes.size, 0)
      })
    )
  )
})

describe("a machine that has died", () => {
  it.effect("is told of to whoever calls before that is recorded, and nobody is told that it runs", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* faults.inject("terminate", { _tag: "Delay", duration: "1 minute" })
        yield* faults.killMachine(sandbox.id)
        yield* pass(100)
        const error = yield* Effect.flip(sandbox.files.readText("/home/user/file"))
        assert.containSubset(error, {
          _tag: "SandboxFailed",
          reason: "its machine has ended",
          outcome: "not-started",
          isRetryable: true
        })
        yield* pass(60_000, 1_000)
        const later = yield* Effect.flip(sandbox.files.readText("/home/user/file"))
        assert.containSubset(later, { _tag: "InvalidState", status: "failed" })
      })
    )
  )
})
