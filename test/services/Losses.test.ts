import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Stream } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { BackendFailed } from "../../src/domain/Errors.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"

const lost = new BackendFailed({
  backend: "memory",
  operation: "terminate",
  reason: "what was written last did not reach the disk",
  outcome: "completed"
})

/** A backend whose machines end as they should, and say once that something was lost. */
const losing = Layer.effect(
  Backend,
  Effect.map(Backend, (backend) => ({
    ...backend,
    provision: (request) =>
      Effect.map(backend.provision(request), (machine) => {
        let isTold = false
        const tell = Effect.suspend(() => {
          if (isTold) return Effect.void
          isTold = true
          return Effect.fail(lost)
        })
        return { ...machine, terminate: Effect.andThen(machine.terminate, tell) }
      })
  }))
)

const withBackend = (backend: typeof losing) =>
  InProcess.layer({ onClose: "kill" }).pipe(
    Layer.provide(backend),
    Layer.provide([MemoryBackend.layer(), MemorySandboxStore.layer]),
    Layer.provide([SecureRandom.layerWebCrypto, Digest.layerWebCrypto])
  )

const reason = "what was written last did not reach the disk"

/** A backend that finds, when a machine is made on a disk again, that something had been lost. */
const lossy = Layer.effect(
  Backend,
  Effect.map(Backend, (backend) => ({
    ...backend,
    provision: (request) =>
      Effect.andThen(
        request.generation > 1 ? (request.onLoss?.(reason) ?? Effect.void) : Effect.void,
        backend.provision(request)
      )
  }))
)

describe("a disk that has lost something", () => {
  const logged: Array<unknown> = []
  const logs = Logger.layer([
    Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn") logged.push(...(Array.isArray(message) ? message : [message]))
    })
  ])
  it.effect("is told of by an event and in the log when a machine uses it again", () =>
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.create()
      yield* sandbox.stop()
      yield* sandbox.start
      assert.strictEqual((yield* sandbox.info).status, "running")
      const events = yield* Stream.runCollect(sandbox.events({ once: true }))
      const bodies = events.map(({ body }) => body).slice(-3)
      assert.deepStrictEqual(bodies, [
        { _tag: "StatusChanged", from: "stopped", to: "provisioning", reason: undefined },
        { _tag: "DataLost", reason },
        { _tag: "StatusChanged", from: "provisioning", to: "running", reason: undefined }
      ])
      assert.deepStrictEqual(logged, [`${sandbox.id} goes on without some of its data: ${reason}`])
    }).pipe(Effect.scoped, Effect.provide(withBackend(lossy)), Effect.provide(logs))
  )
})

describe("a machine that ends and says that something was lost with it", () => {
  it.effect("has that told by the stop and by what the sandbox says of itself, and starts again", () =>
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.create()
      const error = yield* Effect.flip(sandbox.stop())
      assert.include(error.message, lost.reason)
      const { reason, status } = yield* sandbox.info
      assert.strictEqual(status, "failed")
      assert.include(reason ?? "", lost.reason)
      yield* sandbox.start
      assert.strictEqual((yield* sandbox.info).status, "running")
    }).pipe(Effect.scoped, Effect.provide(withBackend(losing)))
  )
})
