/**
 * The memory backend keeps the contract: in this process, and over a real connection.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { Capability } from "../../src/domain/Capability.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { Memory } from "../../src/memory.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import { conformance } from "./register.ts"
import { overSocket } from "./transport.ts"

const missing: ReadonlyArray<Capability> = ["snapshot", "network-allow", "network-full"]
const capabilities = Capability.literals.filter((one) => !missing.includes(one))

describe("a sandbox in memory", () => {
  it.live("is of a backend that declares what it is held to", () =>
    Effect.gen(function* () {
      assert.sameMembers([...(yield* Backend).capabilities], capabilities)
    }).pipe(Effect.provide(MemoryBackend.layer()))
  )

  conformance("in this process", Memory.layer(), capabilities)

  conformance(
    "over a socket",
    overSocket(
      InProcess.client.pipe(
        Layer.provide(InProcess.actors({ onClose: "kill" })),
        Layer.provide([MemoryBackend.layer(), MemorySandboxStore.layer]),
        Layer.provide([SecureRandom.layerWebCrypto, Digest.layerWebCrypto])
      )
    ),
    capabilities
  )
})
