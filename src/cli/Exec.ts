/**
 * `fiberbox exec`: one more program in a sandbox that exists.
 */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { SecureRandom } from "effect/crypto"
import { makeProcessId } from "../domain/Ids.ts"
import type { Sandbox } from "../services/Sandbox.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { sandboxes } from "./Connect.ts"
import { perform, writeJson, writeText } from "./Perform.ts"
import { conduct, newProgress, type ProgramRequest, runProgram } from "./Program.ts"
import {
  commandArgument,
  connectionFlags,
  jsonFlag,
  noStdinFlag,
  programFlags,
  sandboxArgument,
  sandboxFlags,
  ttyOf
} from "./SharedFlags.ts"
import { endWith } from "./Stdio.ts"
import { isInteractive } from "./Terminal.ts"

const flags = {
  detach: Flag.Boolean("detach").pipe(
    Flag.withAlias("d"),
    Flag.withDescription("Start it in the background and print its process id, for attach and logs"),
    Flag.withDefault(false)
  ),
  stdin: Flag.Boolean("stdin").pipe(
    Flag.withDescription("With --detach: keep its standard input open, for `attach --stdin`"),
    Flag.withDefault(false)
  ),
  id: Flag.String("id").pipe(
    Flag.withMetavar("PROCESS"),
    Flag.withDescription("Its process id: 1 to 64 of A-Z a-z 0-9 _ . - (default: one is made up)"),
    Flag.optional
  ),
  env: sandboxFlags.env,
  ...programFlags,
  noStdin: noStdinFlag,
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line: started, output, exited or error"),
  sandbox: sandboxArgument,
  command: commandArgument
}

type Options = Command.Command.Config.Infer<typeof flags>

/** A process id that nobody else has. */
export const newProcessId = Effect.provide(makeProcessId, SecureRandom.layerWebCrypto)

const requestOf = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<ProgramRequest> {
  return {
    processId: Option.isSome(options.id) ? options.id.value : yield* newProcessId,
    argv: options.command,
    process: {
      cwd: Option.getOrUndefined(options.workdir),
      user: Option.getOrUndefined(options.user),
      timeoutMillis: Option.getOrUndefined(options.timeout),
      env: Object.fromEntries(options.env)
    },
    json: options.json,
    tty: ttyOf(options, isInteractive()),
    stdin: !options.noStdin
  }
})

const inForeground = (options: Options, request: ProgramRequest) => {
  const progress = newProgress()
  const program = Effect.flatMap(Sandboxes.connect(options.sandbox), (sandbox) =>
    runProgram(sandbox, request, progress)
  ).pipe(Effect.provide(sandboxes(options)))
  return Effect.flatMap(conduct(request, progress, program), endWith)
}

const startIn = Effect.fnUntraced(function* (sandbox: Sandbox, options: Options, request: ProgramRequest) {
  const { argv, process, processId } = request
  const onTerminal = Option.getOrElse(options.tty, () => false)
  const { env = {} } = process
  const spec = { ...process, processId, env }
  return onTerminal
    ? yield* sandbox.pty.open({
        ...spec,
        env: { TERM: "xterm-256color", ...env },
        argv,
        size: { rows: 24, cols: 80 },
        background: true
      })
    : yield* sandbox.process.start(argv, { ...spec, stdin: options.stdin })
})

const inBackground = (options: Options, request: ProgramRequest) =>
  perform(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.connect(options.sandbox)
      const { generation, pid, processId } = yield* startIn(sandbox, options, request)
      yield* options.json
        ? writeJson({ sandboxId: sandbox.id, processId, pid, generation })
        : writeText(processId)
    }).pipe(Effect.provide(sandboxes(options)))
  )

const description = `Run a command in a sandbox that exists

Streams, standard input, terminal, signals and exit codes are as with \`fiberbox run\`; when fiberbox is
told to end, the command and all that it started is killed, and the sandbox stays.`

/** The command `exec`. */
export const exec = Command.make("exec", flags, (options) =>
  Effect.flatMap(requestOf(options), (request) =>
    options.detach ? inBackground(options, request) : inForeground(options, request)
  )
).pipe(
  Command.withDescription(description),
  Command.withShortDescription("Run a command in a sandbox that exists"),
  Command.withExamples([
    { command: "fiberbox exec dev -- ls -l", description: "See what is in its home" },
    { command: "fiberbox exec dev -- tar -cz . > home.tgz", description: "Stand in a pipeline" },
    { command: "fiberbox exec -u root dev -- sh -c 'id; hostname'", description: "As root of the sandbox" },
    {
      command: "fiberbox exec -d --id build dev -- make -j4",
      description: "In the background; `fiberbox attach dev build` shows it"
    }
  ])
)
