/**
 * What the next service knows of the processes a killed one left behind: their
 * labels, and by them their leases.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Generation, LeaseId, makeSandboxId, ProcessId } from "../../src/domain/Ids.ts"
import { resolveSpec } from "../../src/domain/Sandbox.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import { graceMillis } from "../../src/services/Leases.ts"
import type { SpawnRequest } from "../../src/services/Machine.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { canRun, everything } from "../layers/container/support.ts"

const ids = Layer.merge(SecureRandom.layerWebCrypto, Digest.layerWebCrypto)

const sleeper = (name: string, label: string | undefined): SpawnRequest => ({
  processId: ProcessId.make(name),
  argv: ["sleep", "1000"],
  env: { PATH: "/usr/bin:/bin" },
  cwd: "/",
  user: "user",
  pty: undefined,
  stdin: false,
  identity: 0,
  journalBytes: 65536,
  label
})

/** Starts a process with a label and one without, asks for the first again with another, and lists what an adopted machine has. */
const listedAfterAdoption = Effect.gen(function* () {
  const backend = yield* Backend
  const sandboxId = yield* makeSandboxId("test")
  const request = { sandboxId, generation: Generation.make(1), spec: resolveSpec({}), detached: true }
  yield* Effect.addFinalizer(() => Effect.orDie(backend.remove(sandboxId)))
  const machine = yield* backend.provision(request)
  yield* machine.processes.start(sleeper("labelled", "of the first"))
  yield* machine.processes.start(sleeper("plain", undefined))
  yield* machine.processes.start(sleeper("labelled", "of the second"))
  const adopted = yield* backend.adopt(request)
  const listed = yield* adopted.processes.list
  return new Map(listed.map(({ processId, label }) => [String(processId), label]))
}).pipe(Effect.scoped)

const kept = new Map([
  ["labelled", "of the first"],
  ["plain", undefined]
])

describe("the label of a process is known of an adopted machine", () => {
  it.effect("in memory", () =>
    Effect.map(listedAfterAdoption, (labels) => assert.deepStrictEqual(labels, kept)).pipe(
      Effect.provide(MemoryBackend.layer()),
      Effect.provide(ids)
    )
  )

  it.live.runIf(canRun)("in a container", () =>
    Effect.map(listedAfterAdoption, (labels) => assert.deepStrictEqual(labels, kept)).pipe(
      Effect.provide(everything)
    )
  )
})

const lease = LeaseId.make("lease-of-a-client-far-away")

/** A service on the given world and store, until its scope closes. */
const service = Effect.map(
  Layer.build(
    InProcess.client.pipe(
      Layer.provide(InProcess.actors({ onClose: "leave" })),
      Layer.provide(MemoryBackend.layerOn()),
      Layer.provide(ids),
      Layer.fresh
    )
  ),
  Context.get(SandboxClient)
)

/** A sandbox with a process that a lease holds and one that nothing holds, left behind by a service that was killed. */
const leftBehind = Effect.gen(function* () {
  const scope = yield* Scope.make()
  const client = yield* Scope.provide(service, scope)
  const { id: sandboxId } = yield* client.CreateSandbox({ request: {}, detached: true, lease: undefined })
  const start = (name: string, more: { readonly lease?: LeaseId }) =>
    client.StartProcess({
      sandboxId,
      process: { processId: ProcessId.make(name), argv: ["sleep", "100000"], ...more }
    })
  yield* client.RenewLease({ lease, ttlMillis: 3_600_000 })
  yield* start("leased", { lease })
  yield* start("free", {})
  yield* (yield* MemoryWorld).crash
  yield* Scope.close(scope, Exit.void)
  return sandboxId
})

describe("a process that a lease holds, after a restart of the service,", () => {
  const world = Layer.merge(MemoryWorld.layer, MemorySandboxStore.layer)

  const alive = (client: SandboxClient["Service"], sandboxId: Effect.Success<typeof leftBehind>) =>
    Effect.map(client.ListProcesses({ sandboxId }), (list) =>
      list.filter(({ exit }) => exit === undefined).map(({ processId }) => String(processId))
    )

  it.effect("ends when its client does not come back in time", () =>
    Effect.gen(function* () {
      const sandboxId = yield* leftBehind
      const client = yield* service
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["leased", "free"])
      yield* TestClock.adjust(graceMillis - 1)
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["leased", "free"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["free"])
    }).pipe(Effect.scoped, Effect.provide(world))
  )

  it.effect("lives on when its client renews the lease, and ends with the lease", () =>
    Effect.gen(function* () {
      const sandboxId = yield* leftBehind
      const client = yield* service
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["leased", "free"])
      yield* TestClock.adjust(graceMillis / 2)
      yield* client.RenewLease({ lease, ttlMillis: 2 * graceMillis })
      yield* TestClock.adjust(2 * graceMillis - 1)
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["leased", "free"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["free"])
    }).pipe(Effect.scoped, Effect.provide(world))
  )
})
