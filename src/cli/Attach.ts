/**
 * `fiberbox attach`, `logs`, `ps`: processes in the background.
 */
import { Clock, Deferred, Effect, Option, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { exitCodeOf, type ProcessInfo } from "../domain/Process.ts"
import type { Process, Pty } from "../services/Process.ts"
import type { Sandbox } from "../services/Sandbox.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { type DetachKeys, defaultDetachKeys, detachable, parseDetachKeys } from "./DetachKeys.ts"
import { Refused, refuse } from "./Failure.ts"
import { performOn, remark, writeJson, writeText } from "./Perform.ts"
import { neverIdle, newProgress, type Progress, passOn, throughTerminal, writeLine } from "./Program.ts"
import { connectionFlags, jsonFlag, parsed, sandboxArgument } from "./SharedFlags.ts"
import { stdin } from "./Stdio.ts"
import * as Terminal from "./Terminal.ts"
import { commandLine, duration, table } from "./Text.ts"

/** The keys that leave a program at a terminal. */
export const detachKeysFlag = parsed(
  "detach-keys",
  "KEYS",
  "keys with commas between, such as ctrl-p,ctrl-q or ctrl-], or none",
  parseDetachKeys
).pipe(
  Flag.withDescription(
    `Keys that leave it running (default: FIBERBOX_DETACH_KEYS, else ${defaultDetachKeys}); none: no keys do`
  ),
  Flag.optional
)

/** The keys as chosen, by the option or the environment. */
export const detachKeysOf = (chosen: Option.Option<DetachKeys>): DetachKeys =>
  chosen.pipe(
    Option.orElse(() => parseDetachKeys(process.env.FIBERBOX_DETACH_KEYS ?? defaultDetachKeys)),
    Option.orElse(() => parseDetachKeys(defaultDetachKeys)),
    Option.getOrElse(() => new Uint8Array(0))
  )

const processArgument = Argument.String("process").pipe(
  Argument.withDescription("Its process id; may be left out where only one runs"),
  Argument.optional
)

const cursorFlag = parsed("cursor", "BYTES", "0 or a number of bytes, or end", (text) => {
  if (text === "end") return Option.some<number | "end">("end")
  return /^\d{1,15}$/.test(text) ? Option.some<number | "end">(Number(text)) : Option.none()
}).pipe(
  Flag.withDescription(
    "Where in its output to begin: a position, or end for only what is new (default: all kept)"
  ),
  Flag.optional
)

/** The process that is meant. */
const chooseProcess = Effect.fnUntraced(function* (sandbox: Sandbox, named: Option.Option<string>) {
  const all = yield* sandbox.process.list
  if (Option.isSome(named)) {
    const found = all.find(({ processId }) => processId === named.value)
    // What is not listed is asked for all the same, so that the answer is the contract's own.
    return found ?? (yield* Effect.as(sandbox.process.connect(named.value), undefined))
  }
  const running = all.filter(({ exit }) => exit === undefined)
  const [only, another] = running.length === 0 && all.length === 1 ? all : running
  if (only !== undefined && another === undefined) return only
  return yield* refuse(
    only === undefined ? "no process runs in it" : `${running.length} processes run in it`,
    only === undefined
      ? "`fiberbox exec -d` starts one"
      : `say which: ${running.map(({ processId }) => processId).join(", ")}`
  )
})

const startOf = (cursor: Option.Option<number | "end">, info: ProcessInfo): number | undefined =>
  Option.getOrUndefined(Option.map(cursor, (at) => (at === "end" ? info.end : at)))

/** Tells how to come back to a program that was left. */
export const tellDetached = (
  options: { readonly json: boolean; readonly sandbox: string },
  sandbox: Sandbox,
  { processId }: Process,
  { cursor }: Progress
) =>
  Effect.ignore(
    options.json
      ? writeLine({ event: "detached", sandboxId: sandbox.id, processId, cursor })
      : remark(
          options,
          `left it running; fiberbox attach ${commandLine([options.sandbox])} ${processId} --cursor ${cursor}`
        )
  )

/** Sits at a program's terminal until it ends, which gives its exit code, or until the keys leave it, which gives nothing. */
export const sitAt = (
  sandbox: Sandbox,
  pty: Pty,
  request: {
    readonly json: boolean
    readonly cursor?: number | undefined
    readonly keys: DetachKeys
  },
  progress: Progress
) =>
  Effect.gen(function* () {
    const left = yield* Deferred.make<void>()
    const typed = detachable(stdin, request.keys, Deferred.succeed(left, undefined))
    const through = throughTerminal(sandbox, pty, { ...request, tty: true, process: {} }, progress, typed)
    return yield* Effect.raceFirst(
      Effect.asSome(through),
      Effect.as(Deferred.await(left), Option.none<number>())
    )
  })

const attachFlags = {
  cursor: cursorFlag,
  stdin: Flag.Boolean("stdin").pipe(
    Flag.withAlias("i"),
    Flag.withDescription(
      "Pass standard input on to a process without a terminal, and end its own at the end of it"
    ),
    Flag.withDefault(false)
  ),
  detachKeys: detachKeysFlag,
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line: started, output, then exited, detached or error"),
  sandbox: sandboxArgument,
  process: processArgument
}

type AttachCommandOptions = Command.Command.Config.Infer<typeof attachFlags>

const atTerminal = Effect.fnUntraced(function* (
  sandbox: Sandbox,
  info: ProcessInfo,
  options: AttachCommandOptions
) {
  const pty = yield* sandbox.pty.connect(info.processId)
  if (Terminal.isInteractive()) yield* Effect.ignore(pty.resize(yield* Terminal.size))
  const progress = newProgress()
  const request = {
    json: options.json,
    cursor: startOf(options.cursor, info),
    keys: detachKeysOf(options.detachKeys)
  }
  const tell = tellDetached(options, sandbox, pty, progress)
  const exitCode = yield* Effect.onInterrupt(sitAt(sandbox, pty, request, progress), () => tell)
  if (Option.isNone(exitCode)) yield* tell
  return Option.getOrElse(exitCode, () => 0)
})

const atPipes = Effect.fnUntraced(function* (
  sandbox: Sandbox,
  info: ProcessInfo,
  options: AttachCommandOptions
) {
  const process = yield* sandbox.process.connect(info.processId)
  const progress = newProgress()
  const events = process.events({ cursor: startOf(options.cursor, info), idleMillis: neverIdle })
  // What the program does not take is its own affair; what cannot be read here leaves its input open.
  const feed = Stream.runForEach(stdin, process.write).pipe(
    Effect.andThen(process.closeStdin),
    Effect.catchIf(isInside, () => Effect.void)
  )
  return yield* (options.stdin ? Stream.mergeEffect(events, feed) : events).pipe(
    passOn(sandbox, { json: options.json, tty: false, process: {} }, progress),
    Effect.onInterrupt(() => tellDetached(options, sandbox, process, progress))
  )
}, Effect.scoped)

const isInside = <E>(error: E): error is Exclude<E, Refused> => !(error instanceof Refused)

/** The command `attach`. */
export const attach = Command.make("attach", attachFlags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.connect(options.sandbox)
      const info = yield* chooseProcess(sandbox, options.process)
      if (info === undefined) return
      return yield* (info.pty ? atTerminal : atPipes)(sandbox, info, options)
    })
  )
).pipe(
  Command.withDescription(`Attach to a process in the background: its output from any byte on, its terminal, its exit code

Detaching leaves it running: with Ctrl-C, or, where it has a terminal, with the detach keys; what is told then
is how to come back without missing a byte.`),
  Command.withShortDescription("Attach to a process in the background"),
  Command.withExamples([
    { command: "fiberbox attach dev", description: "To the one process that runs there" },
    { command: "fiberbox attach dev build --cursor 4096", description: "Go on where one left" },
    { command: "fiberbox attach dev top --detach-keys ctrl-]", description: "Leave it with Ctrl-]" }
  ])
)

const logsFlags = {
  follow: Flag.Boolean("follow").pipe(
    Flag.withAlias("f"),
    Flag.withDescription("Go on until the process ends or Ctrl-C"),
    Flag.withDefault(false)
  ),
  cursor: cursorFlag,
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line: started, output, and exited when it has"),
  sandbox: sandboxArgument,
  process: processArgument
}

/** The command `logs`. */
export const logs = Command.make("logs", logsFlags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.connect(options.sandbox)
      const info = yield* chooseProcess(sandbox, options.process)
      if (info === undefined) return
      const process = yield* sandbox.process.connect(info.processId)
      const cursor = startOf(options.cursor, info)
      const all = process.events({ cursor, idleMillis: neverIdle })
      const progress = newProgress()
      const pass = passOn(sandbox, { json: options.json, tty: false, process: {} }, progress)
      if (options.follow || info.exit !== undefined) return yield* Effect.asVoid(pass(all))
      if ((cursor ?? info.oldest) >= info.end) return
      const reached = Stream.takeUntil(
        all,
        (event) => event._tag === "Output" && event.cursor + event.data.byteLength >= info.end
      )
      yield* Effect.catchTag(pass(reached), "InvalidResponse", (error) =>
        progress.cursor >= info.end ? Effect.void : Effect.fail(error)
      )
    })
  )
).pipe(
  Command.withDescription("Show what a process has written, as far as it is kept (by default its last MiB)"),
  Command.withExamples([
    { command: "fiberbox logs dev build", description: "What it wrote so far" },
    { command: "fiberbox logs -f dev build", description: "And what it writes from now on" }
  ])
)

const psFlags = {
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line for each process"),
  sandbox: sandboxArgument
}

const stateOf = ({ exit }: ProcessInfo): string =>
  exit === undefined ? "running" : exit._tag === "Signaled" ? exit.signal : `exited ${exitCodeOf(exit)}`

/** The command `ps`. */
export const ps = Command.make("ps", psFlags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.connect(options.sandbox)
      const processes = yield* sandbox.process.list
      if (options.json) return yield* Effect.forEach(processes, writeJson, { discard: true })
      const now = yield* Clock.currentTimeMillis
      return yield* writeText(
        table(
          ["PROCESS", "PID", "STATE", "STARTED", "OUTPUT", "COMMAND"],
          processes.map((info) => [
            info.processId,
            `${info.pid}`,
            stateOf(info),
            `${duration(Math.max(0, now - info.startedAt))} ago`,
            `${info.end}`,
            commandLine(info.argv)
          ])
        )
      )
    })
  )
).pipe(
  Command.withDescription("List the processes that were started from outside, running and lately ended"),
  Command.withExamples([{ command: "fiberbox ps dev", description: "With what one can attach to" }])
)
