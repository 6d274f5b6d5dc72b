/**
 * Every error fiberbox raises, as schemas, so that the same class arrives at
 * every end of every transport.
 *
 * Each answers three questions: *what* (the tag and its fields), *may I try
 * again* (`isRetryable`, `retryAfter`), and *did it happen* (`outcome`).
 */
import { Duration, Schema } from "effect"
import { Generation, SandboxId } from "./Ids.ts"
import { Gap, missingFields } from "./Output.ts"
import { Status } from "./Status.ts"

/** Whether the failed operation took effect. */
export const Outcome = Schema.Literals(["not-started", "completed", "unknown"])
export type Outcome = typeof Outcome.Type

/** The members every fiberbox error has. */
export interface Answers {
  /** Whether the same request may succeed when repeated. */
  readonly isRetryable: boolean
  /** How long to wait before a repeat, where that is known. */
  readonly retryAfter?: Duration.Duration | undefined
  /** Whether the operation took effect. */
  readonly outcome: Outcome
}

const id = <const Name extends string>(name: Name) => `fiberbox/domain/Errors/${name}` as const

/** The caller is not who it claims, or its token is missing, expired or malformed. */
export class Authentication
  extends Schema.TaggedError<Authentication>(id("Authentication"))("Authentication", {
    reason: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `not authenticated: ${this.reason}`
  }
}

/** A request's content is wrong; nothing was changed. `field` names the part, `reason` says what it must be. */
export class InvalidArgument
  extends Schema.TaggedError<InvalidArgument>(id("InvalidArgument"))("InvalidArgument", {
    field: Schema.String,
    reason: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `${this.field}: ${this.reason}`
  }
}

/** The kinds of thing a caller can name. */
export const ResourceKind = Schema.Literals([
  "sandbox",
  "process",
  "upload",
  "image",
  "port",
  "snapshot",
  "volume",
  "disk",
  "key"
])
export type ResourceKind = typeof ResourceKind.Type

/** What the caller named does not exist, or belongs to somebody else. */
export class NotFound
  extends Schema.TaggedError<NotFound>(id("NotFound"))("NotFound", {
    kind: ResourceKind,
    id: Schema.String,
    /** Why it is there no more, where that is known and nobody asked for it. */
    reason: Schema.optional(Schema.String)
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `no ${this.kind} ${this.id}${this.reason === undefined ? "" : `: ${this.reason}`}`
  }
}

/** A remote system answered with an error of its own. */
export class Api
  extends Schema.TaggedError<Api>(id("Api"))("Api", {
    status: Schema.Int,
    message: Schema.String,
    body: Schema.String,
    outcome: Outcome
  })
  implements Answers
{
  get isRetryable(): boolean {
    return this.status === 429 || this.status >= 500
  }
}

/** Why what a client held has ended, when it did not renew its lease for so many milliseconds. */
export const silenceOf = (millis: number): string =>
  `its client was not heard of for ${millis / 1000} s, and what the client held has ended with its lease`

/** Which limit a {@link Timeout} ran into. */
export const TimeoutLimit = Schema.Literals([
  "command",
  "idle",
  "transport",
  "wait",
  "provision",
  "drain",
  "lease"
])
export type TimeoutLimit = typeof TimeoutLimit.Type

/**
 * A deadline passed. `limit` says which: the command's own time, an idle
 * reader, a lost transport, a wait for a state, a machine's start, a drain, or the lease of a client
 * that was not heard of for so long.
 */
export class Timeout
  extends Schema.TaggedError<Timeout>(id("Timeout"))("Timeout", {
    limit: TimeoutLimit,
    millis: Schema.Number,
    outcome: Outcome,
    /** What a command had written when its own limit passed. */
    stdout: Schema.optional(Schema.String),
    stderr: Schema.optional(Schema.String),
    /** What of that is missing, as {@link CommandExit} tells it. */
    truncated: Schema.optional(Schema.Boolean),
    droppedBytes: Schema.optional(Schema.Natural),
    gaps: Schema.optional(Schema.Array(Gap))
  })
  implements Answers
{
  get isRetryable(): boolean {
    return this.outcome === "not-started" || this.limit === "wait"
  }
  override get message(): string {
    return this.limit === "lease"
      ? silenceOf(this.millis)
      : `the ${this.limit} limit of ${this.millis} ms has passed`
  }
}

/** The sandbox's machine died or could not be made. */
export class SandboxFailed
  extends Schema.TaggedError<SandboxFailed>(id("SandboxFailed"))("SandboxFailed", {
    sandboxId: SandboxId,
    reason: Schema.String,
    outcome: Outcome
  })
  implements Answers
{
  get isRetryable(): boolean {
    return this.outcome === "not-started"
  }
  override get message(): string {
    return `sandbox ${this.sandboxId} failed: ${this.reason}`
  }
}

/** An archive or database moved on since the caller read it. */
export class CheckinConflict
  extends Schema.TaggedError<CheckinConflict>(id("CheckinConflict"))("CheckinConflict", {
    expected: Schema.String,
    current: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `expected version ${this.expected}, but it is ${this.current}`
  }
}

/** A shell session is over. */
export class SessionExpired
  extends Schema.TaggedError<SessionExpired>(id("SessionExpired"))("SessionExpired", {
    sessionId: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `shell session ${this.sessionId} has expired`
  }
}

/** The way to a machine, service or remote broke. */
export class Connection
  extends Schema.TaggedError<Connection>(id("Connection"))("Connection", {
    reason: Schema.String,
    outcome: Outcome,
    /** Set by a service that is about to end: the next one at its address takes the call. */
    isEnding: Schema.optional(Schema.Literal(true))
  })
  implements Answers
{
  get isRetryable(): boolean {
    return this.outcome !== "completed"
  }
  override get message(): string {
    return `connection failed: ${this.reason}`
  }
}

/** An interactive shell ended with a code other than 0. */
export class ShellExit
  extends Schema.TaggedError<ShellExit>(id("ShellExit"))("ShellExit", { code: Schema.Int })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "completed"
  override get message(): string {
    return `the shell exited with code ${this.code}`
  }
}

/**
 * A command ended with a code other than 0, or by a signal (then `exitCode` is
 * 128 plus its number and `signal` its name). Carries what the command wrote:
 * of much output the beginning and the end of each stream.
 */
export class CommandExit
  extends Schema.TaggedError<CommandExit>(id("CommandExit"))("CommandExit", {
    exitCode: Schema.Int,
    signal: Schema.optional(Schema.String),
    stdout: Schema.String,
    stderr: Schema.String,
    ...missingFields
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "completed"
  override get message(): string {
    const how =
      this.signal === undefined ? `exited with code ${this.exitCode}` : `was ended by ${this.signal}`
    const said = this.stderr.trimEnd()
    return `the command ${how}${said === "" ? "" : `: ${said.slice(-2000)}`}`
  }
}

/** Something was used before it was started. */
export class NotStarted
  extends Schema.TaggedError<NotStarted>(id("NotStarted"))("NotStarted", { what: Schema.String })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `${this.what} has not been started`
  }
}

/** A peer answered with something that does not fit its protocol. */
export class InvalidResponse
  extends Schema.TaggedError<InvalidResponse>(id("InvalidResponse"))("InvalidResponse", {
    reason: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "unknown"
  override get message(): string {
    return `unexpected answer: ${this.reason}`
  }
}

/** The sandbox is in a status in which this cannot be done. */
export class InvalidState
  extends Schema.TaggedError<InvalidState>(id("InvalidState"))("InvalidState", {
    sandboxId: SandboxId,
    status: Status,
    operation: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `cannot ${this.operation}: sandbox ${this.sandboxId} is ${this.status}`
  }
}

/** The request contradicts what already exists: a taken name, the same key with another content, a lock held. */
export class Conflict
  extends Schema.TaggedError<Conflict>(id("Conflict"))("Conflict", {
    kind: Schema.Literals(["name", "idempotency-key", "process", "upload", "instance"]),
    id: Schema.String,
    reason: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `${this.kind} ${this.id}: ${this.reason}`
  }
}

/** The backend cannot do or enforce what was asked; nothing was done. */
export class Unsupported
  extends Schema.TaggedError<Unsupported>(id("Unsupported"))("Unsupported", {
    backend: Schema.String,
    capability: Schema.String,
    reason: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `${this.backend} does not support ${this.capability}: ${this.reason}`
  }
}

/** A limit of the machine, the service or the sandbox is used up. */
export class ResourceExhausted
  extends Schema.TaggedError<ResourceExhausted>(id("ResourceExhausted"))("ResourceExhausted", {
    resource: Schema.String,
    reason: Schema.String,
    retryAfterMillis: Schema.optional(Schema.Number)
  })
  implements Answers
{
  readonly isRetryable = true
  readonly outcome = "not-started"
  get retryAfter(): Duration.Duration | undefined {
    return this.retryAfterMillis === undefined ? undefined : Duration.millis(this.retryAfterMillis)
  }
  override get message(): string {
    return `out of ${this.resource}: ${this.reason}`
  }
}

/** A policy forbids it. */
export class PolicyDenied
  extends Schema.TaggedError<PolicyDenied>(id("PolicyDenied"))("PolicyDenied", {
    policy: Schema.String,
    reason: Schema.String
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `denied by ${this.policy}: ${this.reason}`
  }
}

/** A handle belongs to an earlier incarnation of the sandbox's machine. */
export class GenerationChanged
  extends Schema.TaggedError<GenerationChanged>(id("GenerationChanged"))("GenerationChanged", {
    sandboxId: SandboxId,
    expected: Generation,
    current: Generation
  })
  implements Answers
{
  readonly isRetryable = false
  readonly outcome = "not-started"
  override get message(): string {
    return `the machine of ${this.sandboxId} was replaced: the handle is of generation ${this.expected}, it is now ${this.current}`
  }
}

/** Why a program could not be started. */
export const SpawnFailure = Schema.Literals([
  "not-found",
  "permission",
  "bad-cwd",
  "not-executable",
  "argument-list-too-long",
  "resources",
  "unknown-user",
  "other"
])
export type SpawnFailure = typeof SpawnFailure.Type

/** A program could not be started; nothing ran. */
export class SpawnFailed
  extends Schema.TaggedError<SpawnFailed>(id("SpawnFailed"))("SpawnFailed", {
    reason: SpawnFailure,
    program: Schema.String,
    detail: Schema.String
  })
  implements Answers
{
  readonly outcome = "not-started"
  get isRetryable(): boolean {
    return this.reason === "resources"
  }
  override get message(): string {
    return `cannot start ${this.program}: ${this.reason}${this.detail === "" ? "" : ` (${this.detail})`}`
  }
}

/** Why a file operation failed; the POSIX names in words. */
export const FileFailure = Schema.Literals([
  "not-found",
  "permission",
  "exists",
  "is-directory",
  "not-directory",
  "not-empty",
  "not-regular",
  "symlink-loop",
  "name-too-long",
  "no-space",
  "read-only",
  "busy",
  "cross-device",
  "invalid",
  "io"
])
export type FileFailure = typeof FileFailure.Type

const nameLimit = "a name has at most 255 bytes and a path 4095: use a shorter one"

/** A file operation inside a sandbox failed. */
export class FileFailed
  extends Schema.TaggedError<FileFailed>(id("FileFailed"))("FileFailed", {
    reason: FileFailure,
    path: Schema.String,
    detail: Schema.String
  })
  implements Answers
{
  readonly outcome = "not-started"
  get isRetryable(): boolean {
    return this.reason === "busy"
  }
  override get message(): string {
    const detail = this.detail === "" && this.reason === "name-too-long" ? nameLimit : this.detail
    return `${this.path}: ${this.reason}${detail === "" ? "" : ` (${detail})`}`
  }
}

/** The backend or the store broke in a way the caller cannot mend. */
export class BackendFailed
  extends Schema.TaggedError<BackendFailed>(id("BackendFailed"))("BackendFailed", {
    backend: Schema.String,
    operation: Schema.String,
    reason: Schema.String,
    outcome: Outcome
  })
  implements Answers
{
  get isRetryable(): boolean {
    return this.outcome === "not-started"
  }
  override get message(): string {
    return `${this.backend} could not ${this.operation}: ${this.reason}`
  }
}

/** Every error of the contract. */
export const SandboxError = Schema.Union([
  Authentication,
  InvalidArgument,
  NotFound,
  Api,
  Timeout,
  SandboxFailed,
  CheckinConflict,
  SessionExpired,
  Connection,
  ShellExit,
  CommandExit,
  NotStarted,
  InvalidResponse,
  InvalidState,
  Conflict,
  Unsupported,
  ResourceExhausted,
  PolicyDenied,
  GenerationChanged,
  SpawnFailed,
  FileFailed,
  BackendFailed
])
export type SandboxError = typeof SandboxError.Type
