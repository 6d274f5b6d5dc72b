/**
 * One program in a sandbox with this process's own streams around it: what
 * `run`, `exec`, `shell` and `attach` have in common.
 */
import { Cause, Effect, Option, Stream } from "effect"
import { InvalidResponse, silenceOf } from "../domain/Errors.ts"
import { exitCodeOf, type ProcessEvent, type Signal } from "../domain/Process.ts"
import type { Pty } from "../services/Process.ts"
import type { Argv, ProcessOptions } from "../services/Processes.ts"
import type { Sandbox } from "../services/Sandbox.ts"
import { describe, interrupted, type Refused, toLine } from "./Failure.ts"
import { encodeLine, Lines, type RunEvent, timedOutCode } from "./RunEvent.ts"
import { ScreenModes } from "./ScreenModes.ts"
import { underSignals } from "./Signals.ts"
import { OutputClosed, outputClosedCode, stdin, write } from "./Stdio.ts"
import * as Terminal from "./Terminal.ts"

/** A program to run in a sandbox that exists. */
export interface ProgramRequest {
  readonly processId: string
  readonly argv: Argv
  /** Where, as whom and for how long the program runs. */
  readonly process: Pick<ProcessOptions, "cwd" | "user" | "timeoutMillis" | "env">
  /** Write the events of {@link RunEvent} instead of the program's output. */
  readonly json: boolean
  /** Give the program a terminal. */
  readonly tty: boolean
  /** Pass standard input on; otherwise it is not touched. */
  readonly stdin: boolean
}

/** How far a program has come: where signals go once it runs, how much of its output was passed on, how it ended. */
export interface Progress {
  runningIn: Sandbox | undefined
  cursor: number
  exitCode: number | undefined
}

/** Nothing has begun. */
export const newProgress = (): Progress => ({ runningIn: undefined, cursor: 0, exitCode: undefined })

/**
 * Carries a program through to its end and gives the exit code that `fiberbox`
 * ends with. What goes wrong is told on standard error (or in JSON). Signals to
 * this process go to the program.
 */
export const conduct = <E, R>(
  request: Pick<ProgramRequest, "json" | "processId">,
  progress: Progress,
  program: Effect.Effect<number, E, R>
): Effect.Effect<number, never, R> =>
  underSignals(program, {
    forward: (signal) =>
      Option.map(runningIn(progress), (sandbox) => forward(sandbox, request.processId, signal)),
    exitCode: () => progress.exitCode
  }).pipe(
    Effect.tap((exitCode) =>
      request.json && progress.exitCode === undefined ? lastLine(interrupted(exitCode)) : Effect.void
    ),
    Effect.catchCause((cause) => {
      const error = Cause.squash(cause)
      return error instanceof OutputClosed ? reportClosed(error) : report(request.json, cause)
    })
  )

/** Nobody reads any more: unlike other commands', a program's end is told, because more than its output ends with it. */
const reportClosed = (error: OutputClosed): Effect.Effect<number> =>
  Effect.as(Effect.ignore(write("stderr", `fiberbox: ${error.message}\n`)), outputClosedCode)

const runningIn = ({ exitCode, runningIn }: Progress): Option.Option<Sandbox> =>
  exitCode === undefined ? Option.fromUndefinedOr(runningIn) : Option.none()

const forward = (sandbox: Sandbox, processId: string, signal: Signal): Effect.Effect<void> =>
  sandbox.process.connect(processId).pipe(
    Effect.flatMap((process) => process.signal(signal)),
    Effect.ignore
  )

/** Tells why something failed, and gives the exit code for it. What standard output does not take is told as text. */
export const report = (json: boolean, cause: Cause.Cause<unknown>): Effect.Effect<number> => {
  const failure = describe(cause)
  const asText = write("stderr", toLine(failure))
  const told = json ? Effect.catch(writeLine(failure), () => asText) : asText
  // With both of them gone there is nobody to tell; the exit code is left.
  return Effect.as(Effect.ignore(told), failure.exitCode)
}

/** Writes one line of JSON. */
export const writeLine = (event: RunEvent) => write("stdout", encodeLine(event))

/** A line that nobody may be there to read. */
const lastLine = (event: RunEvent) => Effect.ignore(Effect.timeout(writeLine(event), "100 millis"))

/** Runs a program in a sandbox to its end, and gives its exit code. It is killed when this is interrupted. */
export const runProgram = (sandbox: Sandbox, request: ProgramRequest, progress: Progress) =>
  request.tty ? onTerminal(sandbox, request, progress) : onPipes(sandbox, request, progress)

const onPipes = (sandbox: Sandbox, request: ProgramRequest, progress: Progress) =>
  sandbox.process
    .stream(request.argv, {
      ...request.process,
      processId: request.processId,
      timeoutMillis: request.process.timeoutMillis ?? "none",
      maxOutputBytes: "none",
      idleMillis: neverIdle,
      stdin: request.stdin ? stdin : undefined
    })
    .pipe(passOn(sandbox, request, progress))

const onTerminal = (sandbox: Sandbox, request: ProgramRequest, progress: Progress) =>
  Effect.gen(function* () {
    const { argv, process, processId } = request
    const env = { ...Terminal.environment(), ...process.env }
    const size = yield* Terminal.size
    const pty = yield* Effect.acquireRelease(
      sandbox.pty.open({ ...process, processId, argv, env, size }),
      (pty) => (progress.exitCode === undefined ? Effect.ignore(pty.kill) : Effect.void),
      { interruptible: true }
    )
    return yield* throughTerminal(sandbox, pty, request, progress, request.stdin ? stdin : Stream.empty)
  }).pipe(Effect.scoped)

/** How a program on a terminal is read. */
export type TerminalRequest = Pick<ProgramRequest, "json" | "tty" | "process"> & {
  /** The first byte of its output to show; default: the oldest kept. */
  readonly cursor?: number | undefined
}

/**
 * Hands this terminal to a program: its output, the keys typed, every change of
 * size. Gives its exit code. At the end, whatever the end, this terminal is as it was.
 */
export const throughTerminal = <E>(
  sandbox: Sandbox,
  pty: Pty,
  request: TerminalRequest,
  progress: Progress,
  typed: Stream.Stream<Uint8Array, E>
) =>
  Effect.gen(function* () {
    const modes = new ScreenModes()
    yield* Effect.addFinalizer(() => Effect.ignore(write("stdout", request.json ? "" : modes.undo())))
    yield* Terminal.raw
    // What the program cannot be given now is lost, as at any terminal.
    const typing = Stream.runForEach(typed, (keys) => Effect.ignore(pty.write(keys)))
    yield* Effect.forkScoped(Effect.ignore(Stream.runForEach(Terminal.resizes, pty.resize)))
    return yield* pty.events({ cursor: request.cursor, idleMillis: neverIdle }).pipe(
      Stream.mergeEffect(typing),
      Stream.tap((event) => Effect.sync(() => event._tag === "Output" && modes.see(event.data))),
      passOn(sandbox, request, progress)
    )
  }).pipe(Effect.scoped)

/** A reader at a terminal may look at one page for days. */
export const neverIdle = 30 * 86_400_000

/** Passes output on as it comes, never faster than it is read, and gives the exit code. */
export const passOn =
  (sandbox: Sandbox, request: Pick<ProgramRequest, "json" | "tty" | "process">, progress: Progress) =>
  <E, R>(
    events: Stream.Stream<ProcessEvent, E, R>
  ): Effect.Effect<number, E | OutputClosed | Refused | InvalidResponse, R> =>
    Effect.gen(function* () {
      const pass = request.json ? passAsLines() : passAsBytes(request)
      yield* Stream.runForEach(events, (event) => {
        note(event, sandbox, progress)
        return pass(event)
      })
      return (
        progress.exitCode ??
        (yield* new InvalidResponse({ reason: "a process's events ended before its exit" }))
      )
    })

const note = (event: ProcessEvent, sandbox: Sandbox, progress: Progress): void => {
  switch (event._tag) {
    case "Started":
      progress.runningIn = sandbox
      return
    case "Output":
      progress.cursor = event.cursor + event.data.byteLength
      return
    case "Truncated":
      progress.cursor = event.to
      return
    case "Exited":
      progress.exitCode = event.timedOut ? timedOutCode : exitCodeOf(event.status)
  }
}

type Pass = (event: ProcessEvent) => Effect.Effect<void, OutputClosed | Refused>

const passAsLines = (): Pass => {
  const lines = new Lines()
  return (event) => Effect.forEach(lines.of(event), writeLine, { discard: true })
}

const passAsBytes = ({ process, tty }: Pick<ProgramRequest, "tty" | "process">): Pass => {
  // A raw terminal moves down at a newline, and not to the left.
  const say = (text: string) => write("stderr", `fiberbox: ${text}${tty ? "\r" : ""}\n`)
  return (event) => {
    switch (event._tag) {
      case "Started":
        return Effect.void
      case "Output":
        return write(event.stream, event.data)
      case "Truncated":
        return say(`${event.to - event.from} bytes of output were lost here`)
      case "Exited": {
        const { timeoutMillis } = process
        if (event.lapsedMillis !== undefined) return say(silenceOf(event.lapsedMillis))
        return event.timedOut && timeoutMillis !== undefined
          ? say(`ended by --timeout after ${timeoutMillis / 1000} s`)
          : Effect.void
      }
    }
  }
}
