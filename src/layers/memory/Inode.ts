/**
 * What the in-memory file system is made of: files, directories, links and
 * devices, with owners and permission bits.
 */
import { Result } from "effect"
import type { FileFailure } from "../../domain/Errors.ts"
import type { FileInfo } from "../../domain/FileSystem.ts"
import type { User } from "../../domain/Sandbox.ts"

interface NodeFields {
  readonly ino: number
  /** Permission bits, as in chmod(2). */
  mode: number
  uid: number
  gid: number
  /** Milliseconds since the epoch, as far as known with a fraction. */
  modifiedAt: number
  /** Names this node has. */
  links: number
  /** Part of an image shared by many machines: never changed. */
  readonly frozen: boolean
}

/** A name in a directory; `parent` is missing once the name is gone. */
export interface Entry {
  parent: DirectoryNode | undefined
  name: string
}

/** A regular file: the first `size` bytes of `data`. */
export interface FileNode extends NodeFields {
  readonly kind: "file"
  data: Uint8Array
  size: number
  /** Open handles: a file without names lives until the last is closed. */
  opens: number
  /** The names under which it is open, which follow renames. */
  readonly openAs: Set<Entry>
}

export interface DirectoryNode extends NodeFields {
  readonly kind: "directory"
  readonly entries: Map<string, Node>
  /** Its one name; the root, and what all machines share, has none. */
  entry: Entry | undefined
}

export interface LinkNode extends NodeFields {
  readonly kind: "symlink"
  readonly target: string
}

/** The devices of /dev. */
export type DeviceName = "null" | "zero" | "full" | "random" | "tty" | "stdin" | "stdout" | "stderr"

export interface DeviceNode extends NodeFields {
  readonly kind: "device"
  readonly device: DeviceName
}

/** A named pipe; what is in it belongs to the machine that runs. */
export interface FifoNode extends NodeFields {
  readonly kind: "fifo"
}

export type Node = FileNode | DirectoryNode | LinkNode | DeviceNode | FifoNode

/** Why a file operation failed, as plain data: the shell prints it, the interface raises it. */
export interface FsFailure {
  readonly reason: FileFailure
  readonly path: string
  readonly detail: string
}

export type FsResult<A> = Result.Result<A, FsFailure>

/** A failed file operation. */
export const fsFail = (reason: FileFailure, path: string, detail = ""): Result.Result<never, FsFailure> =>
  Result.fail({ reason, path, detail })

/** What strerror(3) says. */
export const errorText: { readonly [R in FileFailure]: string } = {
  "not-found": "No such file or directory",
  permission: "Permission denied",
  exists: "File exists",
  "is-directory": "Is a directory",
  "not-directory": "Not a directory",
  "not-empty": "Directory not empty",
  "not-regular": "Not a regular file",
  "symlink-loop": "Too many levels of symbolic links",
  "name-too-long": "File name too long",
  "no-space": "No space left on device",
  "read-only": "Read-only file system",
  busy: "Device or resource busy",
  "cross-device": "Invalid cross-device link",
  invalid: "Invalid argument",
  io: "Input/output error"
}

/** The numbers of the two users. */
export const uidOf = (user: User): number => (user === "root" ? 0 : 1000)

/** Disk a node of a size takes: whole blocks, as ext4 counts. */
export const blockBytes = 4096
export const blocksOf = (size: number): number => Math.ceil(size / blockBytes) * blockBytes

export const READ = 4
export const WRITE = 2
export const SEARCH = 1

/** Whether a user may do something with a node; `bits` is a sum of {@link READ}, {@link WRITE} and {@link SEARCH}. */
export const allowed = (node: Node, uid: number, bits: number): boolean => {
  if (uid === 0) return (bits & SEARCH) === 0 || node.kind === "directory" || (node.mode & 0o111) !== 0
  const shift = node.uid === uid ? 6 : node.gid === uid ? 3 : 0
  return ((node.mode >> shift) & bits) === bits
}

/** What stat tells of a node. */
export const infoOf = (path: string, node: Node): FileInfo => {
  const info = {
    path,
    type: node.kind,
    size: sizeOf(node),
    mode: node.mode,
    uid: node.uid,
    gid: node.gid,
    modifiedAt: Math.floor(node.modifiedAt),
    nanos: Math.round((node.modifiedAt % 1) * 1_000_000),
    links: node.links,
    inode: `${node.ino}`
  }
  return node.kind === "symlink" ? { ...info, target: node.target } : info
}

const utf8 = new TextEncoder()
const text = new TextDecoder()

/** UTF-8 both ways; bytes that are none become replacement characters. */
export const encode = (value: string): Uint8Array => utf8.encode(value)
export const decode = (bytes: Uint8Array): string => text.decode(bytes)

const sizeOf = (node: Node): number => {
  switch (node.kind) {
    case "file":
      return node.size
    case "directory":
      return blockBytes
    case "symlink":
      return encode(node.target).length
    case "device":
    case "fifo":
      return 0
  }
}

/** How new nodes come about; inode numbers count up from the first. */
export const makeNodes = (firstInode: number, frozen: boolean) => {
  let next = firstInode
  const fields = (mode: number, uid: number, at: number): NodeFields => ({
    ino: next++,
    mode,
    uid,
    gid: uid,
    modifiedAt: at,
    links: 0,
    frozen
  })
  return {
    file: (mode: number, uid: number, at: number, data: Uint8Array = new Uint8Array(0)): FileNode => ({
      ...fields(mode, uid, at),
      kind: "file",
      data,
      size: data.length,
      opens: 0,
      openAs: new Set()
    }),
    directory: (mode: number, uid: number, at: number): DirectoryNode => ({
      ...fields(mode, uid, at),
      kind: "directory",
      entries: new Map(),
      entry: undefined
    }),
    symlink: (target: string, uid: number, at: number): LinkNode => ({
      ...fields(0o777, uid, at),
      kind: "symlink",
      target
    }),
    fifo: (uid: number, at: number): FifoNode => ({ ...fields(0o644, uid, at), kind: "fifo" }),
    device: (device: DeviceName, at: number): DeviceNode => ({
      ...fields(0o666, 0, at),
      kind: "device",
      device
    })
  }
}
export type Nodes = ReturnType<typeof makeNodes>
