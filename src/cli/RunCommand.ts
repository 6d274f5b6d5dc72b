/**
 * The options of `fiberbox run`, and what they ask for.
 */
import { type Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { User } from "../domain/Sandbox.ts"
import type { Argv } from "../services/Processes.ts"
import type { CreateOptions } from "../services/Sandboxes.ts"
import type { RunRequest } from "./Run.ts"
import * as Units from "./Units.ts"

/** The backends a command line can choose. */
export const backends = ["container", "memory"] as const
/** The one that is used when none is named. */
export const defaultBackend = "container"
export type BackendName = (typeof backends)[number]

const parsed = <A>(
  name: string,
  metavar: string,
  expected: string,
  parse: (text: string) => Option.Option<A>
) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.filterMap(parse, () => expected)
  )

const flags = {
  backend: Flag.Literals("backend", backends).pipe(
    Flag.withDescription("Where the sandbox runs: a Linux container, or a simulation in memory"),
    Flag.withDefault(defaultBackend)
  ),
  image: Flag.String("image").pipe(
    Flag.withMetavar("IMAGE"),
    Flag.withDescription(
      "Its root file system: host (this machine's programs; the default) or dir:/absolute/path"
    ),
    Flag.optional
  ),
  memory: parsed("memory", "SIZE", "a size such as 512m or 1g, more than 0", Units.parseSize).pipe(
    Flag.withAlias("m"),
    Flag.withDescription("Memory limit, such as 512m or 1g (default 512m)"),
    Flag.optional
  ),
  cpus: parsed("cpus", "N", "a number such as 2 or 0.5, more than 0", Units.parsePositive).pipe(
    Flag.withDescription("Processor time, in processors (default 1)"),
    Flag.optional
  ),
  pids: parsed("pids", "N", "a whole number, more than 0", Units.parseCount).pipe(
    Flag.withDescription("Processes and threads at one time (default 256)"),
    Flag.optional
  ),
  disk: parsed("disk", "SIZE", "a size such as 500m or 2g, more than 0", Units.parseSize).pipe(
    Flag.withDescription("Bytes that may be written (default 2g)"),
    Flag.optional
  ),
  inodes: parsed("inodes", "N", "a whole number, more than 0", Units.parseCount).pipe(
    Flag.withDescription("Files and directories that may be made (default 200000)"),
    Flag.optional
  ),
  timeout: parsed("timeout", "TIME", "a duration such as 30s or 5m, more than 0", Units.parseDuration).pipe(
    Flag.withDescription("End the command after this long, with exit code 124 (default: no limit)"),
    Flag.optional
  ),
  network: parsed(
    "network",
    "none|full|allow:HOSTS",
    "none, full, or allow:example.org,pypi.org",
    Units.parseNetwork
  ).pipe(
    Flag.withDescription(
      "What it may reach: nothing (the default), everything, or the named hosts; refused where the backend cannot enforce it"
    ),
    Flag.optional
  ),
  env: parsed(
    "env",
    "NAME[=VALUE]",
    "NAME=value, or the NAME of a variable that is set here",
    Units.parseEnv(process.env)
  ).pipe(
    Flag.withAlias("e"),
    Flag.withDescription("Set a variable inside, or pass on the one that is set here; may be repeated"),
    Flag.atLeast(0)
  ),
  user: Flag.Literals("user", User.literals).pipe(
    Flag.withAlias("u"),
    Flag.withDescription("Run as user (uid 1000, no capability; the default) or as the sandbox's own root"),
    Flag.optional
  ),
  workdir: Flag.String("workdir").pipe(
    Flag.withAlias("w"),
    Flag.withMetavar("DIR"),
    Flag.withDescription("Directory to run in, absolute (default: the user's home)"),
    Flag.optional
  ),
  tty: Flag.Boolean("tty").pipe(
    Flag.withAlias("t"),
    Flag.withDescription("Give the command a terminal (default: when it is run from one); --no-tty: never"),
    Flag.optional
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Write one JSON document a line: created, started, output, exited or error"),
    Flag.withDefault(false)
  ),
  command: Argument.String("command").pipe(
    Argument.withDescription("The program and its arguments, as they are; put -- before it"),
    Argument.atLeast(1),
    Argument.filterMap(
      ([program, ...args]) =>
        program === undefined || program === "" ? Option.none() : Option.some<Argv>([program, ...args]),
      () => "a program"
    )
  )
}

/** What the command line said. */
export type RunOptions = Command.Command.Config.Infer<typeof flags>

/** What a set of options asks for; `interactive` says whether a person sits at a terminal. */
export const requestOf = (options: RunOptions, interactive: boolean): RunRequest => {
  const sandbox: CreateOptions = {
    limits: {
      memoryBytes: Option.getOrUndefined(options.memory),
      cpus: Option.getOrUndefined(options.cpus),
      pids: Option.getOrUndefined(options.pids),
      diskBytes: Option.getOrUndefined(options.disk),
      inodes: Option.getOrUndefined(options.inodes)
    },
    image: Option.getOrUndefined(options.image),
    network: Option.getOrUndefined(options.network),
    env: Object.fromEntries(options.env)
  }
  return {
    backend: options.backend,
    argv: options.command,
    sandbox,
    process: {
      cwd: Option.getOrUndefined(options.workdir),
      user: Option.getOrUndefined(options.user),
      timeoutMillis: Option.getOrUndefined(options.timeout)
    },
    json: options.json,
    tty: Option.getOrElse(options.tty, () => interactive && !options.json)
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
  { command: "fiberbox run -e LANG -e MODE=test -- env", description: "Pass variables on" },
  {
    command: "fiberbox run --json -- node build.js | jq -r 'select(.event==\"output\").text'",
    description: "Read what happens as JSON lines"
  }
]

const description = `Run one command in a fresh sandbox, which is gone afterwards

Both outputs and standard input pass through; at a terminal, so does the terminal. Ctrl-C without a
terminal inside interrupts the command and takes everything down.

The exit code is the command's own, or 128 plus the number of the signal that ended it. 124: ended by
--timeout. 125: fiberbox itself failed. 126: the command cannot be started. 127: it is not found.`

/** The command `run`. `perform` does what was asked and gives the exit code. */
export const makeRunCommand = <R>(perform: (options: RunOptions) => Effect.Effect<void, never, R>) =>
  Command.make("run", flags, perform).pipe(
    Command.withDescription(description),
    Command.withShortDescription("Run one command in a fresh sandbox"),
    Command.withExamples(examples)
  )
