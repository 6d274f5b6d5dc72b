/**
 * The options of `fiberbox run`, and what they ask for.
 */
import { type Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import type { RunRequest } from "./Run.ts"
import {
  commandArgument,
  connectionFlags,
  jsonFlag,
  limitsOf,
  noStdinFlag,
  programFlags,
  sandboxFlags,
  ttyOf
} from "./SharedFlags.ts"

/** The backends a command line can choose. */
export const backends = ["container", "memory"] as const
/** The one that is used when none is named. */
export const defaultBackend = "container"
export type BackendName = (typeof backends)[number]

const flags = {
  backend: Flag.Literals("backend", backends).pipe(
    Flag.withDescription(
      "Where the sandbox runs: a Linux container (the default), or a simulation in memory; by this command itself, not by a service"
    ),
    Flag.optional
  ),
  ...sandboxFlags,
  ...programFlags,
  noStdin: noStdinFlag,
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line: created, started, output, exited or error"),
  command: commandArgument
}

/** What the command line said. */
export type RunOptions = Command.Command.Config.Infer<typeof flags>

/** What a set of options asks for; `interactive` says whether a person sits at a terminal. */
export const requestOf = (options: RunOptions, interactive: boolean): RunRequest => {
  const sandbox = limitsOf(options)
  return {
    processId: "run",
    argv: options.command,
    sandbox,
    process: {
      cwd: Option.getOrUndefined(options.workdir),
      user: Option.getOrUndefined(options.user),
      timeoutMillis: Option.getOrUndefined(options.timeout),
      // At a terminal they stand before what is known of that.
      env: sandbox.env
    },
    json: options.json,
    tty: ttyOf(options, interactive),
    stdin: !options.noStdin
  }
}

const examples = [
  { command: "fiberbox run -- python3 -c 'print(2+2)'", description: "Run a program and see its output" },
  { command: "fiberbox run -- bash", description: "Open a shell in a fresh sandbox" },
  {
    command: "fiberbox run -- sort < names.txt > sorted.txt",
    description: "Stand in a pipeline like any program"
  },
  {
    command: "fiberbox run --memory 256m --cpus 0.5 --timeout 30s -- sh -c 'make && ./a.out'",
    description: "Set limits; beyond its time the command is ended with exit code 124"
  },
  {
    command: 'while read -r name; do fiberbox run -n -- id "$name"; done < names.txt',
    description: "Leave the lines of a loop to the loop"
  },
  { command: "fiberbox run -e LANG -e MODE=test -- env", description: "Pass variables on" },
  {
    command: "fiberbox run --json -- node build.js | jq -r 'select(.event==\"output\").text'",
    description: "Read what happens as JSON lines"
  }
]

const description = `Run one command in a fresh sandbox, which is gone afterwards

Both outputs and standard input pass through; at a terminal, so does the terminal. Standard input is read to its
end, also by a command that needs none of it, so -n where it is also another's; what breaks it ends the command. Ctrl-C without a
terminal inside interrupts the command and takes everything down. The sandbox is made by the service that --url
or FIBERBOX_URL names, else by the one you run on this machine, else, or with --backend, by this command itself.

The exit code is the command's own, or 128 plus the number of the signal that ended it. 124: ended by
--timeout. 125: fiberbox itself failed, or could not read or write its own streams. 126: the command cannot be
started. 127: it is not found. 141: nobody reads the output any more, and the command was ended.`

/** The command `run`. `perform` does what was asked and gives the exit code. */
export const makeRunCommand = <R>(perform: (options: RunOptions) => Effect.Effect<void, never, R>) =>
  Command.make("run", flags, perform).pipe(
    Command.withDescription(description),
    Command.withShortDescription("Run one command in a fresh sandbox"),
    Command.withExamples(examples)
  )
