/**
 * A service under load: what one caller does not read costs little memory, and
 * many callers all get on. `FIBERBOX_FULL_LOAD=1` makes it 1 GB and 200 clients.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRunContainers } from "../canRunContainers.ts"
import { aliceToken } from "../rpc/support.ts"

const isFull = process.env["FIBERBOX_FULL_LOAD"] === "1"
const start = Effect.gen(function* () {
  const baseDir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "fb-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const script = join(import.meta.dirname, "../rpc/service.ts")
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [script, baseDir], { stdio: ["ignore", "pipe", "inherit"] })),
    (child) =>
      Effect.promise(async () => {
        child.kill("SIGTERM")
        if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
      })
  )
  const [said] = yield* Effect.promise(() => once(child.stdout, "data"))
  const url = String(said).trim()
  const client = Effect.map(Layer.build(SandboxesClient.layer({ url, token: aliceToken })), (context) =>
    Context.get(context, Sandboxes)
  )
  /** The service's resident memory in bytes (proc_pid_status(5)). */
  const resident = () => {
    const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]
    return Number(line) * 1024
  }
  return { client, resident }
})

describe.runIf(canRunContainers)("a service under load", () => {
  it.live(
    "keeps its memory flat while a slow client reads much",
    () =>
      Effect.gen(function* () {
        const { client, resident } = yield* start
        const sandbox = yield* (yield* client).create()
        const bytes = isFull ? 1_000_000_000 : 120_000_000
        const perSecond = isFull ? 60_000_000 : 30_000_000
        let count = 0
        let before = 0
        let most = 0
        const began = performance.now()
        const events = sandbox.process.stream(["head", "-c", String(bytes), "/dev/zero"], {
          maxOutputBytes: "none",
          timeoutMillis: "none"
        })
        yield* Stream.runForEach(events, (event) =>
          Effect.suspend(() => {
            if (event._tag !== "Output") return Effect.void
            count += event.data.byteLength
            // What a first few megabytes need is there by then.
            if (count > bytes / 10 && before === 0) before = resident()
            most = Math.max(most, resident())
            return Effect.sleep(Math.max(0, (count / perSecond) * 1000 - (performance.now() - began)))
          })
        )
        assert.strictEqual(count, bytes)
        assert.isBelow(most - before, 64 * 1024 * 1024)
      }).pipe(Effect.scoped),
    120_000
  )

  it.live(
    "lets many clients with five streams each all get on",
    () =>
      Effect.gen(function* () {
        const { client } = yield* start
        const clients = isFull ? 200 : 30
        const bytes = 300_000
        const own = yield* client
        const sandboxes = yield* Effect.forEach(Array.from({ length: clients / 10 }), () =>
          own.create({ limits: { pids: 1024, cpus: 2 } })
        )
        const seen = yield* Effect.forEach(
          Array.from({ length: clients }, (_, index) => sandboxes[index % sandboxes.length]?.id ?? ""),
          (id) =>
            Effect.scoped(
              Effect.gen(function* () {
                const same = yield* (yield* client).connect(id)
                const argv = ["head", "-c", String(bytes), "/dev/zero"] as const
                const one = same.process.run(argv, { timeoutMillis: "none" })
                return yield* Effect.all([one, one, one, one, one], { concurrency: "unbounded" })
              })
            ),
          { concurrency: "unbounded" }
        )
        const lengths = seen.flatMap((results) => results.map(({ stdout }) => stdout.length))
        assert.strictEqual(lengths.length, clients * 5)
        assert.isTrue(lengths.every((length) => length === bytes))
      }).pipe(Effect.scoped),
    120_000
  )
})
