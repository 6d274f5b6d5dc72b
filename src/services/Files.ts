/**
 * The file side of a sandbox handle.
 *
 * Writes are atomic: a reader inside sees the old content or the new, never a
 * part. What does not fit into one call goes up in pieces that name their
 * offset and becomes visible at the end.
 */
import { Effect, Exit, Schema, Semaphore, Stream } from "effect"
import { type FileFailed, InvalidArgument, ResourceExhausted } from "../domain/Errors.ts"
import {
  type FileInfo,
  type FileList,
  Mode,
  maxChunkBytes,
  Nanos,
  type WatchEvent
} from "../domain/FileSystem.ts"
import type { SandboxId, UploadId } from "../domain/Ids.ts"
import { SandboxPath } from "../domain/Process.ts"
import { User } from "../domain/Sandbox.ts"
import { type FileOperationError, ListDepth, ListLimit } from "../rpc/SandboxRpcs.ts"
import { concat } from "./Bytes.ts"
import { decodeBytes, decodeInput, optionsObject } from "./Input.ts"
import type { Client } from "./SandboxClient.ts"

/** Whose rights an operation has. */
export interface AsUser {
  /** Default: `user`. */
  readonly as?: User | undefined
}

/** How a file is written. */
export interface WriteOptions extends AsUser {
  /** Permission bits; default 0o644, or those of the file that is replaced. */
  readonly mode?: number | undefined
  /**
   * Whether to return only when a crash of the computer that runs the sandbox loses nothing of the file. Takes some
   * milliseconds, and as long as everything else takes that the sandbox has written lately. Default: no; what was
   * written then outlives all but such a crash, and that too once the sandbox is paused or stopped.
   */
  readonly durable?: boolean | undefined
}

/** What to read of a file. */
export interface ReadOptions extends AsUser {
  /** The first byte; default 0. */
  readonly offset?: number | undefined
  /** How many bytes; default: to the end. */
  readonly length?: number | undefined
}

/** Files in a sandbox. Paths are absolute; nothing outside the sandbox can be reached. */
export interface FilesApi {
  /** The bytes of a regular file, as they arrive. */
  readonly stream: (path: string, options?: ReadOptions) => Stream.Stream<Uint8Array, FileOperationError>
  /** The bytes of a regular file of at most `maxBytes` (default 64 MiB), otherwise `ResourceExhausted`. */
  readonly read: (
    path: string,
    options?: ReadOptions & { readonly maxBytes?: number | undefined }
  ) => Effect.Effect<Uint8Array, FileOperationError>
  /** The content of a regular file as UTF-8 text; bounded as {@link read}. */
  readonly readText: (
    path: string,
    options?: ReadOptions & { readonly maxBytes?: number | undefined }
  ) => Effect.Effect<string, FileOperationError>
  /** Replaces a file whole and atomically, making parent directories. */
  readonly write: (
    path: string,
    content: string | Uint8Array,
    options?: WriteOptions
  ) => Effect.Effect<void, FileOperationError>
  /**
   * Replaces a file by what a stream yields; the old content stays until the stream has ended. A sandbox takes 64 such streams at
   * one time: one more is `ResourceExhausted` as soon as something of it comes.
   */
  readonly writeStream: <E, R>(
    path: string,
    content: Stream.Stream<Uint8Array, E, R>,
    options?: WriteOptions
  ) => Effect.Effect<void, FileOperationError | E, R>
  /** Writes several files, in order; those before a failing one are written. */
  readonly writeMany: (
    files: ReadonlyArray<{ readonly path: string; readonly content: string | Uint8Array } & WriteOptions>
  ) => Effect.Effect<void, FileOperationError>
  /** What is below a directory: `depth` levels (default 1), at most `limit` entries (default 10,000), sorted by path. */
  readonly list: (
    path: string,
    options?: AsUser & { readonly depth?: number | undefined; readonly limit?: number | undefined }
  ) => Effect.Effect<FileList, FileOperationError>
  /** Describes a path; a symbolic link itself. */
  readonly stat: (path: string, options?: AsUser) => Effect.Effect<FileInfo, FileOperationError>
  /** Whether something is at a path. */
  readonly exists: (path: string, options?: AsUser) => Effect.Effect<boolean, FileOperationError>
  /** Makes a directory and its parents; an existing directory is no error. */
  readonly makeDir: (path: string, options?: WriteOptions) => Effect.Effect<void, FileOperationError>
  /** Renames, replacing a file at the new name. */
  readonly rename: (from: string, to: string, options?: AsUser) => Effect.Effect<void, FileOperationError>
  /** Removes a file, link or empty directory; with `recursive` a whole tree, links not followed. */
  readonly remove: (
    path: string,
    options?: AsUser & { readonly recursive?: boolean | undefined }
  ) => Effect.Effect<void, FileOperationError>
  readonly chmod: (path: string, mode: number, options?: AsUser) => Effect.Effect<void, FileOperationError>
  /** Sets when something was last changed: milliseconds, and nanoseconds beyond them (default 0); of a symbolic link, of the link itself. */
  readonly setTimes: (
    path: string,
    times: { readonly modifiedAt: number; readonly nanos?: number | undefined },
    options?: AsUser
  ) => Effect.Effect<void, FileOperationError>
  /** Gives a file another name, at which nothing may be (a hard link). */
  readonly link: (from: string, to: string, options?: AsUser) => Effect.Effect<void, FileOperationError>
  /**
   * What happens below a directory from now on. When the path leads to that directory no more, the stream ends with an
   * `Ended` event. `ResourceExhausted` when a sandbox has as many watches as it may, or more directories than one can hold.
   */
  readonly watch: (
    path: string,
    options?: AsUser & { readonly recursive?: boolean | undefined }
  ) => Stream.Stream<WatchEvent, FileOperationError>
}

const decodePath = decodeInput(SandboxPath, "path")
const decodeMode = decodeInput(Mode, "mode")
const decodeOptions = decodeInput(
  Schema.Struct({
    as: Schema.optional(User),
    mode: Schema.optional(Mode),
    durable: Schema.optional(Schema.Boolean),
    offset: Schema.optional(Schema.Natural),
    length: Schema.optional(Schema.Natural),
    maxBytes: Schema.optional(Schema.Number.check(Schema.isGreaterThanOrEqualTo(0))),
    depth: Schema.optional(ListDepth),
    limit: Schema.optional(ListLimit),
    recursive: Schema.optional(Schema.Boolean)
  }),
  ""
)
const decodeTimes = decodeInput(
  Schema.Struct({ modifiedAt: Schema.Int, nanos: Schema.optional(Nanos) }),
  "times"
)
const decodeContent = decodeBytes("content")
// A byte order mark is part of what was written.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
/** How much is written at one time by one handle of what is longer than a piece. */
const uploadsAtOnce = 8
const defaultMaxBytes = 64 * 1024 * 1024

/** The file side of a handle on `sandboxId`, over a client of the contract. */
export const makeFiles = (client: Client, sandboxId: SandboxId, newUploadId: () => UploadId): FilesApi => {
  // What is there already goes up in turns, not to need more uploads than a sandbox may have.
  const uploading = Semaphore.makeUnsafe(uploadsAtOnce)

  /** The checked target of an operation, and its options. */
  const at = Effect.fnUntraced(function* (path: string, options: object = {}) {
    const { as, ...rest } = yield* decodeOptions(options)
    return { target: { sandboxId, path: yield* decodePath(path), as }, ...rest }
  })

  const stream: FilesApi["stream"] = (path, options) =>
    Stream.unwrap(
      Effect.map(at(path, options), ({ target, offset, length }) =>
        client.ReadFile({ ...target, offset, length })
      )
    )

  const read = Effect.fnUntraced(function* (
    path: string,
    options?: ReadOptions & { readonly maxBytes?: number | undefined }
  ) {
    const { maxBytes = defaultMaxBytes } = yield* at(path, options)
    const chunks: Array<Uint8Array> = []
    let size = 0
    yield* Stream.runForEach(stream(path, options), (chunk) => {
      size += chunk.byteLength
      if (size > maxBytes) {
        const reason = `${path} has more than ${maxBytes} bytes; raise maxBytes or use stream`
        return Effect.fail(new ResourceExhausted({ resource: "read buffer", reason }))
      }
      chunks.push(chunk)
      return Effect.void
    })
    return concat(chunks)
  })

  const writeStream = Effect.fnUntraced(function* <E, R>(
    path: string,
    content: Stream.Stream<Uint8Array, E, R>,
    options?: WriteOptions
  ) {
    if (!Stream.isStream(content)) {
      return yield* new InvalidArgument({ field: "content", reason: "must be a stream" })
    }
    const { target: file, mode, durable } = yield* at(path, options)
    const target = { ...file, mode, uploadId: newUploadId() }
    let offset = 0
    const send = Effect.fnUntraced(function* (pieces: ReadonlyArray<Uint8Array>) {
      const chunk = concat(yield* Effect.forEach(pieces, decodeContent))
      for (let sent = 0; sent < chunk.byteLength; sent += maxChunkBytes) {
        const data = chunk.subarray(sent, sent + maxChunkBytes)
        yield* client.WriteUpload({ ...target, offset, data })
        offset += data.byteLength
      }
    })
    const { uploadId } = target
    // What comes at the same time goes up together, however small its pieces.
    yield* Stream.runForEachArray(content, send).pipe(
      Effect.andThen(
        Effect.suspend(() =>
          offset === 0
            ? client.WriteFile({ ...target, data: new Uint8Array(0), durable })
            : client.CommitUpload({ sandboxId, uploadId, size: offset, durable })
        )
      ),
      Effect.onExit((exit) =>
        Exit.isSuccess(exit) ? Effect.void : Effect.ignore(client.AbortUpload({ sandboxId, uploadId }))
      )
    )
  })

  const write = Effect.fnUntraced(function* (
    path: string,
    content: string | Uint8Array,
    options?: WriteOptions
  ) {
    const data = yield* decodeContent(content)
    if (data.byteLength > maxChunkBytes) {
      return yield* uploading.withPermit(writeStream(path, Stream.succeed(data), options))
    }
    const { target, mode, durable } = yield* at(path, options)
    return yield* client.WriteFile({ ...target, mode, data, durable })
  })

  const stat = Effect.fnUntraced(function* (path: string, options?: AsUser) {
    return yield* client.StatFile((yield* at(path, options)).target)
  })

  return {
    stream,
    read: Effect.fn("Sandbox.files.read")(read),
    readText: Effect.fn("Sandbox.files.readText")((path, options) =>
      Effect.map(read(path, options), (bytes) => decoder.decode(bytes))
    ),
    write: Effect.fn("Sandbox.files.write")(write),
    writeStream: Effect.fn("Sandbox.files.writeStream")(writeStream),
    writeMany: Effect.fn("Sandbox.files.writeMany")(function* (files) {
      if (!Array.isArray(files))
        return yield* new InvalidArgument({ field: "files", reason: "must be an array" })
      for (const file of files) {
        const { path, content, ...options } = yield* optionsObject(file)
        yield* write(path, content, options)
      }
    }),
    list: Effect.fn("Sandbox.files.list")(function* (path, options) {
      const { target, depth, limit } = yield* at(path, options)
      return yield* client.ListFiles({ ...target, depth, limit })
    }),
    stat: Effect.fn("Sandbox.files.stat")(stat),
    exists: Effect.fn("Sandbox.files.exists")((path, options) =>
      stat(path, options).pipe(
        Effect.as(true),
        Effect.catchIf(isAbsent, () => Effect.succeed(false))
      )
    ),
    makeDir: Effect.fn("Sandbox.files.makeDir")(function* (path, options) {
      const { target, mode } = yield* at(path, options)
      return yield* client.MakeDir({ ...target, mode })
    }),
    rename: Effect.fn("Sandbox.files.rename")(function* (from, to, options) {
      const { target } = yield* at(from, options)
      return yield* client.RenameFile({
        sandboxId,
        as: target.as,
        from: target.path,
        to: yield* decodePath(to)
      })
    }),
    remove: Effect.fn("Sandbox.files.remove")(function* (path, options) {
      const { target, recursive } = yield* at(path, options)
      return yield* client.RemoveFile({ ...target, recursive })
    }),
    chmod: Effect.fn("Sandbox.files.chmod")(function* (path, mode, options) {
      return yield* client.ChangeMode({ ...(yield* at(path, options)).target, mode: yield* decodeMode(mode) })
    }),
    setTimes: Effect.fn("Sandbox.files.setTimes")(function* (path, times, options) {
      const { modifiedAt, nanos = 0 } = yield* decodeTimes(times)
      return yield* client.SetTimes({ ...(yield* at(path, options)).target, modifiedAt, nanos })
    }),
    link: Effect.fn("Sandbox.files.link")(function* (from, to, options) {
      const { target } = yield* at(from, options)
      return yield* client.LinkFile({
        sandboxId,
        as: target.as,
        from: target.path,
        to: yield* decodePath(to)
      })
    }),
    watch: (path, options) =>
      Stream.unwrap(
        Effect.map(at(path, options), ({ target, recursive }) => client.WatchFiles({ ...target, recursive }))
      )
  }
}

const isAbsent = (error: FileOperationError): error is FileFailed =>
  error._tag === "FileFailed" && (error.reason === "not-found" || error.reason === "not-directory")
