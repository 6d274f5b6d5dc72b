/**
 * The suite is worth what it refuses: backends with one thing wrong must fail
 * it, and just there.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { Capability } from "../../src/domain/Capability.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import { Conformance } from "../../src/testing.ts"

/** `Sandboxes` in memory over a backend that was tampered with. */
const tampered = (tamper: (backend: Backend["Service"]) => Backend["Service"]) =>
  InProcess.layer({ onClose: "kill" }).pipe(
    Layer.provide(Layer.effect(Backend, Effect.map(Backend, tamper))),
    Layer.provide([MemoryBackend.layer(), MemorySandboxStore.layer]),
    Layer.provide([SecureRandom.layerWebCrypto, Digest.layerWebCrypto])
  )

const onMachines = (tamper: (machine: Machine) => Machine) =>
  tampered((backend) => ({
    ...backend,
    provision: (request) => Effect.map(backend.provision(request), tamper),
    adopt: (request) => Effect.map(backend.adopt(request), tamper)
  }))

/** The promises of some areas that a layer breaks. */
const broken = Effect.fnUntraced(function* (
  layer: ReturnType<typeof tampered>,
  ...areas: ReadonlyArray<Conformance.Area>
) {
  const missing: ReadonlyArray<Capability> = ["snapshot", "network-allow", "network-full"]
  const cases = Conformance.cases({
    capabilities: Capability.literals.filter((one) => !missing.includes(one))
  })
  const failed = yield* Effect.filter(
    cases.filter(({ area }) => areas.includes(area)),
    ({ run }) => Effect.map(Effect.exit(run), Exit.isFailure)
  ).pipe(Effect.provide(layer), Effect.provide(Logger.layer([])))
  return failed.map(({ name }) => name)
})

describe("the suite", () => {
  it.live("finds a backend that keeps the old content of a file", () =>
    Effect.gen(function* () {
      const flawed = onMachines((machine) => ({
        ...machine,
        files: {
          ...machine.files,
          write: (path, data, options) =>
            Effect.matchEffect(machine.files.stat(path, "user"), {
              onSuccess: () => Effect.void,
              onFailure: () => machine.files.write(path, data, options)
            })
        }
      }))
      const names = yield* broken(flawed, "files", "directories")
      assert.include(names, "a write replaces the file whole; who had it open keeps the old one")
      assert.notInclude(names, "text is UTF-8")
    })
  )

  it.live("finds a backend that kills a program and leaves its children", () =>
    Effect.gen(function* () {
      const flawed = onMachines((machine) => ({
        ...machine,
        processes: {
          ...machine.processes,
          kill: (processId) => machine.processes.signal(processId, "SIGKILL")
        }
      }))
      const names = yield* broken(flawed, "trees")
      assert.include(names, "killing a program leaves none of its processes")
      assert.notInclude(names, "killing one program leaves the others")
    })
  )

  it.live("finds a backend that ignores what it cannot enforce", () =>
    Effect.gen(function* () {
      const flawed = tampered((backend) => ({
        ...backend,
        validate: () => Effect.void,
        provision: (request) =>
          backend.provision({ ...request, spec: { ...request.spec, network: "none", image: "host" } })
      }))
      assert.sameMembers(yield* broken(flawed, "refusals"), [
        "a limit above what the machine has is refused",
        "an image that does not exist is not found",
        "what cannot be enforced is refused, not ignored: network-allow",
        "what cannot be enforced is refused, not ignored: network-full"
      ])
    })
  )

  it.live("finds a backend whose pause does nothing but say so", () =>
    Effect.gen(function* () {
      const flawed = onMachines((machine) => ({ ...machine, pause: Effect.void, resume: Effect.void }))
      assert.deepStrictEqual(yield* broken(flawed, "lifecycle"), ["no program goes on while paused"])
    })
  )
})
