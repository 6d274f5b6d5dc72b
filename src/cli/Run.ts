/**
 * `fiberbox run`: one sandbox, one program in it, this process's own streams
 * around it.
 */
import { Cause, Effect, type Layer, Option, Stream } from "effect"
import { InvalidResponse } from "../domain/Errors.ts"
import { exitCodeOf, type ProcessEvent, type Signal } from "../domain/Process.ts"
import type { Argv, ProcessOptions } from "../services/Processes.ts"
import type { Sandbox } from "../services/Sandbox.ts"
import { type CreateOptions, Sandboxes } from "../services/Sandboxes.ts"
import { describe, interrupted, toLine } from "./Failure.ts"
import { encodeLine, Lines, type RunEvent, timedOutCode } from "./RunEvent.ts"
import { underSignals } from "./Signals.ts"
import { OutputClosed, outputClosedCode, stdin, write } from "./Stdio.ts"
import * as Terminal from "./Terminal.ts"

/** What `fiberbox run` was asked to do. */
export interface RunRequest {
  readonly backend: string
  readonly argv: Argv
  readonly sandbox: CreateOptions
  /** Where, as whom and for how long the program runs. */
  readonly process: Pick<ProcessOptions, "cwd" | "user" | "timeoutMillis">
  /** Write the events of {@link RunEvent} instead of the program's output. */
  readonly json: boolean
  /** Give the program a terminal. */
  readonly tty: boolean
}

/** The one program of the sandbox. */
const processId = "run"

/** How far a run has come: where signals go once the program runs, and how it ended. */
interface Progress {
  runningIn: Sandbox | undefined
  exitCode: number | undefined
}

/**
 * Runs the program to its end and gives the exit code that `fiberbox` ends
 * with. What goes wrong is told on standard error (or in JSON), and the sandbox
 * is gone when this returns.
 */
export const run = <E>(
  request: RunRequest,
  backend: Effect.Effect<Layer.Layer<Sandboxes, E>>
): Effect.Effect<number> => {
  const progress: Progress = { runningIn: undefined, exitCode: undefined }
  const program = Effect.flatMap(backend, (layer) =>
    inSandbox(request, progress).pipe(Effect.scoped, Effect.provide(layer))
  )
  return underSignals(program, {
    forward: (signal) => Option.map(runningIn(progress), (sandbox) => forward(sandbox, signal)),
    exitCode: () => progress.exitCode
  }).pipe(
    Effect.tap((exitCode) =>
      request.json && progress.exitCode === undefined ? lastLine(interrupted(exitCode)) : Effect.void
    ),
    Effect.catchCause((cause) =>
      Cause.squash(cause) instanceof OutputClosed ? Effect.succeed(outputClosedCode) : report(request, cause)
    )
  )
}

const runningIn = ({ exitCode, runningIn }: Progress): Option.Option<Sandbox> =>
  exitCode === undefined ? Option.fromUndefinedOr(runningIn) : Option.none()

const forward = (sandbox: Sandbox, signal: Signal): Effect.Effect<void> =>
  sandbox.process.connect(processId).pipe(
    Effect.flatMap((process) => process.signal(signal)),
    Effect.ignore
  )

const report = (request: RunRequest, cause: Cause.Cause<unknown>): Effect.Effect<number> => {
  const failure = describe(cause)
  const told = request.json ? writeLine(failure) : write("stderr", toLine(failure))
  return Effect.as(Effect.ignore(told), failure.exitCode)
}

const writeLine = (event: RunEvent) => write("stdout", encodeLine(event))

/** A line that nobody may be there to read. */
const lastLine = (event: RunEvent) => Effect.ignore(Effect.timeout(writeLine(event), "100 millis"))

const inSandbox = Effect.fnUntraced(function* (request: RunRequest, progress: Progress) {
  const sandbox = yield* Sandboxes.create(request.sandbox)
  if (request.json) {
    const { image = "host" } = request.sandbox
    yield* writeLine({ event: "created", sandboxId: sandbox.id, backend: request.backend, image })
  }
  return yield* (request.tty ? onTerminal : onPipes)(sandbox, request, progress)
})

const onPipes = (sandbox: Sandbox, request: RunRequest, progress: Progress) =>
  sandbox.process
    .stream(request.argv, {
      ...request.process,
      processId,
      timeoutMillis: request.process.timeoutMillis ?? "none",
      maxOutputBytes: "none",
      idleMillis: neverIdle,
      stdin
    })
    .pipe(consume(sandbox, request, progress))

const onTerminal = Effect.fnUntraced(function* (sandbox: Sandbox, request: RunRequest, progress: Progress) {
  const { argv, process } = request
  const env = { ...Terminal.environment(), ...request.sandbox.env }
  const pty = yield* sandbox.pty.open({ ...process, processId, argv, env, size: yield* Terminal.size })
  yield* Terminal.raw
  yield* Effect.forkScoped(Effect.ignore(Stream.runForEach(stdin, pty.write)))
  yield* Effect.forkScoped(Effect.ignore(Stream.runForEach(Terminal.resizes, pty.resize)))
  return yield* pty.events({ idleMillis: neverIdle }).pipe(consume(sandbox, request, progress))
})

/** A reader at a terminal may look at one page for days. */
const neverIdle = 30 * 86_400_000

/** Passes output on as it comes, never faster than it is read, and gives the exit code. */
const consume =
  (sandbox: Sandbox, request: RunRequest, progress: Progress) =>
  <E, R>(
    events: Stream.Stream<ProcessEvent, E, R>
  ): Effect.Effect<number, E | OutputClosed | InvalidResponse, R> =>
    Effect.gen(function* () {
      const pass = request.json ? passAsLines() : passAsBytes(request)
      yield* Stream.runForEach(events, (event) => {
        if (event._tag === "Started") progress.runningIn = sandbox
        if (event._tag === "Exited")
          progress.exitCode = event.timedOut ? timedOutCode : exitCodeOf(event.status)
        return pass(event)
      })
      return (
        progress.exitCode ??
        (yield* new InvalidResponse({ reason: "a process's events ended before its exit" }))
      )
    })

type Pass = (event: ProcessEvent) => Effect.Effect<void, OutputClosed>

const passAsLines = (): Pass => {
  const lines = new Lines()
  return (event) => Effect.forEach(lines.of(event), writeLine, { discard: true })
}

const passAsBytes = (request: RunRequest): Pass => {
  // A raw terminal moves down at a newline, and not to the left.
  const note = (text: string) => write("stderr", `fiberbox: ${text}${request.tty ? "\r" : ""}\n`)
  return (event) => {
    switch (event._tag) {
      case "Started":
        return Effect.void
      case "Output":
        return write(event.stream, event.data)
      case "Truncated":
        return note(`${event.to - event.from} bytes of output were lost here`)
      case "Exited": {
        const { timeoutMillis } = request.process
        return event.timedOut && timeoutMillis !== undefined
          ? note(`ended by --timeout after ${timeoutMillis / 1000} s`)
          : Effect.void
      }
    }
  }
}
