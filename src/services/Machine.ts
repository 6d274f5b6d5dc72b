/**
 * A machine: one running incarnation of a sandbox, as its actor drives it.
 *
 * A backend gives these few operations; everything richer is built once above
 * them. Operations on a machine that is gone fail with {@link SandboxFailed},
 * on a broken way to it with {@link Connection}. None waits for ever: a backend
 * bounds each by the transport limit of its own.
 */
import type { Effect, Scope, Stream } from "effect"
import type { IsolationLevel } from "../domain/Capability.ts"
import type {
  BackendFailed,
  Conflict,
  Connection,
  FileFailed,
  InvalidArgument,
  NotFound,
  ResourceExhausted,
  SandboxFailed,
  SpawnFailed,
  Timeout,
  Unsupported
} from "../domain/Errors.ts"
import type { FileInfo, FileList, WatchEvent } from "../domain/FileSystem.ts"
import type { Generation, ProcessId, UploadId } from "../domain/Ids.ts"
import type { Metrics } from "../domain/Metrics.ts"
import type { ProcessEvent, ProcessInfo, PtySize, Signal } from "../domain/Process.ts"
import type { Env, User } from "../domain/Sandbox.ts"

/** How any operation on a machine can fail. */
export type MachineError = SandboxFailed | Connection | Timeout | Unsupported | BackendFailed

/** A program to start, with every default filled in. */
export interface SpawnRequest {
  readonly processId: ProcessId
  readonly argv: readonly [string, ...Array<string>]
  /** The complete environment. */
  readonly env: Env
  readonly cwd: string
  readonly user: User
  readonly pty: PtySize | undefined
  readonly stdin: boolean
  readonly journalBytes: number
  /** What {@link MachineProcesses.cancel} tells this start from another of the same id by: a number below 2^32. */
  readonly identity: number
  /**
   * Milliseconds after which the program and its descendants are ended. Whoever starts it does so in time; the machine
   * does it a little later for a service that has died. Time frozen does not count.
   */
  readonly limitMillis?: number | undefined
  /** At most 256 bytes for the service itself, which {@link MachineProcesses.list} gives back. The sandbox may
   * read it. No part of the content that the id stands for: started again with another label, a process keeps its first. */
  readonly label?: string | undefined
}

/** A process as its machine lists it. */
export interface ListedProcess extends ProcessInfo {
  /** What {@link SpawnRequest.label} was. A sandbox may have forged it. */
  readonly label?: string | undefined
  readonly identity: number
  /** What is left of {@link SpawnRequest.limitMillis}, as far as the machine knows. */
  readonly leftMillis?: number | undefined
  /** Whether it, or a descendant of it, is alive. */
  readonly treeAlive: boolean
}

/** Of a listed process what everybody may know. */
export const processInfoOf = ({
  label: _,
  identity: __,
  leftMillis: ___,
  treeAlive: ____,
  ...info
}: ListedProcess): ProcessInfo => info

type Exited = Extract<ProcessEvent, { readonly _tag: "Exited" }>

/** What a machine tells of a process; with its exit, whether descendants are alive. */
export type MachineEvent = Exclude<ProcessEvent, Exited> | (Exited & { readonly treeAlive: boolean })

/** A start: of which process, by which request. */
export type Start = Pick<SpawnRequest, "processId" | "identity">

/** Why a program is ended: somebody asked for it, or its time is up. */
export type EndCause = "request" | "limit"

/** What there was to end: the program, only descendants it left, or nothing of this start. */
export type Ended = "program" | "descendants" | "nothing"

/** The processes of a machine. */
export interface MachineProcesses {
  /**
   * Starts a program and reads its journal from the beginning, in one round
   * trip: first `Started`, then output, last `Exited`. The same id with the
   * same content attaches to the process that exists, with another content, or
   * when that process is kept no more or its start was cancelled, it is a {@link Conflict}: no id runs twice. A slow reader
   * slows the program down. Ending the stream early leaves the process running.
   *
   * `Exited` comes when the program has exited and its output is complete: what it had written by then, and what descendants
   * add to it in at most a second and a MiB, or until they are silent; a slow reader moves neither end. Descendants
   * live on, and what they write later is passed over.
   */
  readonly run: (
    request: SpawnRequest
  ) => Stream.Stream<MachineEvent, SpawnFailed | Conflict | ResourceExhausted | MachineError>
  /** Starts a program and returns at once. */
  readonly start: (
    request: SpawnRequest
  ) => Effect.Effect<ProcessInfo, SpawnFailed | Conflict | ResourceExhausted | MachineError>
  /**
   * Reads a journal from a byte cursor: first `Started`, then as {@link run}. A gap is a `Truncated` event. The program waits
   * for this reader unless `holds` is false.
   */
  readonly attach: (
    processId: ProcessId,
    cursor: number,
    holds?: boolean
  ) => Stream.Stream<MachineEvent, NotFound | ResourceExhausted | MachineError>
  /** Running ones and those whose journals are still kept. */
  readonly list: Effect.Effect<ReadonlyArray<ListedProcess>, MachineError>
  /** Sends a signal to the process's whole group, or to the process alone. A process that ended is no error. */
  readonly signal: (processId: ProcessId, signal: Signal) => Effect.Effect<void, NotFound | MachineError>
  /** Kills the process and all its descendants, daemons included, and returns when none is left. */
  readonly kill: (processId: ProcessId) => Effect.Effect<void, NotFound | MachineError>
  /**
   * Takes a start back, whether or not it has arrived: what it started is killed with all its descendants, what it is
   * starting is killed as well, and when it comes later it is a {@link Conflict}. A program that another start has given
   * this id is left alone. {@link ResourceExhausted} when so many starts were taken back before
   * they came that this one would be forgotten: then it may still come.
   */
  readonly cancel: (start: Start, cause: EndCause) => Effect.Effect<Ended, ResourceExhausted | MachineError>
  /** Says how much of its limit a process has left, for {@link SpawnRequest.limitMillis}. */
  readonly limit: (processId: ProcessId, leftMillis: number) => Effect.Effect<void, NotFound | MachineError>
  /**
   * Writes to standard input at a byte offset; returns the offset the process
   * has accepted up to. Bytes before that offset are taken as repeats. A gap is an {@link InvalidArgument} of the field
   * `offset`, bytes after its end one of `stdin`: it was closed, or nothing reads it.
   * Waits while the program does not read.
   */
  readonly writeStdin: (
    processId: ProcessId,
    offset: number,
    data: Uint8Array
  ) => Effect.Effect<number, NotFound | InvalidArgument | MachineError>
  /** Ends standard input. Repeating it is no error. */
  readonly closeStdin: (processId: ProcessId) => Effect.Effect<void, NotFound | MachineError>
  /** Changes a terminal's size. {@link InvalidArgument} when the process has none. */
  readonly resize: (
    processId: ProcessId,
    size: PtySize
  ) => Effect.Effect<void, NotFound | InvalidArgument | MachineError>
}

/** How a file operation can fail. */
export type FileError = FileFailed | InvalidArgument | ResourceExhausted | MachineError

/** When a file was last changed: milliseconds, and nanoseconds beyond them. */
export interface FileTimes {
  readonly modifiedAt: number
  readonly nanos: number
}

/** The files of a machine. Every operation has the rights of the user it names. */
export interface MachineFiles {
  /** The bytes from `offset`, `length` of them or to the end. Regular files only. */
  readonly read: (
    path: string,
    options: { readonly offset: number; readonly length: number | undefined; readonly user: User }
  ) => Stream.Stream<Uint8Array, FileError>
  /** Replaces a file whole and atomically, making parent directories. For at most `maxChunkBytes`. */
  readonly write: (
    path: string,
    data: Uint8Array,
    options: { readonly mode: number | undefined; readonly user: User }
  ) => Effect.Effect<void, FileError>
  /**
   * One piece of a larger write: the piece at `offset` 0 begins it; a repeat
   * is acknowledged, a gap is an {@link InvalidArgument}. Nothing is visible at `path` until
   * {@link commitUpload}. Returns the offset accepted up to.
   */
  readonly writeUpload: (
    uploadId: UploadId,
    path: string,
    offset: number,
    data: Uint8Array,
    options: { readonly mode: number | undefined; readonly user: User }
  ) => Effect.Effect<number, Conflict | FileError>
  /** Makes the upload visible by one atomic rename, when exactly `size` bytes have arrived. Repeating it succeeds. */
  readonly commitUpload: (uploadId: UploadId, size: number) => Effect.Effect<void, NotFound | FileError>
  /** Forgets an upload. An unknown one is no error. */
  readonly abortUpload: (uploadId: UploadId) => Effect.Effect<void, MachineError>
  /** What is below a directory, `depth` levels (1 = its own entries), sorted by path, at most `limit` entries. */
  readonly list: (
    path: string,
    options: { readonly depth: number; readonly limit: number; readonly user: User }
  ) => Effect.Effect<FileList, FileError>
  /** Describes a path; a symbolic link itself, not what it points to. */
  readonly stat: (path: string, user: User) => Effect.Effect<FileInfo, FileError>
  /** Makes a directory and its parents; an existing directory is no error. */
  readonly makeDir: (
    path: string,
    options: { readonly mode: number | undefined; readonly user: User }
  ) => Effect.Effect<void, FileError>
  /** Renames, replacing a file at the new name. */
  readonly rename: (from: string, to: string, user: User) => Effect.Effect<void, FileError>
  /** Removes a file, link or empty directory; with `recursive` a whole tree, never following links. */
  readonly remove: (
    path: string,
    options: { readonly recursive: boolean; readonly user: User }
  ) => Effect.Effect<void, FileError>
  readonly chmod: (path: string, mode: number, user: User) => Effect.Effect<void, FileError>
  /** Sets when something was last changed; of a symbolic link, of the link itself. */
  readonly setTimes: (path: string, times: FileTimes, user: User) => Effect.Effect<void, FileError>
  /** Gives a file another name, at which nothing may be. Links are not followed. */
  readonly link: (from: string, to: string, user: User) => Effect.Effect<void, FileError>
  /** What happens below a directory from now on. {@link ResourceExhausted} when no more can be watched. */
  readonly watch: (
    path: string,
    options: { readonly recursive: boolean; readonly user: User }
  ) => Stream.Stream<WatchEvent, FileError>
}

/** One open connection into a machine. Closing the scope closes it. */
export interface Duplex {
  readonly incoming: Stream.Stream<Uint8Array, MachineError>
  readonly send: (data: Uint8Array) => Effect.Effect<void, MachineError>
  /** Says that nothing more will be sent. */
  readonly end: Effect.Effect<void, MachineError>
}

/** Why a machine ended. */
export interface MachineExit {
  readonly reason: string
  /** Whether it ran out of memory. */
  readonly outOfMemory: boolean
}

/** A running machine. */
export interface Machine {
  readonly generation: Generation
  /** The isolation it really has. */
  readonly isolation: IsolationLevel
  readonly processes: MachineProcesses
  readonly files: MachineFiles
  /** Connects to a TCP port that a program inside listens on. */
  readonly dial: (port: number) => Effect.Effect<Duplex, NotFound | MachineError, Scope.Scope>
  /** Stops every process where it stands; repeated calls succeed. */
  readonly pause: Effect.Effect<void, MachineError>
  readonly resume: Effect.Effect<void, MachineError>
  readonly metrics: Effect.Effect<Metrics, MachineError>
  /** Brings all that was written to the machine's disk where a crash of its host does not lose it. */
  readonly sync: Effect.Effect<void, MachineError>
  /**
   * Ends the machine and waits until no process, mount or limit group of it is
   * left; its disk stays. Also works on a paused, broken or dead machine. Repeated calls succeed.
   */
  readonly terminate: Effect.Effect<void, BackendFailed | Timeout>
  /** Completes when the machine has ended, for whatever reason. */
  readonly exited: Effect.Effect<MachineExit>
}
