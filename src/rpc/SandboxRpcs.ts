/**
 * The contract: every operation, every stream, every error, written once.
 *
 * {@link SandboxOperations} are the operations on one sandbox: its actor
 * implements exactly these. {@link SandboxRpcs} adds those on the collection and
 * is what every transport serves and every client speaks.
 *
 * Effect's RPC streams replies only, so what goes towards a sandbox (standard
 * input, uploads) is a call that names its offset: repeats are acknowledged,
 * gaps refused.
 */
import { Context, Schema } from "effect"
import { ClusterSchema } from "effect/cluster"
import { Rpc, RpcGroup } from "effect/rpc"
import {
  Authentication,
  BackendFailed,
  Conflict,
  Connection,
  FileFailed,
  GenerationChanged,
  InvalidArgument,
  InvalidState,
  NotFound,
  PolicyDenied,
  ResourceExhausted,
  SandboxFailed,
  SpawnFailed,
  Timeout,
  Unsupported
} from "../domain/Errors.ts"
import { SandboxEvent } from "../domain/Event.ts"
import { As, FileInfo, FileList, Mode, maxChunkBytes, Nanos, WatchEvent } from "../domain/FileSystem.ts"
import {
  AttemptId,
  Generation,
  IdempotencyKey,
  LeaseId,
  ProcessId,
  SandboxId,
  UploadId
} from "../domain/Ids.ts"
import { Metrics } from "../domain/Metrics.ts"
import {
  AttachOptions,
  ExecOptions,
  maxArgumentBytes,
  maxArguments,
  maxEnvNames,
  ProcessEvent,
  ProcessInfo,
  ProcessSpec,
  PtySize,
  ReadOptions,
  SandboxPath,
  Signal
} from "../domain/Process.ts"
import {
  CreateRequest,
  Expiry,
  ListRequest,
  Millis,
  SandboxInfo,
  SandboxPage,
  UpdateRequest
} from "../domain/Sandbox.ts"
import { Command } from "../domain/Status.ts"
import type { AccessScope } from "../services/Authenticator.ts"

/** The most bytes of a request that every service takes, arguments and environment of a program included. */
export const maxRequestBytes = 4 * 1024 * 1024

/** What a token must allow for an operation. One that says nothing needs the most. */
export const RequiredScope = Context.Reference<AccessScope>("fiberbox/rpc/RequiredScope", {
  defaultValue: () => "admin"
})

/** The most that a request may ask to be decoded: beyond, a service refuses it unread. */
export interface Room {
  /** Bytes of its payload in the binary encoding; as JSON it may be twice as long. */
  readonly bytes: number
  /** Values in lists and records, and fields. */
  readonly values: number
  /** Names of records: each of them costs many times what a value costs. */
  readonly names: number
}

const little: Room = { bytes: 64 * 1024, values: 1024, names: 1024 }
/** With what is told only after decoding: a few more are refused with their place and a way round. */
const names = maxEnvNames + 512

/** How much room an operation's request has. One that says nothing has little. */
export const RequestRoom = Context.Reference<Room>("fiberbox/rpc/RequestRoom", { defaultValue: () => little })

/** Carries bytes of a file or of standard input. */
const withChunk: Room = { ...little, bytes: maxChunkBytes + little.bytes }
/** Carries a sandbox's environment and labels. */
const withSpec: Room = { bytes: maxArgumentBytes + little.bytes, values: 2 * names, names }
/** Carries a program's arguments and environment. */
const withProgram: Room = { bytes: maxRequestBytes, values: maxArguments + names, names }

/** What can go wrong with any operation on a sandbox. */
const common = [
  NotFound,
  InvalidArgument,
  BackendFailed,
  Connection,
  Timeout,
  ResourceExhausted,
  Authentication,
  PolicyDenied
] as const
/** What else can go wrong when its machine is needed. */
const machine = [...common, InvalidState, SandboxFailed, Unsupported, GenerationChanged] as const

/** How any operation on a sandbox can fail. */
export const OperationError = Schema.Union(common)
export type OperationError = typeof OperationError.Type
/** How an operation that needs the machine can fail. */
export const MachineOperationError = Schema.Union(machine)
export type MachineOperationError = typeof MachineOperationError.Type
/** How starting a program can fail. */
export const StartError = Schema.Union([...machine, SpawnFailed, Conflict])
export type StartError = typeof StartError.Type
/** How a file operation can fail. */
export const FileOperationError = Schema.Union([...machine, FileFailed, Conflict])
export type FileOperationError = typeof FileOperationError.Type
/** How creating a sandbox, or changing its life, can fail. */
export const LifecycleError = Schema.Union([...machine, Conflict])
export type LifecycleError = typeof LifecycleError.Type

const sandbox = { sandboxId: SandboxId }
/** Operations on handles name the incarnation they belong to; without it they mean the present one. */
const onMachine = { ...sandbox, generation: Schema.optional(Generation) }
const process = { ...onMachine, processId: ProcessId }
const Chunk = Schema.Uint8Array.check(
  Schema.makeFilter(
    (bytes) => bytes.byteLength <= maxChunkBytes || `a chunk has at most ${maxChunkBytes} bytes`
  )
)
const Offset = Schema.Natural
/** Levels below a directory that a list goes to. */
export const ListDepth = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 64 }))
/** The most entries of a list. */
export const ListLimit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }))

// --- one sandbox ------------------------------------------------------------

const GetInfo = Rpc.make("GetInfo", { payload: sandbox, success: SandboxInfo, error: OperationError })

const ChangeStatus = Rpc.make("ChangeStatus", {
  payload: {
    ...sandbox,
    command: Command,
    /** With `stop`: how long programs have between SIGTERM and SIGKILL; default 5,000. */
    graceMillis: Schema.optional(Schema.Natural)
  },
  success: SandboxInfo,
  error: LifecycleError
})

const SetExpiry = Rpc.make("SetExpiry", {
  payload: {
    ...sandbox,
    /** From now; `null` removes the limit. Left out: unchanged (a key without a value is refused: JSON could not tell it from `null`). */
    ttl: Schema.optionalKey(Schema.NullOr(Expiry)),
    idle: Schema.optionalKey(Schema.NullOr(Expiry))
  },
  success: SandboxInfo,
  error: Schema.Union([...common, InvalidState])
})

const Update = Rpc.make("Update", {
  payload: { ...sandbox, update: UpdateRequest },
  success: SandboxInfo,
  error: Schema.Union([...common, InvalidState])
}).annotate(RequestRoom, withSpec)

const WaitForReady = Rpc.make("WaitForReady", {
  payload: { ...sandbox, timeoutMillis: Millis },
  success: SandboxInfo,
  error: Schema.Union([...common, InvalidState, SandboxFailed])
})

const FollowEvents = Rpc.make("FollowEvents", {
  payload: {
    ...sandbox,
    /** Only events after this sequence number; default 0, all that are kept. */
    after: Schema.optional(Schema.Natural),
    /** End after the events that exist now, instead of waiting for more. */
    once: Schema.optional(Schema.Boolean)
  },
  success: SandboxEvent,
  error: OperationError,
  stream: true
})

const GetMetrics = Rpc.make("GetMetrics", {
  payload: sandbox,
  success: Metrics,
  error: MachineOperationError
})

const RunProcess = Rpc.make("RunProcess", {
  payload: { ...onMachine, process: ProcessSpec, attach: ReadOptions },
  success: ProcessEvent,
  error: StartError,
  stream: true
}).annotate(RequestRoom, withProgram)

const ExecProcess = Rpc.make("ExecProcess", {
  payload: {
    ...onMachine,
    process: ProcessSpec,
    attach: ExecOptions,
    /** Answer after so long with what is there; default: wait for the end. For ways that let nobody wait long. */
    waitMillis: Schema.optional(Schema.Natural)
  },
  /**
   * As the events of {@link RunProcess}, and cheaper: all of a program with little output; of another the first ones,
   * without `Exited`, and the program is held up until {@link AttachProcess} by the same reader goes on there. The same
   * request by the same reader is answered the same.
   */
  success: Schema.Array(ProcessEvent),
  error: StartError
}).annotate(RequestRoom, withProgram)

const StartProcess = Rpc.make("StartProcess", {
  payload: { ...onMachine, process: ProcessSpec },
  success: ProcessInfo,
  error: StartError
}).annotate(RequestRoom, withProgram)

const AttachProcess = Rpc.make("AttachProcess", {
  payload: { ...process, attach: AttachOptions },
  success: ProcessEvent,
  error: MachineOperationError,
  stream: true
})

const ListProcesses = Rpc.make("ListProcesses", {
  payload: onMachine,
  success: Schema.Array(ProcessInfo),
  error: MachineOperationError
})

const SignalProcess = Rpc.make("SignalProcess", {
  payload: { ...process, signal: Signal },
  error: MachineOperationError
})

const KillProcess = Rpc.make("KillProcess", { payload: process, error: MachineOperationError })

const CancelProcess = Rpc.make("CancelProcess", {
  /**
   * Takes a start back: `process` is what {@link RunProcess}, {@link ExecProcess} or {@link StartProcess} was or would have been
   * asked, and whether that has arrived is of no account. What it started is killed with all its descendants; when it comes
   * later it is a `Conflict`, for as long as the machine lives. A program that another request has given this id is left
   * alone. In a sandbox that does not run it succeeds, and holds when the sandbox goes on. Repeating it is no error.
   */
  payload: { ...onMachine, process: ProcessSpec },
  error: MachineOperationError
}).annotate(RequestRoom, withProgram)

const WriteStdin = Rpc.make("WriteStdin", {
  payload: { ...process, offset: Offset, data: Chunk },
  success: Offset,
  error: MachineOperationError
}).annotate(RequestRoom, withChunk)

const CloseStdin = Rpc.make("CloseStdin", { payload: process, error: MachineOperationError })

const ResizePty = Rpc.make("ResizePty", {
  payload: { ...process, size: PtySize },
  error: MachineOperationError
})

const ReadFile = Rpc.make("ReadFile", {
  payload: {
    ...onMachine,
    path: SandboxPath,
    offset: Schema.optional(Offset),
    /** How many bytes; left out: to the end. */
    length: Schema.optional(Schema.Natural),
    as: As
  },
  success: Schema.Uint8Array,
  error: FileOperationError,
  stream: true
})

/** Whether the answer waits until a crash of the host loses nothing of the file; see `WriteOptions`. */
const Durable = Schema.optional(Schema.Boolean)

const WriteFile = Rpc.make("WriteFile", {
  payload: {
    ...onMachine,
    path: SandboxPath,
    data: Chunk,
    mode: Schema.optional(Mode),
    durable: Durable,
    as: As
  },
  error: FileOperationError
}).annotate(RequestRoom, withChunk)

const WriteUpload = Rpc.make("WriteUpload", {
  payload: {
    ...onMachine,
    uploadId: UploadId,
    path: SandboxPath,
    offset: Offset,
    data: Chunk,
    mode: Schema.optional(Mode),
    as: As
  },
  success: Offset,
  error: FileOperationError
}).annotate(RequestRoom, withChunk)

const CommitUpload = Rpc.make("CommitUpload", {
  payload: { ...onMachine, uploadId: UploadId, size: Schema.Natural, durable: Durable },
  error: FileOperationError
})

const AbortUpload = Rpc.make("AbortUpload", {
  payload: { ...onMachine, uploadId: UploadId },
  error: MachineOperationError
})

const ListFiles = Rpc.make("ListFiles", {
  payload: {
    ...onMachine,
    path: SandboxPath,
    /** Levels below the directory; default 1, its own entries. */
    depth: Schema.optional(ListDepth),
    /** The most entries; default 10,000. */
    limit: Schema.optional(ListLimit),
    as: As
  },
  success: FileList,
  error: FileOperationError
})

const StatFile = Rpc.make("StatFile", {
  payload: { ...onMachine, path: SandboxPath, as: As },
  success: FileInfo,
  error: FileOperationError
})

const MakeDir = Rpc.make("MakeDir", {
  payload: { ...onMachine, path: SandboxPath, mode: Schema.optional(Mode), as: As },
  error: FileOperationError
})

const RenameFile = Rpc.make("RenameFile", {
  payload: { ...onMachine, from: SandboxPath, to: SandboxPath, as: As },
  error: FileOperationError
})

const RemoveFile = Rpc.make("RemoveFile", {
  payload: { ...onMachine, path: SandboxPath, recursive: Schema.optional(Schema.Boolean), as: As },
  error: FileOperationError
})

const ChangeMode = Rpc.make("ChangeMode", {
  payload: { ...onMachine, path: SandboxPath, mode: Mode, as: As },
  error: FileOperationError
})

const SetTimes = Rpc.make("SetTimes", {
  payload: { ...onMachine, path: SandboxPath, modifiedAt: Schema.Int, nanos: Nanos, as: As },
  error: FileOperationError
})

const LinkFile = Rpc.make("LinkFile", {
  payload: { ...onMachine, from: SandboxPath, to: SandboxPath, as: As },
  error: FileOperationError
})

const WatchFiles = Rpc.make("WatchFiles", {
  payload: { ...onMachine, path: SandboxPath, recursive: Schema.optional(Schema.Boolean), as: As },
  success: WatchEvent,
  error: FileOperationError,
  stream: true
})

const looking = RpcGroup.make(
  GetInfo,
  WaitForReady,
  FollowEvents,
  GetMetrics,
  AttachProcess,
  ListProcesses,
  ReadFile,
  ListFiles,
  StatFile,
  WatchFiles
).annotateRpcs(RequiredScope, "read")

const changing = RpcGroup.make(
  ChangeStatus,
  SetExpiry,
  Update,
  RunProcess,
  ExecProcess,
  StartProcess,
  SignalProcess,
  KillProcess,
  CancelProcess,
  WriteStdin,
  CloseStdin,
  ResizePty,
  WriteFile,
  WriteUpload,
  CommitUpload,
  AbortUpload,
  MakeDir,
  RenameFile,
  RemoveFile,
  ChangeMode,
  SetTimes,
  LinkFile
).annotateRpcs(RequiredScope, "exec")

/** The operations on one sandbox. Its actor is an entity with exactly this protocol. */
export class SandboxOperations extends looking
  .merge(changing)
  .annotateRpcs(ClusterSchema.InterruptOnTermination, true) {}

// --- all sandboxes ----------------------------------------------------------

const CreateSandbox = Rpc.make("CreateSandbox", {
  payload: {
    request: CreateRequest,
    /** A sandbox that is not detached ends with its lease, or without one with the service itself. */
    detached: Schema.Boolean,
    lease: Schema.optional(LeaseId),
    /** Names this attempt: a repeat of it returns the same sandbox, and {@link CancelCreate} takes it back. */
    attempt: Schema.optional(AttemptId)
  },
  success: SandboxInfo,
  error: LifecycleError
})
  .annotate(RequestRoom, withSpec)
  .annotate(RequiredScope, "exec")

/**
 * Takes an attempt to create a sandbox back: what it made is gone when this succeeds, and one that
 * arrives only later is refused. A sandbox that another attempt with the same key made is left alone.
 */
const CancelCreate = Rpc.make("CancelCreate", {
  payload: {
    attempt: AttemptId,
    /** The key of the request, if it had one. */
    idempotencyKey: Schema.optional(IdempotencyKey)
  },
  error: LifecycleError
}).annotate(RequiredScope, "exec")

const FindSandbox = Rpc.make("FindSandbox", {
  payload: {
    /** An id, a name or a slug. */
    idOrName: Schema.String
  },
  success: SandboxInfo,
  error: OperationError
}).annotate(RequiredScope, "read")

const ListSandboxes = Rpc.make("ListSandboxes", {
  payload: ListRequest,
  success: SandboxPage,
  error: OperationError
}).annotate(RequiredScope, "read")

const RenewLease = Rpc.make("RenewLease", {
  payload: {
    lease: LeaseId,
    /** How long from now, unless it is renewed again. */
    ttlMillis: Schema.Finite.check(Schema.isBetween({ minimum: 1_000, maximum: 600_000 }))
  },
  error: OperationError
}).annotate(RequiredScope, "exec")

const EndLease = Rpc.make("EndLease", { payload: { lease: LeaseId }, error: OperationError }).annotate(
  RequiredScope,
  "exec"
)

/** The whole contract. */
export class SandboxRpcs extends SandboxOperations.add(
  CreateSandbox,
  CancelCreate,
  FindSandbox,
  ListSandboxes,
  RenewLease,
  EndLease
) {}
