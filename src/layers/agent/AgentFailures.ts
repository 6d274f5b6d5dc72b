/**
 * How the agent's refusals and a broken way to it become the errors of the contract.
 */
import {
  BackendFailed,
  Conflict,
  Connection,
  FileFailed,
  type FileFailure,
  InvalidArgument,
  NotFound,
  ResourceExhausted,
  SpawnFailed,
  type SpawnFailure,
  Timeout
} from "../../domain/Errors.ts"
import { maxTerminals } from "../../domain/Process.ts"
import type { AgentError, AgentFailed } from "./AgentSession.ts"
import type { FailureCode } from "./Protocol.ts"

/** Errors that say nothing about the request itself. */
export type Unreachable = Connection | Timeout | BackendFailed

/** What was asked of the agent. */
export interface Asked {
  readonly backend: string
  readonly operation: string
}

/** The error of a broken way, and of a refusal that no caller of the operation can have caused. */
export const unreachable = (error: AgentError, asked: Asked): Unreachable => {
  switch (error._tag) {
    case "AgentLost":
      return new Connection({ reason: error.reason, outcome: "unknown" })
    case "AgentTimeout":
      return new Timeout({ limit: "transport", millis: error.millis, outcome: "unknown" })
    case "AgentFailed":
      return new BackendFailed({ ...asked, reason: error.message, outcome: "not-started" })
  }
}

const spawnReasons: { readonly [Code in FailureCode]?: SpawnFailure } = {
  "not-found": "not-found",
  permission: "permission",
  "bad-cwd": "bad-cwd",
  "not-executable": "not-executable",
  resources: "resources",
  "too-long": "argument-list-too-long"
}

const noTerminal = new ResourceExhausted({
  resource: "terminals",
  reason: `all of this sandbox's ${maxTerminals}, or of its host, are in use`,
  retryAfterMillis: 1_000
})

/** Why a program was not started. */
export const spawnError = (
  error: AgentError,
  program: string,
  processId: string,
  asked: Asked
): SpawnFailed | Conflict | ResourceExhausted | Unreachable => {
  if (error._tag !== "AgentFailed") return unreachable(error, asked)
  if (error.code === "no-terminal") return noTerminal
  if (error.code === "conflict") return new Conflict({ kind: "process", id: processId, reason: error.reason })
  return new SpawnFailed({ reason: spawnReasons[error.code] ?? "other", program, detail: error.reason })
}

/** Why a start could not be taken back. */
export const cancelError = (error: AgentError, asked: Asked): ResourceExhausted | Unreachable =>
  error._tag === "AgentFailed" && error.code === "resources"
    ? new ResourceExhausted({ resource: "cancelled starts", reason: error.reason })
    : unreachable(error, asked)

/** What is used up, where that is what an operation fails for: what there are so many of, or what the agent itself needs. */
export const exhausted = (
  error: AgentError,
  resource: "readers" | "uploads" | "watches" | "agent"
): ResourceExhausted | undefined =>
  error._tag === "AgentFailed" && error.code === "resources"
    ? new ResourceExhausted({ resource, reason: error.reason, retryAfterMillis: 1_000 })
    : undefined

/** Why nothing could be done with a process. */
export const processError = (error: AgentError, processId: string, asked: Asked): NotFound | Unreachable =>
  error._tag === "AgentFailed" && error.code === "no-process"
    ? new NotFound({ kind: "process", id: processId })
    : unreachable(error, asked)

const fileReasons: { readonly [Code in FailureCode]?: FileFailure } = {
  "not-found": "not-found",
  permission: "permission",
  exists: "exists",
  "is-directory": "is-directory",
  "not-directory": "not-directory",
  "not-empty": "not-empty",
  "not-regular": "not-regular",
  "symlink-loop": "symlink-loop",
  "name-too-long": "name-too-long",
  "no-space": "no-space",
  "read-only": "read-only",
  busy: "busy",
  "cross-device": "cross-device",
  invalid: "invalid",
  io: "io"
}

/** Why a file operation failed. */
export const fileError = (
  error: AgentError,
  path: string,
  asked: Asked
): FileFailed | ResourceExhausted | Unreachable => {
  const reason = error._tag === "AgentFailed" ? fileReasons[error.code] : undefined
  return error._tag !== "AgentFailed" || reason === undefined
    ? (exhausted(error, "agent") ?? unreachable(error, asked))
    : new FileFailed({ reason, path, detail: reason === "io" ? error.reason : "" })
}

/** A write that skipped bytes, or came after the end of what it wrote to. */
export const offsetError = (error: AgentError): InvalidArgument | undefined => {
  if (!isOffsetFailure(error)) return undefined
  return error.code === "closed"
    ? new InvalidArgument({ field: "stdin", reason: "standard input has ended" })
    : new InvalidArgument({ field: "offset", reason: `the next byte is ${error.detail}` })
}

const isOffsetFailure = (error: AgentError): error is AgentFailed =>
  error._tag === "AgentFailed" && (error.code === "gap" || error.code === "closed")
