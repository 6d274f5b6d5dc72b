/**
 * Containers keep the contract: in this process, and over a real connection.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Container } from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import { canRunContainers } from "../canRunContainers.ts"
import { served } from "../rpc/support.ts"
import { conformance } from "./register.ts"

const capabilities = [
  "pause",
  "stop",
  "adopt",
  "pty",
  "watch",
  "dial",
  "metrics",
  "limit-memory",
  "limit-cpus",
  "limit-pids",
  "limit-disk",
  "limit-inodes",
  "network-none"
] as const

/** A base directory of its own, short as unix socket addresses are, that goes with the layer. */
const temporary = <A, E, R>(layer: (baseDir: string) => Layer.Layer<A, E, R>) =>
  Layer.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "fb-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      ),
      layer
    )
  )

describe.runIf(canRunContainers)("a container", () => {
  it.live("is of a backend that declares what it is held to", () =>
    Effect.gen(function* () {
      assert.sameMembers([...(yield* Backend).capabilities], [...capabilities])
    }).pipe(Effect.provide(temporary((baseDir) => Container.parts({ baseDir }))))
  )

  conformance(
    "in this process",
    temporary((baseDir) => Container.layer({ baseDir })),
    capabilities
  )

  for (const transport of ["websocket", "http"] as const) {
    conformance(
      `over ${transport}`,
      served(
        temporary((baseDir) =>
          InProcess.client.pipe(
            Layer.provide(InProcess.actors({ onClose: "kill" })),
            Layer.provide(Container.parts({ baseDir }))
          )
        ),
        { transport }
      ),
      capabilities
    )
  }
})
