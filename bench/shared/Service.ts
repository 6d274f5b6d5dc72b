/** fiberbox as a service: the program `fiberbox serve`, and clients of it. */
import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath, pathToFileURL } from "node:url"
import { Context, Effect, Layer, Result, Schema } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import type { Settings } from "./Measurement.ts"
import { ProgramFailed } from "./Program.ts"
import { baseDirOf } from "./Sandboxing.ts"

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const teller = pathToFileURL(file("memoryTeller.js")).href
const command = [
  process.execPath,
  "--import",
  teller,
  file("../../bin/fiberbox.js"),
  "serve",
  "--json"
] as const

const Ready = Schema.fromJsonString(
  Schema.Struct({ event: Schema.Literal("ready"), url: Schema.String, tokenFile: Schema.String })
)
const readyOf = Schema.decodeUnknownResult(Ready)

/** In bytes, after the garbage was collected. */
const MemoryUse = Schema.Struct({ external: Schema.Finite, heapUsed: Schema.Finite, rss: Schema.Finite })
const decodeMemory = Schema.decodeUnknownEffect(MemoryUse)

const failure = (reason: string) => new ProgramFailed({ command: command.join(" "), reason })

/** What a service needs to be reached. */
export interface Address {
  readonly url: string
  readonly token: string
}

/** A service that runs. */
export interface Service extends Address {
  /** What memory it has, in bytes. */
  readonly memory: Effect.Effect<typeof MemoryUse.Type, ProgramFailed>
  /** Kills it, so that it can do nothing about its end. */
  readonly crash: Effect.Effect<void>
}

const isOver = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

/** More than ending hundreds of sandboxes takes on a busy machine. */
const endMillis = 60_000

const end = (child: ChildProcess, signal: "SIGTERM" | "SIGKILL"): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (isOver(child) || child.pid === undefined) return resume(Effect.void)
    const patience = setTimeout(() => child.kill("SIGKILL"), endMillis)
    child.once("exit", () => {
      clearTimeout(patience)
      resume(Effect.void)
    })
    child.kill(signal)
  })

/** Until it says that it is ready, and where. */
const ready = (child: ChildProcess): Effect.Effect<typeof Ready.Type, ProgramFailed> =>
  Effect.callback((resume) => {
    let stdout = ""
    child.stdout?.on("data", (data: Buffer) => {
      stdout += data.toString()
      if (!stdout.includes("\n")) return
      const said = readyOf(stdout)
      resume(Result.isSuccess(said) ? Effect.succeed(said.success) : Effect.fail(failure(`said ${stdout}`)))
    })
    child.once("error", (error) => resume(Effect.fail(failure(error.message))))
    child.once("close", (code, signal) =>
      resume(Effect.fail(failure(`ended with ${code ?? signal}: ${stdout}`)))
    )
  })

const memoryOf = (child: ChildProcess): Effect.Effect<typeof MemoryUse.Type, ProgramFailed> =>
  Effect.callback<unknown, ProgramFailed>((resume) => {
    child.once("message", (message) => resume(Effect.succeed(message)))
    child.send("memory", (error) => {
      if (error !== null) resume(Effect.fail(failure(error.message)))
    })
  }).pipe(
    Effect.flatMap(decodeMemory),
    Effect.mapError((error) => failure(error.message))
  )

/**
 * A service of containers for as long as the scope lives: all of its sandboxes
 * end with it, unless it crashes. A persistent one then takes over what the last
 * one left.
 */
export const serve = Effect.fnUntraced(function* (
  settings: Settings,
  { persistent = false }: { readonly persistent?: boolean } = {}
) {
  const [program, ...args] = command
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(program, args, {
        stdio: ["ignore", "pipe", "inherit", "ipc"],
        env: {
          ...process.env,
          FIBERBOX_BASE_DIR: baseDirOf(settings),
          FIBERBOX_STATE_DIR: `${settings.directory}/state`,
          FIBERBOX_EPHEMERAL: String(!persistent),
          FIBERBOX_ON_CLOSE: "kill",
          FIBERBOX_PORT: "0",
          FIBERBOX_LOG: "none"
        }
      })
    ),
    (child) => end(child, "SIGTERM")
  )
  const { url, tokenFile } = yield* ready(child)
  const service: Service = {
    url,
    token: readFileSync(tokenFile, "utf8").trim(),
    memory: memoryOf(child),
    crash: end(child, "SIGKILL")
  }
  return service
})

/** A client of a service, with a connection of its own. */
export const connect = (
  { url, token }: Address,
  transport: NonNullable<SandboxesClient.Options["transport"]> = "websocket"
) =>
  Effect.map(Layer.build(SandboxesClient.layer({ url, token, transport })), (context) =>
    Context.get(context, Sandboxes)
  )
