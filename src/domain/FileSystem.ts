/**
 * Files in a sandbox, as its own user sees them.
 */
import { Schema } from "effect"
import { SandboxPath } from "./Process.ts"
import { Timestamp, User } from "./Sandbox.ts"

/** What kind of thing a path names; symbolic links are not followed to decide. */
export const FileType = Schema.Literals(["file", "directory", "symlink", "fifo", "socket", "device"])
export type FileType = typeof FileType.Type

/** Permission bits, as in chmod(2): 0 to 0o7777. */
export const Mode = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0o7777 }))

/** Nanoseconds beyond a millisecond. */
export const Nanos = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 999_999 }))

/** What stat tells. */
export const FileInfo = Schema.Struct({
  path: SandboxPath,
  type: FileType,
  /** Bytes. */
  size: Schema.Natural,
  mode: Mode,
  uid: Schema.Natural,
  gid: Schema.Natural,
  modifiedAt: Timestamp,
  /** Nanoseconds beyond the millisecond of `modifiedAt`. */
  nanos: Nanos,
  /** How many names it has. */
  links: Schema.Natural,
  /** Which file it is: the same for all its names, and for nothing else that exists. */
  inode: Schema.String,
  /** Where a symbolic link points; missing where that is no UTF-8. */
  target: Schema.optional(Schema.String)
})
export type FileInfo = typeof FileInfo.Type

/** The most bytes of a list: ten thousand entries whose paths are of usual lengths. */
export const maxListBytes = 4 * 1024 * 1024

/** What an entry of a list has, in bytes, besides its path. */
export const entryBytes = 200

/** A directory's content; `truncated` when there was more than the asked-for number of entries, or than {@link maxListBytes}. */
export const FileList = Schema.Struct({
  entries: Schema.Array(FileInfo),
  /** Paths below the directory that are no UTF-8, and so cannot be named here: their bytes, with `\xNN` for those beyond ASCII. */
  unnamed: Schema.Array(Schema.String),
  truncated: Schema.Boolean
})
export type FileList = typeof FileList.Type

/** Whose rights a file operation has; default `user`. */
export const As = Schema.optional(User)

/**
 * Why a watch ended: the watched directory, one above it or a link on the way to it was removed or moved, something was
 * put in its place, or its file system is gone. A new watch sees what is at the path now, if anything.
 */
export const WatchEnd = Schema.Literals(["removed", "moved", "replaced", "unmounted"])
export type WatchEnd = typeof WatchEnd.Type

/**
 * What happened below a watched directory. A directory that is moved in tells of what is in it as well; one that is moved
 * out is `Removed` as a whole. Repeated changes of one file may be told once. What is written through fiberbox has one
 * event: `Created` or, where it replaced a file, `Modified`.
 */
export const WatchEvent = Schema.Union([
  Schema.TaggedStruct("Created", { path: SandboxPath }),
  Schema.TaggedStruct("Modified", { path: SandboxPath }),
  Schema.TaggedStruct("Removed", { path: SandboxPath }),
  Schema.TaggedStruct("Renamed", { from: SandboxPath, to: SandboxPath }),
  /** Events were lost: look again at the whole directory. The watch goes on. */
  Schema.TaggedStruct("Overflow", {}),
  /** The path leads to this directory no more. The last event. */
  Schema.TaggedStruct("Ended", { reason: WatchEnd })
])
export type WatchEvent = typeof WatchEvent.Type

/** The most bytes one write or upload call carries. */
export const maxChunkBytes = 128 * 1024
/** How many uploads a sandbox may have under way. */
export const maxUploads = 64
