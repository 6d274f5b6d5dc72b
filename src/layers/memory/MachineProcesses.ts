/**
 * The processes of an in-memory machine, as its service drives them.
 */
import { Cause, Effect, Result, Stream } from "effect"
import { Conflict, InvalidArgument, NotFound, ResourceExhausted, SpawnFailed } from "../../domain/Errors.ts"
import type { ProcessId } from "../../domain/Ids.ts"
import { maxArgumentBytes, maxStringBytes, maxTerminals, type Signal } from "../../domain/Process.ts"
import type {
  MachineError,
  MachineEvent,
  MachineProcesses,
  SpawnRequest,
  Start
} from "../../services/Machine.ts"
import { Execution } from "./Execution.ts"
import { encode, uidOf } from "./Inode.ts"
import type { JournalReader } from "./Journal.ts"
import { type Calls, holding } from "./MachineCalls.ts"
import { type OpenFile, openDevice, pipeEnds } from "./OpenFile.ts"
import { enterable } from "./OpenPath.ts"
import type { Cut } from "./RunningMachine.ts"
import { waitFor } from "./Wakeup.ts"

/** Programs that may run at one time, as the agent allows. */
const maxRunning = 1024

/** Starts taken back before they came that are remembered, as the agent does. */
const maxCancelled = 16_384

export const makeProcesses = (calls: Calls): MachineProcesses => {
  const { machine } = calls
  const { kernel } = machine

  const find = (processId: ProcessId): Effect.Effect<Execution, NotFound> => {
    const execution = kernel.executions.get(processId)
    return execution === undefined
      ? Effect.fail(new NotFound({ kind: "process", id: processId }))
      : Effect.succeed(execution)
  }

  const spawn = Effect.fnUntraced(function* (request: SpawnRequest) {
    const existing = kernel.executions.get(request.processId)
    if (existing !== undefined) {
      if (isSame(existing.request, request)) return existing
      const reason = "this id belongs to another program"
      return yield* new Conflict({ kind: "process", id: request.processId, reason })
    }
    if (kernel.cancelled.has(request.processId)) {
      const reason = "the start of this process was cancelled"
      return yield* new Conflict({ kind: "process", id: request.processId, reason })
    }
    if (kernel.forgotten.has(request.processId)) {
      const reason = "a process of this id has ended, and its output is not kept any more"
      return yield* new Conflict({ kind: "process", id: request.processId, reason })
    }
    const started = startExecution(calls, request)
    return Result.isSuccess(started) ? started.success : yield* started.failure
  })

  /** A journal from a cursor on. The reader is attached before anything else runs, so it misses nothing. */
  const events = <E>(
    point: "spawn" | "attach",
    open: Effect.Effect<Execution, E>,
    cursor: number,
    holds = true
  ) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const reading = yield* holding<Reading, E | MachineError>((keep) =>
          calls.call(
            point,
            Effect.map(open, (execution) => keep(openReader(calls, execution, cursor, holds)))
          )
        )
        return Stream.fromPull(Effect.succeed(reading.pull))
      })
    )

  return {
    run: (request) => events("spawn", spawn(request), 0),
    start: (request) =>
      calls.call(
        "spawn",
        Effect.map(spawn(request), (execution) => execution.info())
      ),
    attach: (processId, cursor, holds) => events("attach", find(processId), cursor, holds),
    list: calls.call(
      "processes",
      Effect.sync(() => [...kernel.executions.values()].map((execution) => execution.listed()))
    ),
    signal: (processId, signal) =>
      calls.call(
        "signal",
        Effect.map(find(processId), (execution) => send(execution, signal))
      ),
    kill: (processId) =>
      calls.call(
        "kill",
        Effect.map(find(processId), (execution) => void kernel.kill(execution))
      ),
    cancel: (start, cause) =>
      calls.call(
        "cancel",
        Effect.suspend(() => {
          const execution = kernel.executions.get(start.processId)
          if (execution === undefined) return Effect.as(remember(start), "nothing" as const)
          const ended =
            execution.request.identity === start.identity ? kernel.kill(execution, cause) : "nothing"
          return Effect.succeed(ended)
        })
      ),
    limit: (processId, leftMillis) =>
      calls.call(
        "limit",
        Effect.map(find(processId), (execution) => execution.setLimit(leftMillis))
      ),
    writeStdin: (processId, offset, data) =>
      calls.call(
        "stdin",
        Effect.flatMap(find(processId), (execution) => writeStdin(calls, execution, offset, data))
      ),
    closeStdin: (processId) =>
      calls.call(
        "stdin",
        Effect.map(find(processId), (execution) => {
          if (!execution.finished) execution.stdin?.close()
        })
      ),
    resize: (processId, size) =>
      calls.call(
        "resize",
        Effect.flatMap(find(processId), (execution) => {
          if (execution.terminal === undefined) {
            return Effect.fail(
              new InvalidArgument({ field: "processId", reason: "the process has no terminal" })
            )
          }
          execution.terminal.size = size
          if (execution.main !== undefined) kernel.signalGroup(execution.main.pid, "SIGWINCH")
          return Effect.void
        })
      )
  }

  function remember({ processId }: Start): Effect.Effect<void, ResourceExhausted> {
    if (kernel.forgotten.has(processId)) return Effect.void
    if (kernel.cancelled.size >= maxCancelled && !kernel.cancelled.has(processId)) {
      const reason = "too many starts were cancelled that never came"
      return Effect.fail(new ResourceExhausted({ resource: "cancelled starts", reason }))
    }
    kernel.cancelled.add(processId)
    return Effect.void
  }

  function send(execution: Execution, signal: Signal): void {
    const group = execution.main?.pid
    if (group === undefined) return
    const members = [...execution.alive].filter((process) => process.group === group)
    for (const process of members) kernel.signal(process, signal)
  }
}

// --- starting -----------------------------------------------------------------

const isSame = (a: SpawnRequest, b: SpawnRequest): boolean => contentOf(a) === contentOf(b)

const contentOf = (request: SpawnRequest): string =>
  JSON.stringify([
    request.argv,
    Object.entries(request.env).sort(([a], [b]) => (a < b ? -1 : 1)),
    request.cwd,
    request.user,
    request.pty?.rows,
    request.pty?.cols,
    request.stdin,
    request.journalBytes
  ])

const startExecution = (
  { machine }: Calls,
  request: SpawnRequest
): Result.Result<Execution, SpawnFailed | ResourceExhausted> => {
  const { kernel } = machine
  const program = request.argv[0]
  const failed = (reason: SpawnFailed["reason"], detail = "") =>
    Result.fail(new SpawnFailed({ reason, program, detail }))
  const uid = uidOf(request.user)
  if (isTooMuch(request)) return failed("argument-list-too-long")
  const running = [...kernel.executions.values()].filter((one) => !one.finished)
  if (running.length >= maxRunning) {
    return Result.fail(new ResourceExhausted({ resource: "processes", reason: `${maxRunning} programs run` }))
  }
  if (request.pty !== undefined && running.filter((one) => one.terminal).length >= maxTerminals) {
    return Result.fail(
      new ResourceExhausted({
        resource: "terminals",
        reason: `all of this sandbox's ${maxTerminals} are in use`,
        retryAfterMillis: 1_000
      })
    )
  }
  const cwd = enterable({ kernel, uid }, request.cwd)
  if (Result.isFailure(cwd)) return failed("bad-cwd", `${request.cwd}: ${cwd.failure.reason}`)
  const loaded = kernel.load(request.argv, { cwd: cwd.success, path: request.env.PATH, uid })
  if (Result.isFailure(loaded)) return failed(loaded.failure)
  const execution = new Execution(kernel, request)
  const process = kernel.spawn(execution, undefined, {
    argv: loaded.success.argv,
    env: new Map(Object.entries(request.env)),
    cwd: request.cwd,
    uid,
    files: standardFiles(execution),
    program: loaded.success.program,
    newSession: true
  })
  if (process === undefined)
    return failed("resources", `the machine may have ${kernel.limits.pids} processes`)
  execution.main = process
  const { terminal } = execution
  if (terminal !== undefined) {
    terminal.onSignal = (signal) => kernel.signalGroup(process.pid, signal)
  }
  kernel.executions.set(request.processId, execution)
  return Result.succeed(execution)
}

/** Whether no kernel would take its arguments and environment. */
const isTooMuch = ({ argv, env }: SpawnRequest): boolean => {
  const strings = [...argv, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)]
  const sizes = strings.map((text) => encode(text).length)
  return (
    sizes.some((size) => size > maxStringBytes) ||
    sizes.reduce((sum, size) => sum + size + 1, 0) > maxArgumentBytes
  )
}

const standardFiles = (execution: Execution): ReadonlyMap<number, OpenFile> => {
  const { kernel, output, stdinPipe, terminal } = execution
  if (terminal !== undefined) {
    const file = terminal.file()
    return new Map([0, 1, 2].map((fd) => [fd, file] as const))
  }
  return new Map([
    [0, stdinPipe === undefined ? openDevice("null", () => 0, kernel.never) : pipeEnds(stdinPipe).reader],
    [1, output.file("stdout")],
    [2, output.file("stderr")]
  ])
}

// --- reading ------------------------------------------------------------------

type Reading = ReturnType<typeof openReader>

/** A reader of a journal: what it pulls next, and how it lets go. */
const openReader = (calls: Calls, execution: Execution, cursor: number, holds: boolean) => {
  const { journal } = execution.output
  const reader: JournalReader = journal.attach(cursor, holds)
  const { wakeup } = execution.output
  let started = false
  let ended = false
  let cut: Cut | undefined
  const forget = calls.machine.onCut((reason) => {
    cut = reason
    wakeup.notify()
  })

  const take = (): ReadonlyArray<MachineEvent> => {
    const events: Array<MachineEvent> = []
    if (!started) {
      started = true
      events.push({
        _tag: "Started",
        pid: execution.main?.pid ?? 0,
        startedAt: execution.startedAt,
        generation: execution.kernel.generation,
        isolation: "none"
      })
    }
    const batch = journal.take(reader)
    if (batch.gap !== undefined) events.push({ _tag: "Truncated", ...batch.gap })
    for (const entry of batch.entries) events.push({ _tag: "Output", ...entry })
    // Room was made for a writer that waits.
    if (batch.entries.length > 0) wakeup.notify()
    if (execution.finished && execution.status !== undefined && reader.cursor >= journal.end) {
      ended = true
      events.push({
        _tag: "Exited",
        status: execution.status,
        cursor: journal.end,
        at: execution.exitedAt,
        timedOut: execution.endedBy === "limit",
        treeAlive: execution.alive.size > 0
      })
    }
    return events
  }

  const next = waitFor(wakeup, (): ReadonlyArray<MachineEvent> | Cut | undefined => {
    if (cut !== undefined) return cut
    const events = take()
    return events.length > 0 ? events : undefined
  })

  const pull = Effect.suspend(() =>
    ended
      ? Cause.done()
      : Effect.flatMap(
          next,
          (found): Effect.Effect<readonly [MachineEvent, ...Array<MachineEvent>], Cut | Cause.Done> => {
            if (!isEvents(found)) return Effect.fail(found)
            const [first, ...rest] = found
            return first === undefined ? Cause.done() : Effect.succeed([first, ...rest])
          }
        )
  )

  return {
    pull,
    close: () => {
      forget()
      journal.detach(reader)
      wakeup.notify()
    }
  }
}

const isEvents = (found: ReadonlyArray<MachineEvent> | Cut): found is ReadonlyArray<MachineEvent> =>
  Array.isArray(found)

// --- standard input -------------------------------------------------------------

const writeStdin = Effect.fnUntraced(function* (
  calls: Calls,
  execution: Execution,
  offset: number,
  data: Uint8Array
) {
  const closed = new InvalidArgument({ field: "stdin", reason: "standard input has ended" })
  const { stdin } = execution
  if (stdin === undefined) return yield* closed
  if (offset > stdin.taken) {
    const reason = `bytes before this offset are missing: ${stdin.taken} have arrived`
    return yield* new InvalidArgument({ field: "offset", reason })
  }
  const take = (): number | "closed" | undefined => {
    const fresh = data.subarray(Math.min(data.length, stdin.taken - offset))
    if (fresh.length === 0) return stdin.taken
    if (execution.status !== undefined) return "closed"
    const taken = stdin.write(fresh)
    if (taken === "broken-pipe") return "closed"
    if (taken === 0) return undefined
    stdin.taken += taken
    return stdin.taken
  }
  const first = take()
  if (first === "closed") return yield* closed
  if (first !== undefined) return first
  const later = yield* calls.waitFor(waitFor(stdin.wakeup, take))
  return later === "closed" ? yield* closed : later
})
