/**
 * A service of the real command line, shared by the tests of one file, and the
 * command line as somebody uses it who has that service on this machine.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer, Schema } from "effect"
import { type Ended, fiberbox, type Options, start } from "./support.ts"

const Ready = Schema.fromJsonString(
  Schema.Struct({
    event: Schema.Literal("ready"),
    url: Schema.String,
    stateDir: Schema.String,
    tokenFile: Schema.String
  })
)

/** Starts a service, and waits until it says that it is ready; it is ended with the scope. */
export const serve = Effect.fnUntraced(function* (args: ReadonlyArray<string>, options: Options = {}) {
  const env = { FIBERBOX_LOG: "none", ...options.env }
  const running = yield* start(["serve", "--json", "--port", "0", ...args], { ...options, env })
  yield* Effect.addFinalizer(() => Effect.andThen(running.signal("SIGTERM"), running.ended))
  const line = yield* running.shows("\n")
  return { running, ...(yield* Schema.decodeEffect(Ready)(line.trim())) }
})

/** Directories of a test's own, removed with the scope. */
export const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "fiberbox-cli-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** The shared service. */
export class Served extends Context.Service<
  Served,
  {
    readonly url: string
    readonly token: string
    readonly baseDir: string
    /** A directory for the tests' files. */
    readonly directory: string
    /** Runs a command to its end. */
    readonly run: (args: ReadonlyArray<string>, options?: Options) => Effect.Effect<Ended>
    /** Starts a command. */
    readonly start: (args: ReadonlyArray<string>, options?: Options) => ReturnType<typeof start>
  }
>()("test/cli/Served") {
  static readonly layer = (backend: "container" | "memory"): Layer.Layer<Served> =>
    Layer.effect(
      Served,
      Effect.gen(function* () {
        const baseDir = yield* temporary
        const { tokenFile, url } = yield* serve(["--backend", backend, "--ephemeral"], { baseDir })
        return {
          url,
          token: readFileSync(tokenFile, "utf8").trim(),
          baseDir,
          directory: yield* temporary,
          run: (args: ReadonlyArray<string>, options: Options = {}) =>
            fiberbox(args, { baseDir, ...options }),
          start: (args: ReadonlyArray<string>, options: Options = {}) => start(args, { baseDir, ...options })
        }
      }).pipe(Effect.orDie)
    )
}

/** Runs a command that must succeed, and gives what it wrote without the last newline. */
export const ok = (args: ReadonlyArray<string>, options?: Options) =>
  Effect.gen(function* () {
    const { run } = yield* Served
    const { code, err, out } = yield* run(args, options)
    if (code !== 0) throw new Error(`fiberbox ${args.join(" ")} exited with ${code}: ${err}${out}`)
    return out.replace(/\n$/, "")
  })

/** The documents that a command with `--json` wrote, one a line. */
export const documents = (out: string): ReadonlyArray<unknown> =>
  out
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line))

/** Somebody's name for a sandbox that nobody else has. */
let names = 0
export const newName = (): string => `s${process.pid}-${++names}`
