/**
 * Runs the real command line as a child process, and looks for what it left.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import { Effect, Option, Schedule, type Scope } from "effect"

/** The command. */
export const bin = fileURLToPath(new URL("../../bin/fiberbox.js", import.meta.url))

export { canRunContainers } from "../canRunContainers.ts"

/** A base directory of its own for a test's instances, removed with the scope. */
export const baseDirectory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "fiberbox-cli-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

export interface Options {
  readonly stdin?: string | Uint8Array
  /** Leave standard input open. */
  readonly open?: boolean
  readonly env?: Readonly<Record<string, string>>
  /** Where its instances live. */
  readonly baseDir?: string
}

export interface Ended {
  /** The exit code, or 128 plus the number of the signal that ended it. */
  readonly code: number
  readonly stdout: Buffer
  readonly out: string
  readonly err: string
}

export interface Running {
  readonly pid: number
  readonly stdin: Writable
  /** Waits until what it has written to its standard output contains a text. */
  readonly shows: (text: string | RegExp) => Effect.Effect<string>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Reads nothing more of its standard output until it has ended. */
  readonly stopReading: Effect.Effect<void>
  /** Closes the pipe that its standard output goes to. */
  readonly hangUp: Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

const polling = Schedule.spaced("5 millis")

/** Waits until something holds; the test's own time limit is the bound. */
export const eventually = <A>(look: () => A | undefined): Effect.Effect<A> =>
  Effect.suspend(() => {
    const seen = look()
    return seen === undefined ? Effect.fail("not yet") : Effect.succeed(seen)
  }).pipe(Effect.retry(polling), Effect.orDie)

const collect = (stream: Readable | null): Array<Buffer> => {
  const chunks: Array<Buffer> = []
  stream?.on("data", (chunk: Buffer) => chunks.push(chunk))
  return chunks
}

const watch = (child: ChildProcess): Running => {
  const out = collect(child.stdout)
  const err = collect(child.stderr)
  let closed: { readonly code: number | null; readonly signal: NodeJS.Signals | null } | undefined
  child.on("close", (code, signal) => {
    closed = { code, signal }
  })
  const ended = eventually(() => closed).pipe(
    Effect.map(({ code, signal }): Ended => {
      const stdout = Buffer.concat(out)
      return {
        code: code ?? (signal === "SIGINT" ? 130 : signal === "SIGTERM" ? 143 : 128),
        stdout,
        out: stdout.toString(),
        err: Buffer.concat(err).toString()
      }
    })
  )
  const contains = (text: string | RegExp) => () => {
    const shown = Buffer.concat(out).toString()
    if (typeof text === "string" ? shown.includes(text) : text.test(shown)) return shown
    if (closed !== undefined) throw new Error(`it ended without ${text}:\n${shown}${Buffer.concat(err)}`)
    return undefined
  }
  if (child.pid === undefined || child.stdin === null) throw new Error("the command line did not start")
  return {
    pid: child.pid,
    stdin: child.stdin,
    shows: (text) => eventually(contains(text)),
    signal: (signal) => Effect.sync(() => void child.kill(signal)),
    stopReading: Effect.sync(() => {
      child.stdout?.pause()
      child.once("exit", () => child.stdout?.resume())
    }),
    hangUp: Effect.sync(() => void child.stdout?.destroy()),
    ended
  }
}

const environment = (options: Options): NodeJS.ProcessEnv => ({
  ...process.env,
  NODE_OPTIONS: "",
  ...(options.baseDir === undefined ? {} : { FIBERBOX_BASE_DIR: options.baseDir }),
  ...options.env
})

const killAtEnd = (child: ChildProcess) =>
  Effect.sync(() => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL")
  })

/** Starts `fiberbox` with these arguments; it is killed with the scope if it still runs. */
export const start = (
  args: ReadonlyArray<string>,
  options: Options = {}
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [bin, ...args], { env: environment(options) })),
    killAtEnd
  ).pipe(
    Effect.map((child) => {
      child.stdin.on("error", () => {})
      if (options.open !== true) child.stdin.end(options.stdin)
      return watch(child)
    })
  )

/** Runs `fiberbox` with these arguments to its end. */
export const fiberbox = (args: ReadonlyArray<string>, options: Options = {}): Effect.Effect<Ended> =>
  Effect.scoped(Effect.flatMap(start(args, options), (running) => running.ended))

/** A terminal with `fiberbox` on it. */
export interface OnTerminal extends Running {
  readonly type: (keys: string) => Effect.Effect<void>
  readonly resize: (rows: number, cols: number) => Effect.Effect<void>
  /** Sends SIGTERM to the program on the terminal. */
  readonly terminate: Effect.Effect<void>
  /** Which modes the terminal was left in. */
  readonly modes: Effect.Effect<string>
}

let compiled: string | undefined

const terminalProgram = (): string => {
  if (compiled === undefined) {
    const directory = mkdtempSync(join(tmpdir(), "fiberbox-terminal-"))
    process.once("exit", () => rmSync(directory, { recursive: true, force: true }))
    compiled = join(directory, "terminal")
    const source = fileURLToPath(new URL("./terminal.c", import.meta.url))
    execFileSync("cc", ["-O1", "-o", compiled, source, "-lutil"])
  }
  return compiled
}

/** Starts `fiberbox` with these arguments on a terminal of 24 rows and 80 columns. */
export const startOnTerminal = (
  args: ReadonlyArray<string>,
  options: Options = {}
): Effect.Effect<OnTerminal, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(terminalProgram(), ["24", "80", process.execPath, bin, ...args], {
        env: { ...environment(options), TERM: "xterm-256color" },
        stdio: ["pipe", "pipe", "pipe", "pipe", "pipe"]
      })
    ),
    killAtEnd
  ).pipe(
    Effect.map((child) => {
      const running = watch(child)
      const [, , , control, modes] = child.stdio
      if (!(control !== null && control !== undefined && "write" in control)) throw new Error("no control")
      if (!(modes !== null && modes !== undefined && "read" in modes)) throw new Error("no modes")
      const left = collect(modes)
      return {
        ...running,
        type: (keys) => Effect.sync(() => void running.stdin.write(keys)),
        resize: (rows, cols) => Effect.sync(() => void control.write(`${rows} ${cols}\n`)),
        terminate: Effect.sync(() => {
          for (const pid of childrenOf(running.pid)) process.kill(pid, "SIGTERM")
        }),
        modes: Effect.map(running.ended, () => Buffer.concat(left).toString().trim())
      }
    })
  )

const childrenOf = (pid: number): ReadonlyArray<number> =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number)

const entries = (path: string): ReadonlyArray<string> => {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** The id of the one instance below a base directory, once it is there. */
export const instanceIn = (baseDir: string): Effect.Effect<string> =>
  eventually(() => entries(join(baseDir, "ephemeral")).find((name) => /^[a-z2-7]{10}$/.test(name)))

const groupsOf = (id: string): ReadonlyArray<string> =>
  ["/sys/fs/cgroup", ...entries("/sys/fs/cgroup").map((name) => `/sys/fs/cgroup/${name}`)]
    .flatMap((root) => entries(root).map((name) => join(root, name)))
    .filter((path) => path.includes(id))

const processesWith = (...marks: ReadonlyArray<string>): ReadonlyArray<string> =>
  entries("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) =>
      Option.toArray(
        Option.liftThrowable(() => readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "))()
      )
    )
    .filter((commandLine) => marks.some((mark) => commandLine.includes(mark)))

const loopDisks = (baseDir: string): ReadonlyArray<string> =>
  entries("/sys/block").filter((name) =>
    Option.getOrElse(
      Option.map(
        Option.liftThrowable(() => readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8"))(),
        (file) => file.includes(baseDir)
      ),
      () => false
    )
  )

/**
 * Everything of an instance that is still on this machine: processes (also
 * those whose command line bears `mark`), mounts, control groups, loop disks, and
 * its directory with the sockets in it.
 */
export const leftOf = (baseDir: string, id: string, mark: string): ReadonlyArray<string> => [
  ...processesWith(baseDir, id, mark).map((line) => `process ${line}`),
  ...readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(baseDir) || line.includes(id))
    .map((line) => `mount ${line}`),
  ...groupsOf(id).map((path) => `control group ${path}`),
  ...loopDisks(baseDir).map((name) => `loop disk ${name}`),
  ...entries(join(baseDir, "ephemeral")).map((name) => `directory ${name}`)
]
