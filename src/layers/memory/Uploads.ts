/**
 * Writes larger than one call: pieces by offset, invisible until committed.
 *
 * A piece that was already taken is acknowledged again, a gap is refused. An
 * upload that nobody goes on with expires, which is noticed at the next use.
 */
import { Result } from "effect"
import { Conflict, FileFailed, InvalidArgument, NotFound, ResourceExhausted } from "../../domain/Errors.ts"
import { maxUploads } from "../../domain/FileSystem.ts"
import type { UploadId } from "../../domain/Ids.ts"
import { prepareWrite, publish } from "./Files.ts"
import type { FileTree } from "./FileTree.ts"
import type { FileNode, FsFailure } from "./Inode.ts"

/** How long an upload waits for its next piece, and a finished one for a repeat of its commit, in milliseconds. */
const expiryMillis = 60 * 1000

interface Upload {
  readonly path: string
  readonly mode: number | undefined
  readonly uid: number
  readonly node: FileNode
  received: number
  usedAt: number
  committed: boolean
}

/** Raises a failed file operation. */
export const toFileFailed = (failure: FsFailure): FileFailed => new FileFailed(failure)

const tooMany = new ResourceExhausted({
  resource: "uploads",
  reason: `as many uploads as a sandbox may have are under way: ${maxUploads}`,
  retryAfterMillis: 1_000
})

/** The uploads in progress on one machine. */
export class Uploads {
  private readonly tree: FileTree
  private readonly uploads = new Map<UploadId, Upload>()

  constructor(tree: FileTree) {
    this.tree = tree
  }

  write(
    id: UploadId,
    path: string,
    offset: number,
    data: Uint8Array,
    mode: number | undefined,
    uid: number
  ): Result.Result<number, Conflict | FileFailed | InvalidArgument | ResourceExhausted> {
    this.expire()
    const existing = this.uploads.get(id)
    if (existing === undefined && offset > 0) {
      return Result.fail(new InvalidArgument({ field: "offset", reason: "the upload begins at 0" }))
    }
    if (existing === undefined && !this.admit()) return Result.fail(tooMany)
    const begun = existing === undefined ? this.begin(path, mode, uid) : Result.succeed(existing)
    if (Result.isFailure(begun)) return Result.fail(toFileFailed(begun.failure))
    const upload = begun.success
    if (upload.path !== path || upload.uid !== uid) {
      return Result.fail(new Conflict({ kind: "upload", id, reason: "this id names another upload" }))
    }
    this.uploads.set(id, upload)
    upload.usedAt = this.tree.now()
    return this.append(id, upload, offset, data)
  }

  /** Whether there is room for one more, perhaps in place of one that is remembered only for repeated commits. */
  private admit(): boolean {
    if (this.uploads.size < maxUploads) return true
    const committed = [...this.uploads].filter(([, upload]) => upload.committed)
    const [oldest] = committed.sort(([, a], [, b]) => a.usedAt - b.usedAt)
    return oldest !== undefined && this.uploads.delete(oldest[0])
  }

  private begin(path: string, mode: number | undefined, uid: number): Result.Result<Upload, FsFailure> {
    const place = prepareWrite(this.tree, path, uid)
    if (Result.isFailure(place)) return Result.fail(place.failure)
    return Result.map(this.tree.unnamed(mode ?? 0o644, uid, path), (node) => ({
      path,
      mode,
      uid,
      node,
      received: 0,
      usedAt: 0,
      committed: false
    }))
  }

  private append(
    id: UploadId,
    upload: Upload,
    offset: number,
    data: Uint8Array
  ): Result.Result<number, Conflict | FileFailed | InvalidArgument> {
    if (offset > upload.received) {
      const reason = `bytes before this offset are missing: ${upload.received} have arrived`
      return Result.fail(new InvalidArgument({ field: "offset", reason }))
    }
    const fresh = data.subarray(Math.min(data.length, upload.received - offset))
    if (fresh.length === 0) return Result.succeed(upload.received)
    if (upload.committed) return Result.fail(new Conflict({ kind: "upload", id, reason: "it is committed" }))
    const written = this.tree.writeAt(upload.node, upload.received, fresh)
    if (written < fresh.length) {
      // The same piece may come again, so nothing of it counts.
      this.tree.resize(upload.node, upload.received)
      return Result.fail(toFileFailed({ reason: "no-space", path: upload.path, detail: "" }))
    }
    upload.received += written
    return Result.succeed(upload.received)
  }

  commit(id: UploadId, size: number): Result.Result<void, NotFound | FileFailed | InvalidArgument> {
    this.expire()
    const upload = this.uploads.get(id)
    if (upload === undefined) return Result.fail(new NotFound({ kind: "upload", id }))
    if (upload.received !== size) {
      return Result.fail(
        new InvalidArgument({ field: "size", reason: `${upload.received} bytes have arrived` })
      )
    }
    upload.usedAt = this.tree.now()
    if (upload.committed) return Result.succeed(undefined)
    const place = prepareWrite(this.tree, upload.path, upload.uid)
    if (Result.isFailure(place)) return Result.fail(toFileFailed(place.failure))
    const { node, mode, uid, path } = upload
    const published = publish(this.tree, place.success, node, mode, uid, path)
    if (Result.isFailure(published)) {
      this.abort(id)
      return Result.fail(toFileFailed(published.failure))
    }
    upload.committed = true
    return Result.succeed(undefined)
  }

  abort(id: UploadId): void {
    const upload = this.uploads.get(id)
    if (upload === undefined) return
    this.uploads.delete(id)
    if (!upload.committed) this.tree.closeFile(upload.node)
  }

  /** Forgets what has not been used for long. */
  expire(): void {
    const before = this.tree.now() - expiryMillis
    for (const [id, upload] of this.uploads) if (upload.usedAt < before) this.abort(id)
  }

  /** Forgets all: the machine has ended. */
  clear(): void {
    for (const id of [...this.uploads.keys()]) this.abort(id)
  }
}
