/**
 * A service of containers as a program of its own, whose memory can be watched, and its clients.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { aliceToken } from "../rpc/support.ts"

/** Starts a service that ends with the scope. */
export const startService = Effect.gen(function* () {
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
  /** A connection of its own. */
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
