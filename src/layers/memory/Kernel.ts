/**
 * The inside of a running in-memory machine: its process table, signals, limits
 * and the programs it knows. Plain state changed by plain code; only the programs
 * themselves are fibers.
 */
import {
  Cause,
  type Clock,
  type Context,
  Duration,
  Effect,
  Exit,
  type Fiber,
  type Random,
  Result
} from "effect"
import type { SpawnFailure } from "../../domain/Errors.ts"
import type { Generation, ProcessId } from "../../domain/Ids.ts"
import type { ExitStatus, Signal } from "../../domain/Process.ts"
import { signalNumbers } from "../../domain/Process.ts"
import type { Limits } from "../../domain/Sandbox.ts"
import type { EndCause, Ended } from "../../services/Machine.ts"
import type { Execution } from "./Execution.ts"
import type { FileTree } from "./FileTree.ts"
import { allowed, decode, encode, type FifoNode, SEARCH } from "./Inode.ts"
import type { Listener } from "./Network.ts"
import { Fifo, type OpenFile } from "./OpenFile.ts"
import { Process, type Program } from "./Process.ts"
import { type Schedule, Wakeup, waitFor } from "./Wakeup.ts"

/** Finished programs whose journals are kept, and the bytes of those journals. */
const keptExecutions = 256
const keptBytes = 16 * 1024 * 1024
/** Those that are kept no more whose ids are known. */
const maxForgotten = 16_384

/** How much later than their limits programs are ended that no service looks after. */
const laterMillis = 1000

/** Memory a process counts for before it asks for any. */
const processBytes = 512 * 1024

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/** What a machine's inside is made from. */
export interface KernelOptions {
  readonly generation: Generation
  readonly tree: FileTree
  readonly limits: Limits
  readonly programs: ReadonlyMap<string, Program>
  readonly clock: Clock.Clock
  readonly random: (typeof Random.Random)["Service"]
  readonly schedule: Schedule
  /** The services programs run with. */
  readonly context: Context.Context<never>
}

/** A process to make. */
export interface ForkOptions {
  readonly argv: ReadonlyArray<string>
  readonly env: ReadonlyMap<string, string>
  readonly cwd: string
  readonly uid: number
  readonly files: ReadonlyMap<number, OpenFile>
  readonly program: Program
  /** Leads a session and group of its own. */
  readonly newSession?: boolean
}

/** A program found, with the arguments it gets (a script's interpreter gets the script's path). */
export interface Loaded {
  readonly program: Program
  readonly argv: ReadonlyArray<string>
}

export class Kernel {
  readonly generation: Generation
  readonly tree: FileTree
  readonly limits: Limits
  readonly programs: ReadonlyMap<string, Program>
  readonly clock: Clock.Clock
  readonly random: KernelOptions["random"]
  readonly schedule: Schedule
  readonly context: Context.Context<never>
  readonly processes = new Map<number, Process>()
  readonly executions = new Map<ProcessId, Execution>()
  readonly listeners = new Map<number, Listener>()
  paused = false
  ended = false
  /** Changes when processes may go on. */
  readonly thawed: Wakeup
  cpuMicros = 0
  /** Programs whose journals are kept no more: the newest of them, as the agent does. */
  readonly forgotten = new Set<ProcessId>()
  /** Starts that were taken back before they came. */
  readonly cancelled = new Set<ProcessId>()
  /** Whether a service holds the machine. */
  isHeld: () => boolean = () => true
  private readonly fifos = new WeakMap<FifoNode, Fifo>()
  private readonly fibers = new Set<Fiber.Fiber<unknown, unknown>>()
  private nextPid = 2
  /** For files whose reads and writes never wait. */
  readonly never: Wakeup

  constructor(options: KernelOptions) {
    this.generation = options.generation
    this.tree = options.tree
    this.limits = options.limits
    this.programs = options.programs
    this.clock = options.clock
    this.random = options.random
    this.schedule = options.schedule
    this.context = options.context
    this.thawed = new Wakeup(options.schedule)
    this.never = new Wakeup(options.schedule)
  }

  readonly now = (): number => this.clock.currentTimeMillisUnsafe()

  /** Counts the work of a system call. */
  worked(micros = 10): void {
    this.cpuMicros += micros
  }

  get memoryLimit(): number {
    return this.limits.memoryBytes
  }

  /** What all processes use. */
  memoryBytes(): number {
    let sum = 0
    for (const process of this.processes.values()) sum += processBytes + process.memory
    return sum
  }

  // --- programs -------------------------------------------------------------

  /** Finds a program as execvp(3) does. */
  load(
    argv: ReadonlyArray<string>,
    options: { readonly cwd: string; readonly path: string | undefined; readonly uid: number }
  ): Result.Result<Loaded, SpawnFailure> {
    const name = argv[0] ?? ""
    if (name === "") return Result.fail("not-found")
    if (name.includes("/")) {
      return this.loadPath(name.startsWith("/") ? name : `${options.cwd}/${name}`, name, argv, options.uid, 0)
    }
    let refused: SpawnFailure = "not-found"
    for (const directory of (options.path ?? defaultPath).split(":")) {
      const base =
        directory === "" ? options.cwd : directory.startsWith("/") ? directory : `${options.cwd}/${directory}`
      const path = `${base}/${name}`
      const found = this.loadPath(path, path, argv, options.uid, 0)
      if (Result.isSuccess(found) || found.failure === "not-executable") return found
      if (found.failure !== "not-found") refused = found.failure
    }
    return Result.fail(refused)
  }

  private loadPath(
    path: string,
    /** The path as the program is told it. */
    shown: string,
    argv: ReadonlyArray<string>,
    uid: number,
    depth: number
  ): Result.Result<Loaded, SpawnFailure> {
    const place = this.tree.lookup(path, uid, true)
    if (Result.isFailure(place)) {
      return Result.fail(place.failure.reason === "permission" ? "permission" : "not-found")
    }
    const node = place.success.node
    if (node.kind !== "file" || !allowed(node, uid, SEARCH)) return Result.fail("permission")
    const head = decode(node.data.subarray(0, Math.min(node.size, 256)))
    const line = head.slice(0, head.indexOf("\n") < 0 ? undefined : head.indexOf("\n"))
    if (line.startsWith(magic)) {
      const program = this.programs.get(line.slice(magic.length))
      return program === undefined ? Result.fail("not-executable") : Result.succeed({ program, argv })
    }
    const script = /^#![ \t]*([^ \t]+)[ \t]*(.*?)[ \t]*$/.exec(line)
    if (script === null || depth >= 4) return Result.fail("not-executable")
    const [, interpreter = "", argument = ""] = script
    const rest = argument === "" ? [] : [argument]
    return this.loadPath(
      interpreter,
      interpreter,
      [interpreter, ...rest, shown, ...argv.slice(1)],
      uid,
      depth + 1
    )
  }

  // --- processes ------------------------------------------------------------

  /** Makes a process; undefined when the machine has no room for one. */
  spawn(execution: Execution, parent: Process | undefined, options: ForkOptions): Process | undefined {
    // The agent is one, as in a real machine.
    if (this.ended || this.processes.size + 1 >= this.limits.pids) return undefined
    const process = new Process({ ...options, kernel: this, execution, parent, pid: this.nextPid++ })
    if (options.newSession === true) {
      process.group = process.pid
      process.session = process.pid
    }
    this.worked(500)
    this.processes.set(process.pid, process)
    execution.alive.add(process)
    parent?.children.add(process)
    this.schedule(() => {
      if (process.status === undefined) this.start(process, options.program)
    })
    return process
  }

  private start(process: Process, program: Program): void {
    const run = Effect.flatMap(process.gate, () => program(process, process.argv))
    const fiber = Effect.runForkWith(this.context)(run)
    process.fiber = fiber
    fiber.addObserver((exit) => {
      process.fiber = undefined
      if (process.status !== undefined) return
      if (Exit.isSuccess(exit)) return this.end(process, { _tag: "Exited", code: exit.value & 255 })
      if (Cause.hasInterruptsOnly(exit.cause)) {
        return this.end(process, { _tag: "Signaled", signal: "SIGKILL", number: 9 })
      }
      // An uncaught error, as an interpreter would report it.
      process.files.get(2)?.write(encode(`${process.name}: ${Cause.pretty(exit.cause)}\n`))
      this.end(process, { _tag: "Exited", code: 1 })
    })
  }

  /** A process ends: its files are closed, its children orphaned, its parent told. */
  end(process: Process, status: ExitStatus): void {
    if (process.status !== undefined) return
    process.status = status
    this.processes.delete(process.pid)
    process.execution.alive.delete(process)
    process.memory = 0
    for (const [port, listener] of this.listeners) if (listener.owner === process) this.listeners.delete(port)
    for (const child of process.children) {
      child.parent = undefined
      child.parentPid = 1
    }
    process.closeAll()
    process.parent?.changed.notify()
    const { execution } = process
    if (execution.main === process) {
      execution.mainEnded(status)
      if (execution.terminal !== undefined) this.signalGroup(process.pid, "SIGHUP")
    }
    execution.changed.notify()
    process.fiber?.interruptUnsafe()
  }

  /** Delivers a signal to one process. */
  signal(process: Process, signal: Signal): void {
    if (process.status !== undefined) return
    if (signal === "SIGKILL") {
      this.end(process, { _tag: "Signaled", signal, number: signalNumbers[signal] })
      return
    }
    if (signal === "SIGSTOP") {
      process.stopped = true
      return
    }
    if (signal === "SIGCONT" && process.stopped) {
      process.stopped = false
      this.thawed.notify()
      for (const waiting of process.pending.splice(0)) this.deliver(process, waiting)
    }
    if (process.stopped || this.paused) {
      if (!process.pending.includes(signal)) process.pending.push(signal)
      return
    }
    this.deliver(process, signal)
  }

  private deliver(process: Process, signal: Signal): void {
    if (process.status !== undefined) return
    const disposition = process.dispositions.get(signal)
    if (disposition === "ignore") return
    if (disposition !== undefined) {
      disposition()
      process.changed.notify()
      return
    }
    if (signal === "SIGWINCH" || signal === "SIGCONT") return
    if (signal === "SIGTSTP") {
      process.stopped = true
      return
    }
    this.end(process, { _tag: "Signaled", signal, number: signalNumbers[signal] })
  }

  /** Delivers a signal to a process group; returns how many processes it has. */
  signalGroup(group: number, signal: Signal): number {
    const members = [...this.processes.values()].filter((process) => process.group === group)
    for (const process of members) this.signal(process, signal)
    return members.length
  }

  /** Kills a program with all its descendants; tells what there was to kill. */
  kill(execution: Execution, cause: EndCause = "request"): Ended {
    if (execution.alive.size === 0) return "nothing"
    const ended = execution.status === undefined ? "program" : "descendants"
    if (ended === "program") execution.endedBy ??= cause
    for (const process of [...execution.alive]) this.signal(process, "SIGKILL")
    return ended
  }

  /** No service holds the machine any more: programs are ended a little after their limits. */
  abandoned(): void {
    for (const execution of this.executions.values()) {
      if (execution.leftMillis !== undefined && execution.alive.size > 0) this.fork(this.outlived(execution))
    }
  }

  /** Ends a program after its limit, unless a service has come, which does that itself. */
  private outlived(execution: Execution): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      while (execution.alive.size > 0 && !this.isHeld()) {
        if (this.paused) yield* waitFor(this.thawed, () => (this.paused ? undefined : true))
        const { leftMillis } = execution
        if (leftMillis === 0) return void this.kill(execution, "limit")
        yield* this.clock.sleep(Duration.millis((leftMillis ?? 0) + laterMillis))
      }
    })
  }

  /** What is left of the limits of all programs, before the machine is paused or after it goes on. */
  private settleLimits(): void {
    for (const execution of this.executions.values()) {
      const { leftMillis } = execution
      if (leftMillis !== undefined) execution.setLimit(leftMillis)
    }
  }

  pause(): void {
    if (!this.paused) this.settleLimits()
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.settleLimits()
    this.paused = false
    this.thawed.notify()
    for (const process of [...this.processes.values()]) {
      if (!process.stopped) for (const waiting of process.pending.splice(0)) this.deliver(process, waiting)
    }
  }

  /** Forgets the oldest finished programs when too many, or too much of their output, is kept. */
  executionFinished(execution: Execution): void {
    let bytes = 0
    const finished: Array<Execution> = []
    for (const other of this.executions.values()) {
      if (!other.finished || other.alive.size > 0 || other.output.journal.attached > 0) continue
      finished.push(other)
      bytes += keptOf(other)
    }
    if (finished.length <= keptExecutions && bytes <= keptBytes) return
    let count = finished.length
    for (const old of finished.sort((a, b) => a.exitedAt - b.exitedAt)) {
      if (count <= keptExecutions && bytes <= keptBytes) break
      if (old === execution) continue
      this.executions.delete(old.processId)
      this.forgotten.add(old.processId)
      count--
      bytes -= keptOf(old)
    }
    this.trimForgotten()
  }

  /** Forgets that it has forgotten the oldest ones. */
  private trimForgotten(): void {
    for (const oldest of this.forgotten) {
      if (this.forgotten.size <= maxForgotten) return
      this.forgotten.delete(oldest)
    }
  }

  /** The pipe of a FIFO on the disk. */
  fifo(node: FifoNode): Fifo {
    const existing = this.fifos.get(node)
    if (existing !== undefined) return existing
    const made = new Fifo(this.schedule)
    this.fifos.set(node, made)
    return made
  }

  /** Runs something of the machine's own until it ends or the machine does. */
  fork(effect: Effect.Effect<void>): void {
    const fiber = Effect.runForkWith(this.context)(effect)
    this.fibers.add(fiber)
    fiber.addObserver(() => this.fibers.delete(fiber))
  }

  /** Ends everything. */
  shutdown(): void {
    this.ended = true
    for (const process of [...this.processes.values()]) this.signal(process, "SIGKILL")
    for (const fiber of [...this.fibers]) fiber.interruptUnsafe()
    this.listeners.clear()
  }
}

const keptOf = ({ output }: Execution): number => output.journal.end - output.journal.oldest

/** How the file of a known program begins; its name follows. */
export const magic = "\x7fELF fiberbox "
