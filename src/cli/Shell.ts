/**
 * `fiberbox shell`: a terminal in a sandbox.
 */
import { Effect, Option } from "effect"
import { Argument, Command } from "effect/cli"
import type { Argv } from "../services/Processes.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { detachKeysFlag, detachKeysOf, sitAt, tellDetached } from "./Attach.ts"
import { sandboxes } from "./Connect.ts"
import { newProcessId } from "./Exec.ts"
import { refuse } from "./Failure.ts"
import { perform } from "./Perform.ts"
import { conduct, newProgress, type Progress } from "./Program.ts"
import { connectionFlags, programFlags, sandboxArgument, sandboxFlags } from "./SharedFlags.ts"
import { endWith } from "./Stdio.ts"
import * as Terminal from "./Terminal.ts"

const flags = {
  env: sandboxFlags.env,
  user: programFlags.user,
  workdir: programFlags.workdir,
  detachKeys: detachKeysFlag,
  ...connectionFlags,
  sandbox: sandboxArgument,
  command: Argument.String("command").pipe(
    Argument.withDescription("What to run instead of a login shell; put -- before it"),
    Argument.atLeast(0)
  )
}

type Options = Command.Command.Config.Infer<typeof flags>

/** Bash where there is one, as a login shell. */
const loginShell: Argv = ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l"]

const argvOf = ([program, ...args]: ReadonlyArray<string>): Argv =>
  program === undefined ? loginShell : [program, ...args]

const inSandbox = Effect.fnUntraced(function* (options: Options, processId: string, progress: Progress) {
  const sandbox = yield* Sandboxes.connect(options.sandbox)
  const left = { behind: false }
  const pty = yield* Effect.acquireRelease(
    sandbox.pty.open({
      processId,
      argv: argvOf(options.command),
      cwd: Option.getOrUndefined(options.workdir),
      user: Option.getOrUndefined(options.user),
      env: { ...Terminal.environment(), ...Object.fromEntries(options.env) },
      size: yield* Terminal.size,
      // Somebody may leave it and come back, so it does not end with this client.
      background: true
    }),
    (pty) => (left.behind || progress.exitCode !== undefined ? Effect.void : Effect.ignore(pty.kill)),
    { interruptible: true }
  )
  const keys = detachKeysOf(options.detachKeys)
  const exitCode = yield* sitAt(sandbox, pty, { json: false, keys }, progress)
  if (Option.isSome(exitCode)) return exitCode.value
  left.behind = true
  yield* tellDetached({ json: false, sandbox: options.sandbox }, sandbox, pty, progress)
  return 0
}, Effect.scoped)

const noTerminal = refuse(
  "a shell needs a terminal, and standard input or output is none",
  "`fiberbox exec SANDBOX -- sh` reads a script from standard input"
)

const description = `Open a shell in a sandbox

This terminal becomes its terminal: every key goes inside, Ctrl-C and Ctrl-Z too, and the size follows. The
detach keys leave the shell running; what is told then is how to come back. The exit code is the shell's own.
However it ends, this terminal is as it was before.`

/** The command `shell`. */
export const shell = Command.make("shell", flags, (options) =>
  Effect.gen(function* () {
    if (!Terminal.isInteractive()) return yield* perform({ json: false }, Effect.fail(noTerminal))
    const progress = newProgress()
    const processId = yield* newProcessId
    const program = Effect.provide(inSandbox(options, processId, progress), sandboxes(options))
    yield* endWith(yield* conduct({ json: false, processId }, progress, program))
  })
).pipe(
  Command.withDescription(description),
  Command.withShortDescription("Open a shell in a sandbox"),
  Command.withExamples([
    { command: "fiberbox shell dev", description: "Sit down in it; Ctrl-P Ctrl-Q leaves it running" },
    { command: "fiberbox shell -u root dev", description: "As root of the sandbox" },
    { command: "fiberbox shell dev -- python3", description: "At another program" }
  ])
)
