/**
 * What the command line says when it could not do what was asked: one line of
 * what is wrong, what to do about it, and an exit code.
 */
import { Cause, Data, Schema } from "effect"
import { SandboxError } from "../domain/Errors.ts"
import { type RunEvent, timedOutCode } from "./RunEvent.ts"

/** fiberbox itself failed; as with podman and docker. */
export const ownFailureCode = 125
/** The command was found and could not be started. */
export const cannotStartCode = 126
/** The command was not found. */
export const notFoundCode = 127

const doctor = "`fiberbox doctor` tells what works here and how to mend the rest"

/** What a user of the command line can do about an error. */
const hintOf = (error: SandboxError): string | undefined => {
  switch (error._tag) {
    case "Unsupported":
      return error.capability.startsWith("network-") ? "leave --network out, or use another backend" : doctor
    case "BackendFailed":
      return error.operation === "listen" ? "--port chooses another, 0 any that is free" : doctor
    case "SandboxFailed":
      return doctor
    case "NotFound":
      return notFoundHint[error.kind]
    case "InvalidState":
      return stateHint[error.status]
    case "Authentication":
      return "--token or FIBERBOX_TOKEN is the token; `fiberbox keys mint` makes one"
    case "Connection":
      return error.outcome === "not-started" ? "does the service run? `fiberbox serve` starts one" : undefined
    case "SpawnFailed":
      return spawnHint[error.reason]
    case "Timeout":
      if (error.limit === "lease") return undefined
      return error.limit === "command" ? "--timeout sets the limit" : doctor
    case "InvalidArgument":
      return error.field === "url"
        ? "such as http://127.0.0.1:7777"
        : "--help after the command lists its options"
    case "ResourceExhausted":
      return "free some of it or try again later"
    case "Conflict":
      return error.kind === "instance" ? "end the other program, or use another state directory" : undefined
    default:
      return undefined
  }
}

const notFoundHint: Partial<Record<string, string>> = {
  image: "use --image host, or --image dir:/absolute/path",
  sandbox: "`fiberbox ls` lists them",
  process: "`fiberbox ps SANDBOX` lists them",
  key: "`fiberbox keys ls` lists them"
}

const stateHint: Partial<Record<string, string>> = {
  stopped: "`fiberbox start` starts it",
  failed: "`fiberbox start` starts it again, `fiberbox info` tells why it failed",
  paused: "`fiberbox resume` lets it go on",
  killed: "it is gone for good; `fiberbox create` makes another"
}

const spawnHint: Partial<Record<string, string>> = {
  "not-found": "is it on the PATH inside the sandbox? With --image host that is this machine's /usr",
  permission: "--user root runs it as root of the sandbox",
  "bad-cwd": "--workdir must be a directory inside the sandbox",
  "not-executable": "name its interpreter, such as sh or python3",
  "argument-list-too-long": "pass the data through standard input"
}

/** The members an option of the command line stands behind, by the name of the option. */
const optionOf: Readonly<Record<string, string>> = {
  "limits.memoryBytes": "--memory",
  "limits.cpus": "--cpus",
  "limits.pids": "--pids",
  "limits.diskBytes": "--disk",
  "limits.inodes": "--inodes",
  image: "--image",
  network: "--network",
  "network.allow": "--network",
  "process.cwd": "--workdir",
  "process.user": "--user",
  "process.timeoutMillis": "--timeout"
}

const messageOf = (error: SandboxError): string =>
  error._tag === "InvalidArgument"
    ? `${optionOf[error.field] ?? error.field.replace(/^(process\.)?env\b/, "--env")}: ${error.reason}`
    : error.message

const exitCodeFor = (error: SandboxError): number => {
  if (error._tag === "SpawnFailed") return error.reason === "not-found" ? notFoundCode : cannotStartCode
  if (error._tag === "Timeout" && error.limit === "command") return timedOutCode
  return ownFailureCode
}

const isSandboxError = Schema.is(SandboxError)

type Failure = Extract<RunEvent, { readonly event: "error" }>

const describeError = (error: SandboxError): Failure => {
  const { _tag, ...details } = Schema.encodeSync(SandboxError)(error)
  const hint = hintOf(error)
  return {
    event: "error",
    error: _tag,
    message: messageOf(error),
    ...(hint === undefined ? {} : { hint }),
    isRetryable: error.isRetryable,
    outcome: error.outcome,
    exitCode: exitCodeFor(error),
    details
  }
}

/** A command that does not do what was asked, for a reason of the command line's own. */
export class Refused extends Data.TaggedError("Refused")<{ readonly failure: Failure }> {}

/** What is to be said of the reason a command ended. */
export const describe = (cause: Cause.Cause<unknown>): Failure => {
  const error = Cause.squash(cause)
  if (error instanceof Refused) return error.failure
  if (isSandboxError(error)) return describeError(error)
  return {
    event: "error",
    error: "Internal",
    message: `internal error: ${error instanceof Error ? error.message : String(error)}`,
    hint: "this is a fault of fiberbox; FIBERBOX_DEBUG=1 shows where",
    isRetryable: false,
    outcome: "unknown",
    exitCode: ownFailureCode,
    details: process.env.FIBERBOX_DEBUG === undefined ? {} : { cause: Cause.pretty(cause) }
  }
}

/** A signal to fiberbox ended the command before it had ended by itself. */
export const interrupted = (exitCode: number): Failure => ({
  event: "error",
  error: "Interrupted",
  message: "ended by a signal to fiberbox",
  isRetryable: true,
  outcome: "unknown",
  exitCode,
  details: {}
})

/** The arguments were not understood. */
export const usage = (message: string, hint: string): Failure => ({
  event: "error",
  error: "Usage",
  message,
  hint,
  isRetryable: false,
  outcome: "not-started",
  exitCode: ownFailureCode,
  details: {}
})

/** A command that is not carried out as it was asked for; nothing has happened. */
export const refuse = (message: string, hint: string): Refused =>
  new Refused({ failure: usage(message, hint) })

/** A file of this machine, not of a sandbox, that cannot be read or written. */
export const localFile = (message: string): Refused =>
  new Refused({
    failure: {
      event: "error",
      error: "LocalFile",
      message,
      isRetryable: false,
      outcome: "unknown",
      exitCode: ownFailureCode,
      details: {}
    }
  })

/** Text that may come from inside a sandbox, so that it cannot steer the terminal it is shown on or fake a line. */
export const printable = (text: string): string =>
  text
    .trimEnd()
    .replaceAll("\n", " ")
    .replace(
      /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
    )

/** The line for a person to read, newline included. */
export const toLine = (failure: Failure): string => {
  const { cause } = failure.details
  const hint = failure.hint === undefined ? "" : ` (${printable(failure.hint)})`
  const trace = typeof cause === "string" ? `\n${cause}` : ""
  return `fiberbox: ${printable(failure.message)}${hint}${trace}\n`
}
