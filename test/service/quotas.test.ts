import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { IdempotencyKey, Owner } from "../../src/domain/Ids.ts"
import { defaultLimits, resolveSpec } from "../../src/domain/Sandbox.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import * as SqliteClient from "../../src/layers/sql/SqliteClient.ts"
import * as SqlSandboxStore from "../../src/layers/sql/SqlSandboxStore.ts"
import { Memory } from "../../src/memory.ts"
import { admission, type QuotaSettings, Quotas } from "../../src/services/Quotas.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { type SandboxRecord, SandboxStore } from "../../src/services/SandboxStore.ts"
import { bob, recordOf } from "../layers/sandboxStoreSuite.ts"

const stores = {
  memory: MemorySandboxStore.layer,
  sqlite: Layer.provide(SqlSandboxStore.layer, SqliteClient.layer({ filename: ":memory:" }))
}

const create = (record: SandboxRecord, quotas: Partial<QuotaSettings>, now = 0) =>
  SandboxStore.use((store) =>
    store.create(
      record,
      admission({ perOwner: {}, service: {}, ...quotas }, record.owner, record.spec.limits, now)
    )
  )

const withLimits = (limits: NonNullable<Parameters<typeof resolveSpec>[0]["limits"]>) => ({
  spec: resolveSpec({ limits })
})

for (const [name, layer] of Object.entries(stores)) {
  const promise = <E>(text: string, body: Effect.Effect<void, E, SandboxStore>) =>
    it.effect(text, () => Effect.provide(body, Layer.fresh(layer)))

  describe(`${name}: quotas`, () => {
    promise(
      "let through exactly as many as there may be, however many come together",
      Effect.gen(function* () {
        const results = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, n) => n),
          (n) => Effect.result(create(recordOf(n), { perOwner: { sandboxes: 7 } })),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(results.filter(Result.isSuccess).length, 7)
        const errors = results.filter(Result.isFailure).map((result) => result.failure)
        assert.isTrue(
          errors.every((error) => error._tag === "ResourceExhausted" && error.resource === "sandboxes")
        )
        const store = yield* SandboxStore
        assert.strictEqual((yield* store.alive).length, 7)
      })
    )

    const sums: ReadonlyArray<
      readonly [keyof typeof defaultLimits & keyof QuotaSettings["perOwner"], string]
    > = [
      ["memoryBytes", "memory"],
      ["cpus", "processors"],
      ["pids", "processes"],
      ["diskBytes", "disk"]
    ]
    for (const [kind, resource] of sums) {
      promise(
        `add up the ${resource} of an owner's sandboxes, and of nobody else's`,
        Effect.gen(function* () {
          const quotas = { perOwner: { [kind]: defaultLimits[kind] * 2.5 } }
          yield* create(recordOf(0), quotas)
          yield* create(recordOf(1), quotas)
          const error = yield* Effect.flip(create(recordOf(2), quotas))
          assert.deepInclude(error, { _tag: "ResourceExhausted", resource, outcome: "not-started" })
          yield* create(recordOf(3, { owner: bob }), quotas)
          yield* create(recordOf(4, withLimits({ [kind]: defaultLimits[kind] / 2 })), quotas)
        })
      )
    }

    promise(
      "of the service count everybody's, and tell nobody how much that is",
      Effect.gen(function* () {
        const quotas = { service: { cpus: 2 } }
        yield* create(recordOf(0), quotas)
        yield* create(recordOf(1, { owner: bob }), quotas)
        const error = yield* Effect.flip(create(recordOf(2, { owner: Owner.make("carol") }), quotas))
        assert.strictEqual(error.message, "out of processors: the service has none left for another sandbox")
      })
    )

    promise(
      "are free again when a sandbox is killed, and not when it is stopped",
      Effect.gen(function* () {
        const store = yield* SandboxStore
        const quotas = { perOwner: { sandboxes: 1 } }
        yield* create(recordOf(0), quotas)
        yield* store.save(recordOf(0, { status: "stopped" }), [])
        yield* Effect.flip(create(recordOf(1), quotas))
        yield* store.save(recordOf(0, { status: "killed", killedAt: 1 }), [])
        yield* create(recordOf(1), quotas)
      })
    )

    promise(
      "say when to come again: when the first sandbox will be killed by its time limit",
      Effect.gen(function* () {
        const quotas = { perOwner: { sandboxes: 3 } }
        const ttl = (action: "kill" | "stop") => ({ spec: resolveSpec({ ttl: { afterMillis: 1, action } }) })
        yield* create(recordOf(0, { ...ttl("stop"), expiresAt: 2_000 }), quotas)
        yield* create(recordOf(1, { ...ttl("kill"), expiresAt: 9_000 }), quotas)
        yield* create(recordOf(2, { ...ttl("kill"), expiresAt: 5_000 }), quotas)
        const error = yield* Effect.flip(create(recordOf(3), quotas, 1_000))
        assert.deepInclude(error, { _tag: "ResourceExhausted", retryAfterMillis: 4_000 })
      })
    )

    promise(
      "give no time where nothing will end by itself",
      Effect.gen(function* () {
        const quotas = { perOwner: { sandboxes: 1 } }
        yield* create(recordOf(0), quotas)
        const error = yield* Effect.flip(create(recordOf(1), quotas))
        assert.isTrue(
          error._tag === "ResourceExhausted" && error.retryAfter === undefined && error.isRetryable
        )
      })
    )

    promise(
      "deny for good what could never fit",
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          create(recordOf(0, withLimits({ cpus: 9 })), { service: { cpus: 8 } })
        )
        assert.deepInclude(error, { _tag: "PolicyDenied", policy: "quota", isRetryable: false })
      })
    )

    promise(
      "are not asked of a repeated request, which makes nothing",
      Effect.gen(function* () {
        const quotas = { perOwner: { sandboxes: 1 } }
        const record = recordOf(0, { idempotencyKey: IdempotencyKey.make("k") })
        yield* create(record, quotas)
        const repeat = yield* create(recordOf(1, { idempotencyKey: IdempotencyKey.make("k") }), quotas)
        assert.isTrue(repeat.existed)
        assert.strictEqual(repeat.record.id, record.id)
      })
    )
  })
}

describe("a service with quotas", () => {
  const quotas = Layer.succeed(Quotas, { perOwner: { sandboxes: 2 }, service: {} })

  it.effect("leaves nothing of a sandbox that was refused, and makes one when there is room", () =>
    Effect.gen(function* () {
      const first = yield* Sandboxes.createDetached()
      yield* Sandboxes.createDetached()
      const error = yield* Effect.flip(Sandboxes.createDetached({ name: "third" }))
      assert.strictEqual(error._tag, "ResourceExhausted")
      assert.strictEqual((yield* Sandboxes.list()).sandboxes.length, 2)
      yield* first.kill
      const third = yield* Sandboxes.createDetached({ name: "third" })
      assert.strictEqual((yield* third.info).status, "running")
    }).pipe(Effect.provide(Layer.provide(Memory.layer(), quotas)))
  )
})
