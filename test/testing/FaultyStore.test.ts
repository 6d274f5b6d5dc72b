import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { SandboxStore } from "../../src/services/SandboxStore.ts"
import { FaultyStore } from "../../src/testing.ts"
import { recordOf, sandboxStoreSuite } from "../layers/sandboxStoreSuite.ts"

const layer = FaultyStore.layer(MemorySandboxStore.layer)

sandboxStoreSuite("faulty, without a fault", layer)

const withFaults = <E>(
  body: (faults: FaultyStore.StoreFaults["Service"], store: SandboxStore["Service"]) => Effect.Effect<void, E>
) =>
  Effect.gen(function* () {
    yield* body(yield* FaultyStore.StoreFaults, yield* SandboxStore)
  }).pipe(Effect.provide(layer))

const record = recordOf(0)
const running = recordOf(0, { status: "running" })

describe("a store with a fault", () => {
  it.effect("refuses as often as it was told, and nothing of it happens", () =>
    withFaults((faults, store) =>
      Effect.gen(function* () {
        yield* store.create(record)
        yield* faults.inject("save", { _tag: "Refuse" }, { times: 2 })
        assert.strictEqual((yield* Effect.flip(store.save(running, []))).outcome, "not-started")
        assert.strictEqual((yield* Effect.flip(store.save(running, []))).outcome, "not-started")
        assert.strictEqual((yield* store.get(record.id))?.status, "provisioning")
        yield* store.save(running, [])
        assert.strictEqual((yield* store.get(record.id))?.status, "running")
      })
    )
  )

  it.effect("loses a reply of what has happened", () =>
    withFaults((faults, store) =>
      Effect.gen(function* () {
        yield* store.create(record)
        yield* faults.inject("save", { _tag: "LoseReply" })
        assert.strictEqual((yield* Effect.flip(store.save(running, []))).outcome, "unknown")
        assert.strictEqual((yield* store.get(record.id))?.status, "running")
      })
    )
  )

  it.effect("fails only what it is meant for", () =>
    withFaults((faults, store) =>
      Effect.gen(function* () {
        yield* store.create(record)
        const killed = recordOf(0, { status: "killed" })
        yield* faults.inject("save", { _tag: "Refuse" }, { when: ({ status }) => status === "killed" })
        yield* store.save(running, [])
        yield* Effect.flip(store.save(killed, []))
        yield* store.save(killed, [])
      })
    )
  )

  it.effect("is late, or waits until its faults are cleared", () =>
    withFaults((faults, store) =>
      Effect.gen(function* () {
        yield* faults.inject("get", { _tag: "Delay", duration: "1 second" })
        yield* faults.inject("get", { _tag: "Hang" })
        const late = yield* Effect.forkChild(store.get(record.id), { startImmediately: true })
        const hung = yield* Effect.forkChild(store.get(record.id), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(late)
        yield* TestClock.adjust("1 hour")
        assert.isUndefined(hung.pollUnsafe())
        yield* faults.clear
        yield* Fiber.join(hung)
      })
    )
  )
})
