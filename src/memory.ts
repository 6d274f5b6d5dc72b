/**
 * Sandboxes in memory: deterministic, on Effect's clock and random, for tests.
 *
 * ```ts
 * program.pipe(Effect.provide(Memory.layer()))
 * ```
 */
import { Effect, Layer, Random } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import * as MemoryBackend from "./layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "./layers/memory/MemoryFaults.ts"
import * as MemorySandboxStore from "./layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "./layers/memory/MemoryWorld.ts"
import * as InProcess from "./rpc/InProcess.ts"
import type { OnClose } from "./services/Reconciler.ts"
import type { Sandboxes } from "./services/Sandboxes.ts"
import type { SandboxStore } from "./services/SandboxStore.ts"
import { selfContained } from "./services/selfContained.ts"

export type { MemoryOptions as Options } from "./layers/memory/MemoryBackend.ts"
export type { CommandContext, MemoryCommand as Command } from "./layers/memory/UserCommand.ts"
export { MemoryFaults, MemoryWorld }

/** Bytes from Effect's own random, so that a seeded program makes the same ids again. Not secret, and nothing here is. */
const seededRandom = Layer.effect(
  SecureRandom.SecureRandom,
  Effect.map(Random.Random, (random) =>
    SecureRandom.make((size) =>
      Uint8Array.from({ length: size }, () => Math.floor(random.nextDoubleUnsafe() * 256))
    )
  )
)

const ids = Layer.merge(seededRandom, Digest.layerWebCrypto)

/** `Sandboxes` in memory, and the handle that injects faults. Everything ends with the layer. */
export const layer = (
  options: MemoryBackend.MemoryOptions = {}
): Layer.Layer<Sandboxes | MemoryFaults | MemoryWorld> =>
  selfContained(
    layerOn({ ...options, onClose: "kill" }).pipe(
      Layer.provideMerge(MemoryWorld.layer),
      Layer.provide(MemorySandboxStore.layer)
    )
  )

/**
 * `Sandboxes` over a world and a store that are given and may outlive it: a
 * second layer on the same two is a service that was started again.
 */
export const layerOn = (
  options: MemoryBackend.MemoryOptions & { readonly onClose?: OnClose } = {}
): Layer.Layer<Sandboxes | MemoryFaults, never, MemoryWorld | SandboxStore> =>
  selfContained(
    InProcess.layer({ onClose: options.onClose ?? "leave" }).pipe(
      Layer.provideMerge(MemoryBackend.layerOn(options)),
      Layer.provide(ids),
      Layer.orDie
    )
  )

export * as Memory from "./memory.ts"
