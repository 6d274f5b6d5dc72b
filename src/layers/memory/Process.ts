/**
 * One process inside an in-memory machine, and the system calls its program
 * makes. Every call waits while the process is stopped or its machine paused, so
 * that a frozen program makes no progress.
 */
import { Clock, Context, Duration, Effect, type Fiber } from "effect"
import type { ExitStatus, Signal } from "../../domain/Process.ts"
import type { Execution } from "./Execution.ts"
import { encode } from "./Inode.ts"
import type { Kernel } from "./Kernel.ts"
import type { OpenFile, WriteFailure } from "./OpenFile.ts"
import { Wakeup, waitFor } from "./Wakeup.ts"

/** What a program is: it gets its arguments, its own name first, and ends with an exit code. */
export type Program = (process: Process, argv: ReadonlyArray<string>) => Effect.Effect<number>

/** What a process does about a signal it does not leave to the default: nothing, or something of its own. */
export type Disposition = "ignore" | (() => void)

/** How a process comes about. */
export interface ProcessOptions {
  readonly kernel: Kernel
  readonly execution: Execution
  readonly pid: number
  readonly parent: Process | undefined
  readonly argv: ReadonlyArray<string>
  readonly env: ReadonlyMap<string, string>
  readonly cwd: string
  readonly uid: number
  readonly files: ReadonlyMap<number, OpenFile>
}

const nothing = new Uint8Array(0)

/** The most bytes one read gives. */
const readBytes = 64 * 1024

export class Process {
  readonly kernel: Kernel
  readonly execution: Execution
  readonly pid: number
  /** The parent's number; 1 once the parent is gone. */
  parentPid: number
  parent: Process | undefined
  group: number
  session: number
  argv: ReadonlyArray<string>
  env: Map<string, string>
  cwd: string
  readonly uid: number
  readonly files = new Map<number, OpenFile>()
  readonly children = new Set<Process>()
  readonly dispositions = new Map<Signal, Disposition>()
  /** Signals that wait until it is continued. */
  readonly pending: Array<Signal> = []
  stopped = false
  status: ExitStatus | undefined = undefined
  /** Bytes it has asked for. */
  memory = 0
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** Changes when a child ends, or a signal was handled. */
  readonly changed: Wakeup

  constructor(options: ProcessOptions) {
    this.kernel = options.kernel
    this.execution = options.execution
    this.pid = options.pid
    this.parent = options.parent
    this.parentPid = options.parent?.pid ?? 1
    this.group = options.parent?.group ?? options.pid
    this.session = options.parent?.session ?? options.pid
    this.argv = options.argv
    this.env = new Map(options.env)
    this.cwd = options.cwd
    this.uid = options.uid
    this.changed = new Wakeup(options.kernel.schedule)
    for (const [fd, file] of options.files) this.setFile(fd, file)
    if (options.parent !== undefined) {
      for (const [signal, disposition] of options.parent.dispositions) {
        if (disposition === "ignore") this.dispositions.set(signal, disposition)
      }
    }
  }

  /** What other processes call it. */
  get name(): string {
    const program = this.argv[0] ?? ""
    return program.slice(program.lastIndexOf("/") + 1)
  }

  // --- descriptors ----------------------------------------------------------

  /** Makes a descriptor refer to a file, closing what it referred to. */
  setFile(fd: number, file: OpenFile): void {
    file.refs++
    this.closeFile(fd)
    this.files.set(fd, file)
  }

  closeFile(fd: number): void {
    const file = this.files.get(fd)
    if (file === undefined) return
    this.files.delete(fd)
    file.refs--
    if (file.refs === 0) file.close()
  }

  closeAll(): void {
    for (const fd of [...this.files.keys()]) this.closeFile(fd)
  }

  // --- system calls ---------------------------------------------------------

  /** Passes at once unless the process is stopped or its machine paused. */
  readonly gate: Effect.Effect<void> = Effect.suspend(() =>
    this.frozen
      ? Effect.asVoid(waitFor(this.kernel.thawed, () => (this.frozen ? undefined : true)))
      : Effect.void
  )

  private get frozen(): boolean {
    return this.stopped || this.kernel.paused || this.status !== undefined
  }

  /** The next bytes; none at the end. */
  read(fd: number, max: number = readBytes): Effect.Effect<Uint8Array> {
    return Effect.suspend(() => {
      this.kernel.worked()
      if (this.frozen) return Effect.flatMap(this.gate, () => this.read(fd, max))
      const file = this.files.get(fd)
      if (file === undefined) return Effect.succeed(nothing)
      const version = file.readable.version
      const data = file.read(max)
      return data !== undefined
        ? Effect.succeed(data)
        : Effect.flatMap(file.readable.since(version), () => this.read(fd, max))
    })
  }

  /** Writes all, waiting for room. A broken pipe ends the process, unless it ignores that. */
  write(fd: number, data: Uint8Array): Effect.Effect<WriteFailure | undefined> {
    return Effect.suspend(() => {
      this.kernel.worked()
      if (this.frozen) return Effect.flatMap(this.gate, () => this.write(fd, data))
      const file = this.files.get(fd)
      if (file === undefined) return Effect.succeed<WriteFailure>("bad-descriptor")
      if (data.length === 0) return Effect.undefined
      const version = file.writable.version
      const taken = file.write(data)
      if (taken === "broken-pipe" && !this.ignoresBrokenPipes) {
        this.kernel.end(this, { _tag: "Signaled", signal: "SIGPIPE", number: 13 })
        return Effect.never
      }
      if (typeof taken !== "number") return Effect.succeed(taken)
      if (taken === data.length) return Effect.undefined
      const rest = data.subarray(taken)
      return taken > 0
        ? this.write(fd, rest)
        : Effect.flatMap(file.writable.since(version), () => this.write(fd, rest))
    })
  }

  /** Whether writing to a pipe without readers is a failure instead of the end. */
  ignoresBrokenPipes = false

  /** What comes before a program's messages while a shell runs it itself. */
  shellPrefix = ""

  /** Writes text to standard output. */
  out(text: string): Effect.Effect<WriteFailure | undefined> {
    return this.write(1, encode(text))
  }

  /** Writes text to standard error. */
  err(text: string): Effect.Effect<WriteFailure | undefined> {
    return this.write(2, encode(text))
  }

  /** Waits by the machine's clock. As on Linux, time passes while frozen, but the process goes on only afterwards. */
  sleep(millis: number): Effect.Effect<void> {
    return Effect.flatMap(this.kernel.clock.sleep(Duration.millis(millis)), () => this.gate)
  }

  /** Waits until a child has ended. */
  wait(child: Process): Effect.Effect<ExitStatus> {
    return Effect.flatMap(
      waitFor(this.changed, () => child.status),
      (status) => {
        this.children.delete(child)
        return Effect.as(this.gate, status)
      }
    )
  }

  /** Asks for memory; the process ends by `SIGKILL` when its machine has no more. */
  allocate(bytes: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.memory += bytes
      if (this.kernel.memoryBytes() <= this.kernel.memoryLimit) return Effect.void
      this.kernel.end(this, { _tag: "Signaled", signal: "SIGKILL", number: 9 })
      return Effect.never
    })
  }

  /** All of standard input, counted as memory. */
  readAll(fd = 0): Effect.Effect<Uint8Array> {
    const chunks: Array<Uint8Array> = []
    const more: Effect.Effect<Uint8Array> = Effect.flatMap(this.read(fd), (data) => {
      if (data.length === 0) return Effect.succeed(concat(chunks))
      chunks.push(data)
      return Effect.flatMap(this.allocate(data.length), () => more)
    })
    return more
  }

  /** The services of programs from outside: their clock stands still with the process. */
  get context(): Context.Context<never> {
    const { clock, context } = this.kernel
    return Context.add(context, Clock.Clock, {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
      currentTimeMillis: clock.currentTimeMillis,
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
      currentTimeNanos: clock.currentTimeNanos,
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration) => Effect.flatMap(clock.sleep(duration), () => this.gate)
    })
  }

  /** A path as this process means it. */
  absolute(path: string): string {
    return path.startsWith("/") ? path : this.cwd === "/" ? `/${path}` : `${this.cwd}/${path}`
  }
}

/** Joins pieces of bytes. */
export const concat = (chunks: ReadonlyArray<Uint8Array>): Uint8Array => {
  const first = chunks[0]
  if (first === undefined) return nothing
  if (chunks.length === 1) return first
  const joined = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let offset = 0
  for (const chunk of chunks) {
    joined.set(chunk, offset)
    offset += chunk.length
  }
  return joined
}
