import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import { BackendFailed } from "../../src/domain/Errors.ts"
import { LeaseId, localOwner } from "../../src/domain/Ids.ts"
import * as MemoryAuditStore from "../../src/layers/auth/MemoryAuditStore.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { Memory, MemoryFaults } from "../../src/memory.ts"
import { Audit } from "../../src/services/Audit.ts"
import { Backend } from "../../src/services/Backend.ts"
import { Calls } from "../../src/services/Calls.ts"
import { checkMillis, Health, StoreProbe } from "../../src/services/Health.ts"
import { graceMillis, Leases } from "../../src/services/Leases.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import * as ServiceMetrics from "../../src/services/ServiceMetrics.ts"

const broken = new BackendFailed({
  backend: "store",
  operation: "write",
  reason: "full",
  outcome: "not-started"
})

describe("the readiness of a service", () => {
  let storeWorks = true
  const layer = Health.layer.pipe(
    Layer.provideMerge(Calls.layer),
    Layer.provideMerge(MemoryBackend.layer()),
    Layer.provide([MemorySandboxStore.layer, Layer.provide(Audit.layer, MemoryAuditStore.layer)]),
    Layer.provide(
      Layer.succeed(
        StoreProbe,
        Effect.suspend(() => (storeWorks ? Effect.void : Effect.fail(broken)))
      )
    )
  )
  const failing = Effect.map(
    Health.use(({ readiness }) => readiness),
    ({ checks, ready }) => [ready, checks.filter(({ ok }) => !ok).map(({ name }) => name)] as const
  )

  it.effect("needs a store that can be written, a backend that answers, and calls that are taken", () =>
    Effect.gen(function* () {
      const { inject } = yield* MemoryFaults
      assert.deepStrictEqual(yield* failing, [true, []])
      storeWorks = false
      assert.deepStrictEqual(yield* failing, [true, []], "it was looked at within this second")
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(yield* failing, [false, ["store"]])
      storeWorks = true
      yield* inject("ready", { _tag: "Refuse" })
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(yield* failing, [false, ["backend"]])
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(yield* failing, [true, []])
      yield* Calls.use((calls) => calls.refuse)
      assert.deepStrictEqual(yield* failing, [false, ["accepting"]])
    }).pipe(Effect.provide(layer))
  )

  /** The health of a service whose backend is tried out by `trial`. */
  const tried = (trial: Effect.Effect<void, BackendFailed>) =>
    Layer.fresh(Health.layer).pipe(
      Layer.provide(Layer.fresh(Calls.layer)),
      Layer.provide(
        Layer.effect(
          Backend,
          Effect.map(Backend, (backend) => ({ ...backend, ready: trial }))
        )
      ),
      Layer.provide(MemoryBackend.layer()),
      Layer.provide([MemorySandboxStore.layer, Layer.provide(Audit.layer, MemoryAuditStore.layer)])
    )
  const reasons = Effect.map(
    Health.use(({ readiness }) => readiness),
    ({ checks }) => checks.flatMap(({ name, reason }) => (reason === "" ? [] : [`${name}: ${reason}`]))
  )

  it.effect("says why not", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* reasons, [`backend: ${broken.message}`])
    }).pipe(Effect.provide(tried(Effect.fail(broken))))
  )

  it.effect("is known in time though a trial hangs, which is not begun a second time", () => {
    let trials = 0
    const hangs = Effect.suspend(() => {
      trials++
      return Effect.uninterruptible(Effect.never)
    })
    return Effect.gen(function* () {
      for (let round = 0; round < 3; round++) {
        const asked = yield* Effect.forkChild(reasons, { startImmediately: true })
        yield* TestClock.adjust(checkMillis)
        assert.deepStrictEqual(yield* Fiber.join(asked), [`backend: no answer within ${checkMillis} ms`])
        yield* TestClock.adjust(1_000)
      }
      assert.strictEqual(trials, 1)
    }).pipe(Effect.provide(tried(hangs), { local: true }))
  })

  it.effect("is looked at once for all who ask at the same time", () => {
    let trials = 0
    const slow = Effect.suspend(() => {
      trials++
      return Effect.sleep(100)
    })
    return Effect.gen(function* () {
      const asked = yield* Effect.forkChild(Effect.all([reasons, reasons, reasons], { concurrency: 3 }))
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* Fiber.join(asked), [[], [], []])
      assert.strictEqual(trials, 1)
    }).pipe(Effect.provide(tried(slow)))
  })
})

describe("the metrics of a service", () => {
  const alone = Effect.provideService(Metric.MetricRegistry, new Map())
  const count = (metric: Metric.Counter<number>) => Effect.map(Metric.value(metric), ({ count }) => count)

  it.effect("count machines that die and are started again", () =>
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({
        restartPolicy: { _tag: "OnFailure", maxRestarts: 2, initialMillis: 1, factor: 1, maxMillis: 60_000 }
      })
      for (let n = 0; n < 3; n++) {
        yield* MemoryFaults.use((faults) => faults.killMachine(sandbox.id))
        yield* TestClock.adjust(10)
      }
      assert.deepStrictEqual(
        [yield* count(ServiceMetrics.machineDeaths), yield* count(ServiceMetrics.restarts)],
        [3, 2]
      )
    }).pipe(Effect.provide(Memory.layer()), alone)
  )

  it.effect("count leases that lapse, and none that is ended", () =>
    Effect.gen(function* () {
      const leases = Context.get(yield* Layer.build(Leases.layer), Leases)
      const lapsing = LeaseId.make("lapsing-lease-0001")
      const ended = LeaseId.make("ended-lease-00001")
      yield* leases.hold(localOwner, lapsing, "x", () => Effect.void)
      yield* leases.hold(localOwner, ended, "x", () => Effect.void)
      yield* leases.end(localOwner, ended)
      yield* TestClock.adjust(graceMillis)
      assert.strictEqual(yield* count(ServiceMetrics.leaseLapses), 1)
    }).pipe(Effect.scoped, alone)
  )
})
