/**
 * The process side of a sandbox handle: run to the end, run in the background,
 * attach, open terminals.
 *
 * `run` is start, attach and cancel: losing an attachment kills nothing, and
 * interrupting the caller kills the process and all its descendants.
 */
import { Cause, Data, Deferred, Effect, Exit, Fiber, Option, Predicate, Schema, Stream } from "effect"
import type { IsolationLevel } from "../domain/Capability.ts"
import { CommandExit, InvalidResponse, NotFound, Timeout } from "../domain/Errors.ts"
import { type Generation, type LeaseId, ProcessId, type ReaderId, type SandboxId } from "../domain/Ids.ts"
import type { CapturedOutput } from "../domain/Output.ts"
import {
  exitCodeOf,
  type Keep,
  type ProcessEvent,
  type ProcessInfo,
  ProcessSpec,
  PtySize,
  ReadOptions,
  shellArgv
} from "../domain/Process.ts"
import type { MachineOperationError, StartError } from "../rpc/SandboxRpcs.ts"
import { concat } from "./Bytes.ts"
import { decodeBytes, decodeInput, optionsObject } from "./Input.ts"
import { Output } from "./Output.ts"
import { makePosition } from "./Position.ts"
import { makeProcess, makePty, makeStdinWriter, type Process, type Pty } from "./Process.ts"
import type { Client } from "./SandboxClient.ts"

/** A program and its arguments. */
export type Argv = readonly [program: string, ...args: Array<string>]

/** How a program is started. */
export interface ProcessOptions {
  /** Chosen by the caller to recognise the process again, and never to be used for another; default: one that nobody else has. */
  readonly processId?: string | undefined
  /** Added to the sandbox's environment. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** An absolute path; default: the user's home. */
  readonly cwd?: string | undefined
  /** Default: `user` (uid 1000, no capability). */
  readonly user?: "user" | "root" | undefined
  /** Journal capacity in bytes; default 1 MiB. */
  readonly journalBytes?: number | undefined
  /** Milliseconds until the process and all its descendants are ended, also those it has left behind; time paused does not count. */
  readonly timeoutMillis?: number | undefined
}

/** How a program is started in the background. */
export interface StartOptions extends ProcessOptions {
  /** Whether its standard input can be written to; otherwise it is empty. */
  readonly stdin?: boolean | undefined
}

/** What a program reads: all of it, or as it comes. */
type StdinSource<E, R> = string | Uint8Array | Stream.Stream<Uint8Array, E, R>

/** How a program is run to its end. `E` and `R` are those of the stream it reads. */
export interface RunOptions<E = never, R = never> extends Omit<ProcessOptions, "timeoutMillis"> {
  /**
   * Milliseconds until the process and all its descendants are ended; default 60,000. `"none"`: no limit. A run ends with its
   * process: what that leaves in the background lives on, until this limit.
   */
  readonly timeoutMillis?: number | "none" | undefined
  /** The most bytes of output passed on (both streams together); default 8 MiB, `"none"`: all. The program is not held up by it. */
  readonly maxOutputBytes?: number | "none" | undefined
  /**
   * What is kept of more output than `maxOutputBytes`. `both`, the default of `run`: the beginning and the end of each
   * stream (the ends up to 256 KiB together); `head`: the beginnings; `tail`: the ends (of at most 4 MiB, by default
   * 1 MiB); `all`: everything. What one stream does not need the other may have; a quarter of the whole, at most
   * 128 KiB, of its beginning and of its end nobody takes from it. The default of `stream` is the first bytes, of both
   * in their order; with any policy, what may yet be left out comes when the program has ended.
   */
  readonly keep?: Keep | "all" | undefined
  /** Milliseconds after which a reader of the events that takes nothing while output waits is detached; default 60,000. */
  readonly idleMillis?: number | undefined
  /**
   * What the program reads as standard input, whole or as it comes; default: nothing. A stream that fails fails the run
   * with the same error, and the program is ended: it never takes the beginning of its input for the whole.
   */
  readonly stdin?: StdinSource<E, R> | undefined
}

/** What a command that exited with 0 did. */
export interface CommandResult extends CapturedOutput {
  readonly processId: ProcessId
  readonly exitCode: number
  /** The isolation it really ran under. */
  readonly isolation: IsolationLevel
  readonly generation: Generation
}

/** How running a program to its end can fail: also by its own exit code. */
export type RunError = StartError | CommandExit | InvalidResponse

/** Programs by argument vector: no shell comes between. */
export interface ProcessApi {
  /**
   * Runs a program to its end: until it has exited and its output is complete, at most a second later. A code other than 0
   * is a `CommandExit`, its time limit a `Timeout`. Interrupting it kills the program with all its descendants.
   */
  readonly run: <E = never, R = never>(
    argv: Argv,
    options?: RunOptions<E, R>
  ) => Effect.Effect<CommandResult, RunError | E, R>
  /** Runs a program and yields its events; ending the stream early kills it with all its descendants. */
  readonly stream: <E = never, R = never>(
    argv: Argv,
    options?: RunOptions<E, R>
  ) => Stream.Stream<ProcessEvent, StartError | E, R>
  /** Starts a program in the background. Interrupted before it has given a handle, it leaves nothing. */
  readonly start: (argv: Argv, options?: StartOptions) => Effect.Effect<Process, StartError>
  /** A handle on a process of the present machine, running or ended. */
  readonly connect: (processId: string) => Effect.Effect<Process, MachineOperationError>
  /** Running ones and those whose journals are still kept. */
  readonly list: Effect.Effect<ReadonlyArray<ProcessInfo>, MachineOperationError>
}

/** Command lines, through the sandbox's login shell (`/bin/sh -lc`). */
export interface CommandApi {
  /** Runs a command line to its end. A code other than 0 is a `CommandExit`, its time limit a `Timeout`. */
  readonly run: <E = never, R = never>(
    command: string,
    options?: RunOptions<E, R>
  ) => Effect.Effect<CommandResult, RunError | E, R>
  /** Runs a command line and yields its events; ending the stream early kills it with all its descendants. */
  readonly stream: <E = never, R = never>(
    command: string,
    options?: RunOptions<E, R>
  ) => Stream.Stream<ProcessEvent, StartError | E, R>
  /** Starts a command line in the background. */
  readonly start: (command: string, options?: StartOptions) => Effect.Effect<Process, StartError>
}

/** Programs on a terminal. */
export interface PtyApi {
  /** Opens a terminal and runs a program on it; by default a login shell. Interrupted before it has given a handle, it leaves nothing. */
  readonly open: (
    options: ProcessOptions & {
      readonly size: PtySize
      readonly argv?: Argv
      /** Whether it stays when this program is gone, until it ends or is killed; default: it ends too. */
      readonly background?: boolean | undefined
    }
  ) => Effect.Effect<Pty, StartError>
  /** A handle on a process of the present machine that runs, or ran, on a terminal. */
  readonly connect: (processId: string) => Effect.Effect<Pty, MachineOperationError>
}

/** A program reads no more of its standard input. */
class EndOfReading extends Data.TaggedError("EndOfReading") {}

/** After how long what a paused sandbox did not take is offered to it again. */
const pauseMillis = 250

/** How far a program has come, as its caller knows. */
type RunState = "new" | "started" | "exited"

const decodeSpec = decodeInput(ProcessSpec, "process")
const decodeProcessId = decodeInput(ProcessId, "processId")
const decodeOpening = decodeInput(
  Schema.Struct({ size: PtySize, background: Schema.optional(Schema.Boolean) }),
  ""
)
const decodeStdin = decodeBytes("stdin")
const decodeAttach = decodeInput(ReadOptions, "")

const defaultTimeoutMillis = 60_000
/** How long is waited for the end of a program of which it is not known whether it began. */
const unknownEndMillis = 5_000
const defaultMaxOutputBytes = 8 * 1024 * 1024

const defaultTailBytes = 1024 * 1024

/** How the output of a run is read. What is not there costs nothing on the way. */
const attachOf = ({ maxOutputBytes, keep, idleMillis }: RunOptions<unknown, unknown>) => {
  const isWhole = maxOutputBytes === "none" || (keep === "all" && maxOutputBytes === undefined)
  const most = maxOutputBytes ?? (keep === "tail" ? defaultTailBytes : defaultMaxOutputBytes)
  return decodeAttach({
    ...(!isWhole && { maxOutputBytes: most }),
    ...(!isWhole && keep !== undefined && { keep }),
    ...(idleMillis !== undefined && { idleMillis })
  })
}

/** The process side of a handle on `sandboxId`, over a client of the contract; `lease` holds what is not in the background. */
export const makeProcesses = (
  client: Client,
  sandboxId: SandboxId,
  newIds: { readonly process: () => ProcessId; readonly reader: () => ReaderId },
  lease: LeaseId | undefined
): { readonly process: ProcessApi; readonly commands: CommandApi; readonly pty: PtyApi } => {
  const specOf = (
    argv: ReadonlyArray<string>,
    options: ProcessOptions,
    more: { readonly stdin: boolean; readonly pty?: PtySize; readonly lease?: LeaseId | undefined }
  ) =>
    Effect.suspend(() =>
      decodeSpec({ ...options, ...more, processId: options.processId ?? newIds.process(), argv })
    )

  const runSpecOf = Effect.fnUntraced(function* (
    argv: ReadonlyArray<string>,
    options: RunOptions<unknown, unknown>
  ) {
    const {
      timeoutMillis = defaultTimeoutMillis,
      stdin,
      maxOutputBytes: _,
      keep: __,
      idleMillis: ___,
      ...rest
    } = yield* optionsObject(options)
    if (stdin !== undefined && !Stream.isStream(stdin)) yield* decodeStdin(stdin)
    const limit = timeoutMillis === "none" ? {} : { timeoutMillis }
    return yield* specOf(argv, { ...rest, ...limit }, { stdin: stdin !== undefined, lease })
  })

  /** Passes a program what it reads, and then the end. Fails as the source does, or when the program cannot be reached. */
  const feed = <E, R>(processId: ProcessId, source: StdinSource<E, R>) => {
    const writer = makeStdinWriter(client, { sandboxId, processId })
    const write = (data: string | Uint8Array) => whenResumed(writer(data))
    // What comes at the same time is written together, however small its pieces.
    const written = Stream.isStream(source)
      ? Stream.runForEachArray(source, (pieces) =>
          Effect.flatMap(Effect.forEach(pieces, decodeStdin), (pieces) => write(concat(pieces)))
        )
      : write(source)
    return written.pipe(
      Effect.andThen(whenResumed(client.CloseStdin({ sandboxId, processId }))),
      Effect.catchIf(
        (error): error is EndOfReading => error instanceof EndOfReading,
        () => Effect.void
      )
    )
  }

  /** Waits while the sandbox is paused. A program may end, or end its input, without having read everything: that is its own affair. */
  const whenResumed = <A>(
    call: Effect.Effect<A, MachineOperationError>
  ): Effect.Effect<A, MachineOperationError | EndOfReading> =>
    Effect.catch(call, (error): Effect.Effect<A, MachineOperationError | EndOfReading> => {
      if (error._tag === "NotFound" || error._tag === "InvalidArgument")
        return Effect.fail(new EndOfReading())
      const isPaused = error._tag === "InvalidState" && error.status === "paused"
      return isPaused ? Effect.delay(whenResumed(call), pauseMillis) : Effect.fail(error)
    })

  const events = <E, R>(
    spec: ProcessSpec,
    options: RunOptions<E, R>
  ): Stream.Stream<ProcessEvent, StartError | E, R> =>
    Stream.unwrap(Effect.map(attachOf(options), (attach) => attached(spec, attach, options.stdin)))

  const attached = <E, R>(
    spec: ProcessSpec,
    attach: ReadOptions,
    stdin: StdinSource<E, R> | undefined
  ): Stream.Stream<ProcessEvent, StartError | E, R> =>
    Stream.suspend(() => {
      let state: RunState = "new"
      const begun = Deferred.makeUnsafe<void>()
      const program = client.RunProcess({ sandboxId, process: spec, attach }).pipe(
        Stream.tap((event) => {
          if (event._tag === "Exited") state = "exited"
          if (event._tag !== "Started") return Effect.void
          state = "started"
          return Deferred.succeed(begun, undefined)
        })
      )
      const fed =
        stdin === undefined
          ? program
          : Stream.mergeEffect(program, Effect.andThen(Deferred.await(begun), feed(spec.processId, stdin)))
      return Stream.onExit(fed, (exit) => cleanUp(spec, state, exit))
    })

  /** Gathers the events of a program: in one answer if they are few, otherwise the rest as a stream. */
  const gather = (
    spec: ProcessSpec,
    options: RunOptions<unknown, unknown>,
    output: Output
  ): Effect.Effect<void, StartError> =>
    Effect.gen(function* () {
      const { processId } = spec
      const attach = { ...(yield* attachOf(options)), reader: newIds.reader() }
      const position = makePosition(attach, attach.reader)
      const add = (event: ProcessEvent) => {
        const seen = position.see(event)
        if (seen !== undefined) output.add(seen)
      }
      const first = yield* client.ExecProcess({ sandboxId, process: spec, attach })
      first.forEach(add)
      if (position.ended()) return
      const generation = position.started()?.generation
      yield* Stream.runForEach(
        client.AttachProcess({ sandboxId, processId, generation, attach: position.attach() }),
        (event) => Effect.sync(() => add(event))
      )
    }).pipe(
      Effect.onExit((exit) => {
        const { exited, started } = output
        return cleanUp(spec, exited ? "exited" : started ? "started" : "new", exit)
      })
    )

  /** Ends what a call leaves behind that did not come to its end: what it started, or may have, or may still start. */
  const cleanUp = (spec: ProcessSpec, state: RunState, exit: Exit.Exit<unknown, unknown>) => {
    if (state === "exited") return Effect.void
    const ending = Effect.ignore(client.CancelProcess({ sandboxId, process: spec }))
    if (Exit.isSuccess(exit) || Exit.hasInterrupts(exit)) return ending
    if (state === "new" && !mayHaveStarted(exit.cause)) return Effect.void
    // The way there may be broken: it is tried for longer than is waited for.
    return Effect.flatMap(Effect.forkDetach(ending), (fiber) =>
      Effect.asVoid(Effect.timeoutOption(Fiber.await(fiber), unknownEndMillis))
    )
  }

  /** Starts a program of which, when this is interrupted or fails, nothing stays. */
  const startOf = (spec: ProcessSpec) =>
    Effect.onExit(client.StartProcess({ sandboxId, process: spec }), (exit) =>
      Exit.isSuccess(exit) ? Effect.void : cleanUp(spec, "new", exit)
    )

  const run = Effect.fnUntraced(function* <E, R>(
    argv: ReadonlyArray<string>,
    options: RunOptions<E, R>
  ): Effect.fn.Return<CommandResult, RunError | E, R> {
    const spec = yield* runSpecOf(argv, options)
    const kept: RunOptions<E, R> = { ...options, keep: options.keep ?? "both" }
    const output = new Output()
    const gathered =
      options.stdin === undefined
        ? gather(spec, kept, output)
        : Stream.runForEach(events(spec, kept), (event) => Effect.sync(() => output.add(event)))
    yield* Effect.mapError(gathered, (error) => (isLimit(error) ? timedOut(spec, output) : error))
    return yield* resultOf(spec, output)
  })

  const start = Effect.fnUntraced(function* (argv: ReadonlyArray<string>, options: StartOptions) {
    const { stdin = false } = yield* optionsObject(options)
    const spec = yield* specOf(argv, options, { stdin })
    return makeProcess(client, sandboxId, yield* startOf(spec))
  })

  const refOf = Effect.fnUntraced(function* (id: string) {
    const processId = yield* decodeProcessId(id)
    // Looked up, and not attached to: whoever wants to kill it can, also when no more readers are let in.
    const found = (yield* client.ListProcesses({ sandboxId })).find((info) => info.processId === processId)
    return found ?? (yield* new NotFound({ kind: "process", id }))
  })

  const stream = <E, R>(argv: ReadonlyArray<string>, options: RunOptions<E, R>) =>
    Stream.unwrap(Effect.map(runSpecOf(argv, options), (spec) => events(spec, options)))

  return {
    process: {
      run: Effect.fn("Sandbox.process.run")(
        <E = never, R = never>(argv: Argv, options: RunOptions<E, R> = {}) => run(argv, options)
      ),
      stream: (argv, options = {}) => stream(argv, options),
      start: Effect.fn("Sandbox.process.start")((argv: Argv, options: StartOptions = {}) =>
        start(argv, options)
      ),
      connect: Effect.fn("Sandbox.process.connect")((id: string) =>
        Effect.map(refOf(id), (ref) => makeProcess(client, sandboxId, ref))
      ),
      list: client.ListProcesses({ sandboxId })
    },
    commands: {
      run: Effect.fn("Sandbox.commands.run")(
        <E = never, R = never>(command: string, options: RunOptions<E, R> = {}) =>
          run(shellArgv(command), options)
      ),
      stream: (command, options = {}) => stream(shellArgv(command), options),
      start: Effect.fn("Sandbox.commands.start")((command: string, options: StartOptions = {}) =>
        start(shellArgv(command), options)
      )
    },
    pty: {
      open: Effect.fn("Sandbox.pty.open")(function* (options) {
        const { size, background = false } = yield* decodeOpening(options)
        const { argv = ["/bin/sh", "-l"] } = options
        const held = background ? {} : { lease }
        const spec = yield* specOf(argv, options, { stdin: true, pty: size, ...held })
        return makePty(client, sandboxId, yield* startOf(spec))
      }),
      connect: Effect.fn("Sandbox.pty.connect")((id: string) =>
        Effect.map(refOf(id), (ref) => makePty(client, sandboxId, ref))
      )
    }
  }
}

/** Whether a start that failed may have happened all the same. */
const mayHaveStarted = (cause: Cause.Cause<unknown>): boolean => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return !Predicate.hasProperty(error, "outcome") || error.outcome !== "not-started"
}

/** Whether a program's limit passed, and what its machine still had to say of it was not heard. */
const isLimit = (error: unknown): boolean => error instanceof Timeout && error.limit === "command"

/** That a program's limit has passed, with what it had written. */
const timedOut = ({ timeoutMillis = 0 }: ProcessSpec, { captured }: Output) =>
  new Timeout({ limit: "command", millis: timeoutMillis, outcome: "unknown", ...captured })

const resultOf = Effect.fnUntraced(function* (
  spec: ProcessSpec,
  output: Output
): Effect.fn.Return<CommandResult, RunError> {
  const { started, exited, captured } = output
  if (started === undefined || exited === undefined) {
    return yield* new InvalidResponse({ reason: "a process's events ended before its exit" })
  }
  if (exited.timedOut) return yield* timedOut(spec, output)
  if (exited.lapsedMillis !== undefined) {
    return yield* new Timeout({
      limit: "lease",
      millis: exited.lapsedMillis,
      outcome: "unknown",
      ...captured
    })
  }
  const exitCode = exitCodeOf(exited.status)
  if (exitCode !== 0) {
    const signal = exited.status._tag === "Signaled" ? exited.status.signal : undefined
    return yield* new CommandExit({ exitCode, signal, ...captured })
  }
  const { isolation, generation } = started
  return {
    processId: spec.processId,
    exitCode,
    ...captured,
    isolation,
    generation
  }
})
