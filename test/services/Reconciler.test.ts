/**
 * What a service does at its start, at every sweep and at its end with what it
 * finds: each sandbox by itself, and nothing is destroyed that the store does
 * not know to be dead.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Logger, Scope } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Generation, localOwner, makeSandboxId, type SandboxId } from "../../src/domain/Ids.ts"
import { resolveSpec } from "../../src/domain/Sandbox.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "../../src/layers/memory/MemoryFaults.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import type { OnClose } from "../../src/services/Reconciler.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { type SandboxRecord, SandboxStore, tombstoneMillis } from "../../src/services/SandboxStore.ts"

const random = Layer.merge(SecureRandom.layerWebCrypto, Digest.layerWebCrypto)

/** A world, an empty store, and what is logged meanwhile. */
const place = Effect.gen(function* () {
  const context = yield* Layer.build(
    Layer.fresh(Layer.provideMerge(MemoryBackend.layerOn(), MemoryWorld.layer))
  )
  const store = Context.get(yield* Layer.build(Layer.fresh(MemorySandboxStore.layer)), SandboxStore)
  const log: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn" || logLevel === "Error") log.push(String(message))
  })
  const backend = Context.get(context, Backend)
  const faults = Context.get(context, MemoryFaults)

  /** A service here, until its scope closes. */
  const service = (options: { readonly onClose?: OnClose; readonly store?: SandboxStore["Service"] } = {}) =>
    Layer.build(
      InProcess.client.pipe(
        Layer.provide(InProcess.actors({ onClose: options.onClose ?? "leave" })),
        Layer.provide(Layer.succeed(Backend, backend)),
        Layer.provide(Layer.succeed(SandboxStore, options.store ?? store)),
        Layer.provide(random),
        Layer.fresh
      )
    ).pipe(Effect.map(Context.get(SandboxClient)), Effect.provide(Logger.layer([logger]), { local: true }))

  const started = (id: SandboxId, generation = 1) =>
    Effect.scoped(
      backend.provision({
        sandboxId: id,
        generation: Generation.make(generation),
        spec: resolveSpec({}),
        detached: true
      })
    )
  const found = Effect.map(
    backend.list,
    (refs): Record<string, number | undefined> =>
      Object.fromEntries(refs.map(({ generation, sandboxId }) => [sandboxId, generation]))
  )
  const newId = Effect.provide(makeSandboxId("local"), random)
  return { backend, store, faults, log, service, started, found, newId }
})

const recordOf = (id: SandboxId, change: Partial<SandboxRecord> = {}): SandboxRecord => ({
  id,
  owner: localOwner,
  slug: id,
  status: "running",
  generation: Generation.make(1),
  backend: "memory",
  isolation: "none",
  detached: true,
  spec: resolveSpec({}),
  createdAt: 0,
  startedAt: 0,
  restarts: 0,
  requestDigest: "",
  ...change
})

const dead = { status: "killed", killedAt: 0 } as const

describe("what the store does not know", () => {
  it.effect("keeps its disk, loses its programs, and is told of once, by name, with what to do", () =>
    Effect.gen(function* () {
      const { found, log, newId, service, started } = yield* place
      const [running, other] = [yield* newId, yield* newId]
      yield* started(running, 3)
      yield* started(other)
      yield* service()
      assert.deepStrictEqual(yield* found, { [running]: undefined, [other]: undefined })
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(yield* found, { [running]: undefined, [other]: undefined })
      assert.strictEqual(log.length, 1)
      for (const word of [running, other, "fiberbox remains"]) assert.include(log[0], word)
    }).pipe(Effect.scoped)
  )

  it.effect("is kept also when a machine appears while the service runs", () =>
    Effect.gen(function* () {
      const { found, log, newId, service, started } = yield* place
      yield* service()
      const id = yield* newId
      yield* started(id)
      yield* TestClock.adjust("61 seconds")
      assert.deepStrictEqual(yield* found, { [id]: undefined })
      assert.strictEqual(log.length, 1)
    }).pipe(Effect.scoped)
  )
})

describe("what the store knows to be killed", () => {
  it.effect("is removed at the start", () =>
    Effect.gen(function* () {
      const { found, newId, service, started, store } = yield* place
      const id = yield* newId
      yield* started(id)
      yield* store.create(recordOf(id))
      yield* store.save(recordOf(id, dead), [])
      yield* service()
      assert.deepStrictEqual(yield* found, {})
    }).pipe(Effect.scoped)
  )

  it.effect(
    "stops neither the start nor the other removals when it cannot be removed, and is tried again",
    () =>
      Effect.gen(function* () {
        const { faults, found, log, newId, service, started, store } = yield* place
        const [stuck, other, living] = [yield* newId, yield* newId, yield* newId]
        for (const id of [stuck, other, living]) {
          yield* started(id)
          yield* store.create(recordOf(id))
          if (id !== living) yield* store.save(recordOf(id, dead), [])
        }
        yield* faults.inject("remove", { _tag: "Refuse" }, { sandboxId: stuck })
        const client = yield* service()
        assert.strictEqual((yield* client.GetInfo({ sandboxId: living })).status, "running")
        assert.deepStrictEqual(yield* found, { [stuck]: 1, [living]: 1 })
        assert.strictEqual(log.filter((line) => line.includes(stuck)).length, 1)
        yield* TestClock.adjust("61 seconds")
        assert.deepStrictEqual(yield* found, { [living]: 1 })
      }).pipe(Effect.scoped)
  )

  it.effect("does not hold up the start when its removal hangs", () =>
    Effect.gen(function* () {
      const { faults, newId, service, started, store } = yield* place
      const id = yield* newId
      yield* started(id)
      yield* store.create(recordOf(id))
      yield* store.save(recordOf(id, dead), [])
      yield* faults.inject("remove", { _tag: "Delay", duration: "1 hour" })
      const client = yield* Effect.forkScoped(service())
      yield* TestClock.adjust("15 seconds")
      assert.isDefined(client.pollUnsafe())
    }).pipe(Effect.scoped)
  )

  it.effect("is not forgotten before it is removed, and so never becomes unknown", () =>
    Effect.gen(function* () {
      const { faults, found, newId, service, started, store } = yield* place
      const id = yield* newId
      yield* started(id)
      yield* store.create(recordOf(id))
      yield* store.save(recordOf(id, dead), [])
      yield* faults.inject("remove", { _tag: "Refuse" }, { times: Number.POSITIVE_INFINITY })
      yield* service()
      yield* TestClock.adjust(tombstoneMillis + 120_000)
      assert.isDefined(yield* store.get(id))
      yield* faults.clear
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* found, {})
      yield* TestClock.adjust("2 minutes")
      assert.isUndefined(yield* store.get(id))
    }).pipe(Effect.scoped)
  )
})

describe("a start", () => {
  it.effect("succeeds when what exists cannot be listed", () =>
    Effect.gen(function* () {
      const { faults, log, newId, service, started, store } = yield* place
      const id = yield* newId
      yield* started(id)
      yield* store.create(recordOf(id))
      yield* faults.inject("list", { _tag: "Refuse" })
      const client = yield* service()
      assert.strictEqual((yield* client.GetInfo({ sandboxId: id })).status, "running")
      assert.strictEqual(log.length, 1)
    }).pipe(Effect.scoped)
  )

  it.effect(
    "buries every scoped sandbox of the ended program, also when one cannot be recorded at once",
    () =>
      Effect.gen(function* () {
        const { found, log, newId, service, started, store } = yield* place
        const [stuck, other] = [yield* newId, yield* newId]
        for (const id of [stuck, other]) {
          yield* started(id)
          yield* store.create(recordOf(id, { detached: false }))
        }
        let refusals = 1
        const failing: SandboxStore["Service"] = {
          ...store,
          save: (record, events) =>
            record.id === stuck && refusals-- > 0
              ? Effect.flatMap(store.get(record.id), () => Effect.die("the disk broke"))
              : store.save(record, events)
        }
        yield* service({ store: failing })
        assert.strictEqual((yield* store.get(other))?.status, "killed")
        assert.deepStrictEqual(yield* found, { [stuck]: 1 })
        assert.strictEqual(log.filter((line) => line.includes(stuck)).length, 1)
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual((yield* store.get(stuck))?.status, "killed")
        assert.deepStrictEqual(yield* found, {})
      }).pipe(Effect.scoped)
  )

  it.effect("ends a machine that runs although its record says stopped, or tells of another one", () =>
    Effect.gen(function* () {
      const { found, newId, service, started, store } = yield* place
      const [stopped, older, same] = [yield* newId, yield* newId, yield* newId]
      yield* started(stopped)
      yield* started(older, 7)
      yield* started(same)
      yield* store.create(recordOf(stopped, { status: "stopped" }))
      yield* store.create(recordOf(older))
      yield* store.create(recordOf(same))
      yield* service()
      assert.deepStrictEqual(yield* found, { [stopped]: undefined, [older]: undefined, [same]: 1 })
    }).pipe(Effect.scoped)
  )
})

describe("a sandbox whose time ran out while no service was there", () => {
  it.effect("is killed while it is taken up, and that is nothing to warn of", () =>
    Effect.gen(function* () {
      const { faults, found, log, newId, service, started, store } = yield* place
      const id = yield* newId
      yield* started(id)
      const ttl = { afterMillis: 1_000, action: "kill" } as const
      yield* store.create(recordOf(id, { expiresAt: 1_000, spec: resolveSpec({ ttl }) }))
      yield* TestClock.adjust(2_000)
      yield* faults.inject("adopt", { _tag: "Delay", duration: "1 hour" })
      yield* service()
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* store.get(id))?.status, "killed")
      assert.deepStrictEqual(yield* found, {})
      assert.deepStrictEqual(log, [])
    }).pipe(Effect.scoped)
  )
})

describe("a sandbox whose disk is missing", () => {
  it.effect("is not started on a new empty one", () =>
    Effect.gen(function* () {
      const { found, newId, service, store } = yield* place
      const id = yield* newId
      yield* store.create(recordOf(id, { status: "stopped" }))
      const client = yield* service()
      const refused = yield* Effect.flip(client.ChangeStatus({ sandboxId: id, command: "start" }))
      assert.deepInclude(refused, { _tag: "NotFound", kind: "disk", isRetryable: false })
      assert.deepStrictEqual(yield* found, {})
      assert.strictEqual((yield* client.GetInfo({ sandboxId: id })).status, "failed")
    }).pipe(Effect.scoped)
  )
})

describe("an end that kills", () => {
  it.effect("kills all others when one cannot be killed, and names it", () =>
    Effect.gen(function* () {
      const { faults, found, log, service } = yield* place
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(service({ onClose: "kill" }), scope)
      const create = client.CreateSandbox({ request: {}, detached: true, lease: undefined })
      const [first, stuck, last] = [yield* create, yield* create, yield* create]
      yield* faults.inject(
        "remove",
        { _tag: "Refuse" },
        { sandboxId: stuck.id, times: Number.POSITIVE_INFINITY }
      )
      yield* Scope.close(scope, Exit.void)
      const left = yield* found
      assert.notProperty(left, first.id)
      assert.notProperty(left, last.id)
      assert.isTrue(log.some((line) => line.includes(stuck.id)))
    }).pipe(Effect.scoped)
  )

  it.effect("is not held up by a kill that hangs", () =>
    Effect.gen(function* () {
      const { faults, service } = yield* place
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(service({ onClose: "kill" }), scope)
      yield* client.CreateSandbox({ request: {}, detached: true, lease: undefined })
      yield* faults.inject("remove", { _tag: "Delay", duration: "1 hour" })
      const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("20 seconds")
      assert.isDefined(closing.pollUnsafe())
    }).pipe(Effect.scoped)
  )
})
