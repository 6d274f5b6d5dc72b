/**
 * What goes wrong on the host, as the errors of the contract.
 */
import type { PlatformError } from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import {
  BackendFailed,
  InvalidArgument,
  type Outcome,
  ResourceExhausted,
  Unsupported
} from "../../domain/Errors.ts"
import { backendName } from "./Settings.ts"

/** A failure that the caller cannot mend. */
export const backendFailed = (
  operation: string,
  reason: string,
  outcome: Outcome = "unknown"
): BackendFailed => new BackendFailed({ backend: backendName, operation, reason, outcome })

/** Turns a failed file or process operation of ours into {@link BackendFailed}. */
export const fromPlatform = (operation: string) => (error: PlatformError) =>
  backendFailed(operation, error.message)

/** What is used up when a system call fails with one of these codes. */
const exhaustedBy: { readonly [code: string]: string } = {
  ENOSPC: "disk",
  EDQUOT: "disk",
  EMFILE: "file-descriptors",
  ENFILE: "file-descriptors",
  ENOMEM: "memory",
  EAGAIN: "processes"
}

/** What could not be begun, from the code of a system error; used-up resources go by their names. */
export const codeFailed = (
  operation: string,
  subject: string,
  code: string
): BackendFailed | ResourceExhausted => {
  const resource = exhaustedBy[code]
  return resource === undefined
    ? backendFailed(operation, `${subject}: ${code}`, "not-started")
    : new ResourceExhausted({ resource, reason: `${subject}: ${code}` })
}

/** As {@link codeFailed}, of a failed file operation that was to begin something. */
export const startFailed =
  (operation: string) =>
  (error: PlatformError): BackendFailed | ResourceExhausted => {
    const { cause } = error.reason
    const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
    return exhaustedBy[code] === undefined
      ? backendFailed(operation, error.message, "not-started")
      : codeFailed(operation, error.message, code)
  }

/** Whether an operation failed because the file is not there. */
export const isMissing = (error: PlatformError): boolean => error.reason._tag === "NotFound"

/** A capability that this machine does not have. */
export const unsupported = (capability: string, reason: string): Unsupported =>
  new Unsupported({ backend: backendName, capability, reason })

/** How starting a machine fails. */
export type StartError = BackendFailed | InvalidArgument | ResourceExhausted | Unsupported

/** The last line of the host helper's standard error, `<kind>\t<subject>\t<detail>`. */
export const lastLine = (stderr: string) => {
  const line = stderr.trimEnd().split("\n").at(-1) ?? ""
  const [kind, subject, detail] = line.split("\t")
  return subject === undefined || detail === undefined ? undefined : { kind, subject, detail }
}

/** What the host helper said last, as the error of a start. */
export const fromHelper = (stderr: string): StartError | undefined => {
  const said = lastLine(stderr)
  if (said === undefined) return undefined
  const { kind, subject, detail } = said
  switch (kind) {
    case "unsupported":
      return unsupported(subject, detail)
    case "exhausted":
      return new ResourceExhausted({ resource: subject, reason: detail })
    case "invalid":
      return new InvalidArgument({ field: subject, reason: detail })
    case "failed":
      return backendFailed("start a machine", `${subject}: ${detail}`, "not-started")
    default:
      return undefined
  }
}

/** The message of the OCI runtime's last error, from its log of JSON lines. */
export const runtimeMessage = (log: string): string | undefined => {
  const messages = log
    .split("\n")
    .map((line) => /"level":"(?:error|fatal)".*?"msg":("(?:[^"\\]|\\.)*")/.exec(line)?.[1])
    .filter((text) => text !== undefined)
  const last = messages.at(-1)
  return last?.slice(1, -1).replaceAll('\\"', '"').replaceAll("\\n", " ")
}
