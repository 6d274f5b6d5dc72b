/**
 * Services as programs of their own, for tests to start, end and kill.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { Effect, Schedule } from "effect"
import { find } from "../../src/service.ts"

const program = fileURLToPath(new URL("serve.ts", import.meta.url))

/** A service that was started. */
export interface Running {
  readonly child: ChildProcess
  /** What it wrote to its log so far. */
  readonly log: () => string
  /** Its exit code, or the signal that ended it. */
  readonly ended: Effect.Effect<number | string>
}

/** Starts a service, by a command before its own if one is given; it is killed with the scope if it still runs then. */
export const launch = (env: Readonly<Record<string, string>>, command: ReadonlyArray<string> = []) =>
  Effect.acquireRelease(
    Effect.sync((): Running => {
      const [file = process.execPath, ...args] = [...command, process.execPath, program]
      const child = spawn(file, args, {
        env: { PATH: process.env["PATH"], FIBERBOX_PORT: "0", ...env },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let log = ""
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding("utf8").on("data", (text: string) => {
          log += text
        })
      const exit = new Promise<number | string>((resolve) => {
        child.once("close", (code, signal) => resolve(code ?? signal ?? ""))
      })
      return { child, log: () => log, ended: Effect.promise(() => exit) }
    }),
    ({ child, ended }) =>
      Effect.andThen(
        Effect.sync(() => child.kill("SIGKILL")),
        ended
      )
  )

/** Waits until a service of this place has announced itself. */
export const found = (baseDir: string, { child, log }: Running) =>
  find(baseDir).pipe(
    Effect.provide(NodeServices.layer),
    Effect.flatMap((found) =>
      child.exitCode === null
        ? Effect.fromNullishOr(found)
        : Effect.die(new Error(`the service ended: ${log()}`))
    ),
    Effect.retry(Schedule.spaced("20 millis"))
  )

/** Sends a signal and waits for the end. */
export const end = ({ child, ended }: Running, signal: NodeJS.Signals) =>
  Effect.andThen(
    Effect.sync(() => child.kill(signal)),
    ended
  )
