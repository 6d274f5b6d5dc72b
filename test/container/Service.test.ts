/**
 * A service of containers and its clients, with real programs and much output.
 */
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Container } from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRunContainers } from "../canRunContainers.ts"
import { makeProxy } from "../rpc/proxy.ts"
import { aliceToken, onlyAlice, serving } from "../rpc/support.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "fb-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const start = Effect.gen(function* () {
  const baseDir = yield* temporary
  const service = InProcess.client.pipe(
    Layer.provide(InProcess.actors({ onClose: "kill" })),
    Layer.provide(Container.parts({ baseDir }))
  )
  const context = yield* Layer.build(serving().pipe(Layer.provide(Layer.merge(service, onlyAlice))))
  const { url } = Context.get(context, Server.ServerAddress)
  const reach = (url: string, options: Partial<SandboxesClient.Options> = {}) =>
    Effect.map(Layer.build(SandboxesClient.layer({ url, token: aliceToken, ...options })), (context) =>
      Context.get(context, Sandboxes)
    )
  return { url, reach }
})

describe.runIf(canRunContainers)("a service of containers", () => {
  for (const transport of ["websocket", "http"] as const) {
    it.live(
      `resumes a stream of 200 MB over ${transport} that is cut again and again, byte for byte`,
      () =>
        Effect.gen(function* () {
          const { url, reach } = yield* start
          const proxy = yield* makeProxy(url)
          const sandbox = yield* (yield* reach(proxy.url, { transport })).create()
          const bytes = 200_000_000
          const program = `i=0; while [ $i -lt 20 ]; do seq 1 1389000; i=$((i+1)); done | head -c ${bytes}`
          const direct = yield* (yield* reach(url)).connect(sandbox.id)
          const { stdout } = yield* direct.commands.run(`${program} | sha256sum`)
          yield* proxy.cutEvery(31_000_000)
          const hash = createHash("sha256")
          let count = 0
          const options = { maxOutputBytes: "none", timeoutMillis: "none" } as const
          yield* Stream.runForEach(sandbox.commands.stream(program, options), (event) =>
            Effect.sync(() => {
              if (event._tag === "Truncated") assert.fail(`${event.from} to ${event.to} is missing`)
              if (event._tag !== "Output") return
              assert.strictEqual(event.cursor, count)
              count += event.data.byteLength
              hash.update(event.data)
            })
          )
          assert.strictEqual(count, bytes)
          assert.strictEqual(`${hash.digest("hex")}  -\n`, stdout)
          assert.isAtLeast(proxy.counts().cut, 5)
          yield* proxy.cutEvery(0)
        }).pipe(Effect.scoped),
      120_000
    )
  }

  it.live(
    "ends what a client held that was killed, once its lease has lapsed",
    () =>
      Effect.gen(function* () {
        const { url, reach } = yield* start
        const sandboxes = yield* reach(url)
        const child = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const script = join(import.meta.dirname, "../rpc/client.ts")
            return spawn(process.execPath, [script, url, aliceToken], {
              stdio: ["ignore", "pipe", "inherit"]
            })
          }),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        const said = yield* Effect.promise(
          () =>
            new Promise<string>((done) => child.stdout.once("data", (data: Buffer) => done(data.toString())))
        )
        const { scoped, kept }: { readonly scoped: string; readonly kept: string } = JSON.parse(said)
        child.kill("SIGKILL")
        const gone = yield* sandboxes.connect(scoped)
        yield* gone.events().pipe(
          Stream.takeUntil((event) => event.body._tag === "StatusChanged" && event.body.to === "killed"),
          Stream.runDrain
        )
        const other = yield* sandboxes.connect(kept)
        const ended = yield* Effect.repeat(other.process.list, {
          until: (list) => list.every((one) => one.exit !== undefined)
        })
        assert.strictEqual(ended.length, 1)
        assert.strictEqual((yield* other.info).status, "running")
      }).pipe(Effect.scoped),
    60_000
  )
})
