/**
 * Options that several commands share: what a sandbox shall be, how a program
 * runs in one, which service is meant.
 */
import { Option } from "effect"
import { Argument, type Command, Flag } from "effect/cli"
import { User } from "../domain/Sandbox.ts"
import type { Argv } from "../services/Processes.ts"
import type { CreateOptions } from "../services/Sandboxes.ts"
import * as Units from "./Units.ts"

/** A flag whose text is checked; `expected` says in an error what it must be. */
export const parsed = <A>(
  name: string,
  metavar: string,
  expected: string,
  parse: (text: string) => Option.Option<A>
) =>
  Flag.String(name).pipe(
    Flag.withMetavar(metavar),
    Flag.filterMap(parse, () => expected)
  )

/** What a sandbox shall be. */
export const sandboxFlags = {
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
  )
}

/** What the options ask of a sandbox. */
export const limitsOf = (options: Command.Command.Config.Infer<typeof sandboxFlags>): CreateOptions => ({
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
})

/** How a program runs. */
export const programFlags = {
  timeout: parsed("timeout", "TIME", "a duration such as 30s or 5m, more than 0", Units.parseDuration).pipe(
    Flag.withDescription("End the command after this long, with exit code 124 (default: no limit)"),
    Flag.optional
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
  )
}

/** What stands for an empty standard input, as with ssh. */
export const noStdinFlag = Flag.Boolean("no-stdin").pipe(
  Flag.withAlias("n"),
  Flag.withDescription(
    "Leave standard input alone: the command reads nothing. Needed where others read it too, as in a `while read` loop"
  ),
  Flag.withDefault(false)
)

/** Whether a command has a terminal: if that is asked for, or if a person sits at both ends and may type. */
export const ttyOf = (
  options: { readonly tty: Option.Option<boolean>; readonly json: boolean; readonly noStdin: boolean },
  interactive: boolean
): boolean => Option.getOrElse(options.tty, () => interactive && !options.json && !options.noStdin)

/** The program, at the end of a command line. */
export const commandArgument = Argument.String("command").pipe(
  Argument.withDescription("The program and its arguments, as they are; put -- before it"),
  Argument.atLeast(1),
  Argument.filterMap(
    ([program, ...args]) =>
      program === undefined || program === "" ? Option.none() : Option.some<Argv>([program, ...args]),
    () => "a program"
  )
)

/** Which service is meant. */
export const connectionFlags = {
  url: Flag.String("url").pipe(
    Flag.withMetavar("URL"),
    Flag.withDescription(
      "The service to talk to (default: FIBERBOX_URL, else the one you run here, else none)"
    ),
    Flag.optional
  ),
  token: Flag.Redacted("token").pipe(
    Flag.withMetavar("TOKEN"),
    Flag.withDescription(
      "The token for it (default: FIBERBOX_TOKEN, which others on this machine cannot see)"
    ),
    Flag.optional
  )
}
/** What the options say of the service. */
export type ConnectionOptions = Command.Command.Config.Infer<typeof connectionFlags>

/** Documents for programs instead of text for people. */
export const jsonFlag = (what: string) =>
  Flag.Boolean("json").pipe(Flag.withDescription(what), Flag.withDefault(false))

/** The sandbox that is meant. */
export const sandboxArgument = Argument.String("sandbox").pipe(
  Argument.withDescription("Its id, name or slug")
)

/** How a command finds the sandboxes it works on; for its help. */
export const whereHelp = `Sandboxes are those of the service that --url or FIBERBOX_URL names; else of the one you run on this
machine (\`fiberbox serve\`); else, without any, your own on this machine, which one command at a time
can use, and whose time limits and restart policies act only while a command runs.`
