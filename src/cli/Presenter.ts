/**
 * How the command line answers what effect/cli handles by itself: help and the
 * version on standard output, bad arguments as one line on standard error.
 */
import { Console } from "effect"
import { type CliError, CliOutput } from "effect/cli"
import { toLine, usage } from "./Failure.ts"
import { encodeLine } from "./RunEvent.ts"

/** The arguments of fiberbox itself, without those of the command to run. */
const ownArguments = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = args.indexOf("--")
  return end === -1 ? args : args.slice(0, end)
}

const messageOf = (error: CliError.NonShowHelpErrors): string => {
  switch (error._tag) {
    case "UnrecognizedOption": {
      const [suggestion] = error.suggestions
      return `unknown option ${error.option}${suggestion === undefined ? "" : `; did you mean ${suggestion}?`}`
    }
    case "InvalidValue":
      if (error.kind === "argument") {
        return `${error.option} ${JSON.stringify(error.value)} is wrong: expected ${error.expected}`
      }
      return error.value === ""
        ? `--${error.option} needs a value: ${error.expected}`
        : `--${error.option} ${JSON.stringify(error.value)} is wrong: expected ${error.expected}`
    case "MissingArgument":
      return error.argument === "command" ? "no command to run" : `no ${error.argument} is named`
    case "UnknownSubcommand":
      return `there is no command ${JSON.stringify(error.subcommand)}`
    default:
      return error.message
  }
}

/** What stands before the `--` of those that run a command. */
const beforeCommand: Readonly<Record<string, string>> = {
  run: "fiberbox run",
  exec: "fiberbox exec SANDBOX",
  shell: "fiberbox shell SANDBOX"
}

const hintOf = (
  errors: ReadonlyArray<CliError.NonShowHelpErrors>,
  path: ReadonlyArray<string>,
  args: ReadonlyArray<string>
): string => {
  const before = beforeCommand[path.at(-1) ?? ""]
  if (before !== undefined && !args.includes("--")) {
    if (errors.some((error) => error._tag === "MissingArgument" && error.argument === "command")) {
      return `say what to run, as in \`${before} -- echo hello\``
    }
    if (errors.some((error) => error._tag === "UnrecognizedOption")) {
      return `put -- before the command, as in \`${before} -- ls -l\``
    }
  }
  return `\`${path.join(" ")} --help\` lists the options`
}

const lineOf = (
  errors: ReadonlyArray<CliError.NonShowHelpErrors>,
  path: ReadonlyArray<string>,
  args: ReadonlyArray<string>
): string => {
  const failure = usage(errors.map(messageOf).join("; "), hintOf(errors, path, args))
  return ownArguments(args).includes("--json") ? encodeLine(failure) : toLine(failure)
}

/** A presenter for a program with these arguments. */
export const make = (args: ReadonlyArray<string>): CliOutput.Presenter => ({
  present: (event) => {
    if (event._tag !== "InvalidInvocation") return CliOutput.defaultPresenter.present(event)
    const line = lineOf(event.errors, event.commandPath, args).trimEnd()
    return ownArguments(args).includes("--json") ? Console.log(line) : Console.error(line)
  }
})
