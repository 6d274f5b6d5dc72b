/**
 * The memory backend keeps the contract: in this process, and over a real connection.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Capability } from "../../src/domain/Capability.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import { Memory } from "../../src/memory.ts"
import { Backend } from "../../src/services/Backend.ts"
import { memory, served } from "../rpc/support.ts"
import { conformance } from "./register.ts"

const missing: ReadonlyArray<Capability> = ["snapshot", "network-allow", "network-full"]
const capabilities = Capability.literals.filter((one) => !missing.includes(one))

describe("a sandbox in memory", () => {
  it.live("is of a backend that declares what it is held to", () =>
    Effect.gen(function* () {
      assert.sameMembers([...(yield* Backend).capabilities], capabilities)
    }).pipe(Effect.provide(MemoryBackend.layer()))
  )

  conformance("in this process", Memory.layer(), capabilities)

  for (const transport of ["websocket", "http"] as const) {
    conformance(`over ${transport}`, served(memory, { transport }), capabilities)
  }
})
