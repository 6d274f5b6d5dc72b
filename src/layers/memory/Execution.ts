/**
 * A program the machine's owner started: its first process, all that descends
 * from it, its journal, its standard input and its end.
 *
 * It ends like under the agent of the other backends: when the first process is
 * gone and nobody holds its output open any more, or the output has been quiet
 * for a moment.
 */
import { Duration, Effect } from "effect"
import type { ProcessId } from "../../domain/Ids.ts"
import type { ExitStatus, ProcessInfo } from "../../domain/Process.ts"
import { monotonicMillis } from "../../services/Alarms.ts"
import type { EndCause, ListedProcess, SpawnRequest } from "../../services/Machine.ts"
import type { Kernel } from "./Kernel.ts"
import { Output, Pipe } from "./OpenFile.ts"
import type { Process } from "./Process.ts"
import { Terminal } from "./Terminal.ts"
import { Wakeup } from "./Wakeup.ts"

/** How long an orphaned output must be quiet to count as complete, the longest wait for that, in milliseconds, and the most bytes. */
const quietMillis = 100
const drainMillis = 1000
const drainBytes = 1024 * 1024

/** Room for standard input that the program has not read. */
const stdinBytes = 128 * 1024

/** Where standard input comes from. */
export interface Stdin {
  /** Bytes taken since the start. */
  taken: number
  /** Takes what fits. */
  readonly write: (data: Uint8Array) => number | "broken-pipe"
  readonly close: () => void
  readonly wakeup: Wakeup
}

export class Execution {
  readonly processId: ProcessId
  readonly request: SpawnRequest
  readonly kernel: Kernel
  readonly output: Output
  readonly terminal: Terminal | undefined
  readonly stdin: Stdin | undefined
  readonly stdinPipe: Pipe | undefined
  readonly startedAt: number
  /** All processes of its tree that live. */
  readonly alive = new Set<Process>()
  main: Process | undefined = undefined
  /** How the first process ended, once it has. */
  status: ExitStatus | undefined = undefined
  exitedAt = 0
  /** Why its first process was ended, if it was. */
  endedBy: EndCause | undefined = undefined
  /** What is left of its limit, and since when that runs by a clock that nobody sets; undefined: it has none. */
  private limit: { leftMillis: number; since: number } | undefined = undefined
  /** Whether its output is complete, too. */
  finished = false
  /** Changes when a process of it ends. */
  readonly changed: Wakeup
  private wroteAt = 0

  constructor(kernel: Kernel, request: SpawnRequest) {
    this.kernel = kernel
    this.request = request
    this.processId = request.processId
    this.startedAt = kernel.now()
    this.changed = new Wakeup(kernel.schedule)
    this.output = new Output(request.journalBytes, kernel.schedule, kernel.now)
    this.output.onWrite = () => {
      this.wroteAt = kernel.now()
    }
    this.output.onClosed = () => {
      if (this.status !== undefined) this.finish()
    }
    this.terminal =
      request.pty === undefined ? undefined : new Terminal(request.pty, this.output, kernel.schedule)
    this.stdinPipe =
      request.pty === undefined && request.stdin ? new Pipe(kernel.schedule, stdinBytes) : undefined
    this.stdin = makeStdin(this.terminal, this.stdinPipe)
    if (request.limitMillis !== undefined) this.setLimit(request.limitMillis)
  }

  /** Says how much of its limit is left now. */
  setLimit(leftMillis: number): void {
    this.limit = { leftMillis, since: monotonicMillis(this.kernel.clock) }
  }

  /** What is left of its limit; undefined when it has none. Time frozen does not count. */
  get leftMillis(): number | undefined {
    if (this.limit === undefined) return undefined
    const ran = this.kernel.paused ? 0 : monotonicMillis(this.kernel.clock) - this.limit.since
    return Math.max(0, this.limit.leftMillis - ran)
  }

  /** The first process has ended. */
  mainEnded(status: ExitStatus): void {
    this.status = status
    this.exitedAt = this.kernel.now()
    this.wroteAt = this.exitedAt
    this.terminal?.hangUp()
    if (this.output.open) this.kernel.fork(this.drain)
    else this.finish()
  }

  /**
   * Waits until what holds the output open has been quiet, or for the longest; the silence of a program that a slow
   * reader holds up does not count as quiet. All that the first process wrote is in the journal already.
   */
  private readonly drain: Effect.Effect<void> = Effect.suspend(() => {
    const deadline = this.kernel.now() + drainMillis
    const { journal } = this.output
    const limit = journal.end + drainBytes
    const look: Effect.Effect<void> = Effect.flatMap(
      this.kernel.clock.sleep(Duration.millis(quietMillis)),
      () => {
        const now = this.kernel.now()
        if (this.finished) return Effect.void
        const quiet = journal.room() > 0 && now - this.wroteAt >= quietMillis
        if (!quiet && now < deadline && journal.end < limit) return look
        this.finish()
        return Effect.void
      }
    )
    return look
  })

  private finish(): void {
    if (this.finished) return
    this.finished = true
    this.output.complete()
    this.stdin?.wakeup.notify()
    this.kernel.executionFinished(this)
  }

  info(): ProcessInfo {
    const { journal } = this.output
    const info = {
      processId: this.processId,
      generation: this.kernel.generation,
      pid: this.main?.pid ?? 0,
      argv: this.request.argv,
      user: this.request.user,
      pty: this.terminal !== undefined,
      startedAt: this.startedAt,
      oldest: journal.oldest,
      end: journal.end
    }
    return this.finished && this.status !== undefined ? { ...info, exit: this.status } : info
  }

  listed(): ListedProcess {
    return {
      ...this.info(),
      label: this.request.label,
      identity: this.request.identity,
      leftMillis: this.leftMillis,
      treeAlive: this.alive.size > 0
    }
  }
}

const makeStdin = (terminal: Terminal | undefined, pipe: Pipe | undefined): Stdin | undefined => {
  if (terminal !== undefined) {
    return {
      taken: 0,
      write: (data) => terminal.type(data),
      // As when somebody presses the key: the terminal stays open.
      close: () => terminal.type(Uint8Array.of(4)),
      wakeup: terminal.wakeup
    }
  }
  if (pipe === undefined) return undefined
  return { taken: 0, write: (data) => pipe.write(data), close: () => pipe.end(), wakeup: pipe.wakeup }
}
