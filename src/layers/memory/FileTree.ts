/**
 * The in-memory file system: one tree with the rules of POSIX, as plain
 * synchronous code.
 *
 * Every operation names who asks (a uid) and answers with a result. Times come
 * from the clock given to it. Disk bytes are counted in whole blocks, and both
 * bytes and inodes have limits.
 */
import { Result } from "effect"
import {
  allowed,
  blockBytes,
  blocksOf,
  type DirectoryNode,
  type Entry,
  encode,
  type FileNode,
  type FsResult,
  fsFail,
  makeNodes,
  type Node,
  type Nodes,
  SEARCH,
  WRITE
} from "./Inode.ts"

/** Where a path leads: the directory it is (or would be) in, and its name there. */
export interface Place {
  readonly parent: DirectoryNode
  /** Empty for the root itself. */
  readonly name: string
  readonly node: Node | undefined
  /** The path without links, `.` and `..`. */
  readonly path: string
}

export type { Entry } from "./Inode.ts"

/** A change of the node under a name, told to whoever watches. */
export type Change =
  | { readonly kind: "created" | "modified" | "removed"; readonly at: Entry; readonly node: Node }
  | {
      readonly kind: "renamed"
      readonly at: Entry
      readonly node: Node
      readonly to: Entry
      readonly replaced: Node | undefined
    }

/** Limits of the writable part. */
export interface DiskLimits {
  readonly bytes: number
  readonly inodes: number
}

/** path_resolution(7). */
const maxLinks = 40
const maxNameBytes = 255
const maxPathBytes = 4095

/** The parts of a path, last first. */
const partsOf = (path: string): Array<string> =>
  path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .reverse()

/** One file system. */
export class FileTree {
  readonly root: DirectoryNode
  readonly nodes: Nodes
  readonly now: () => number
  limits: DiskLimits
  usedBytes = 0
  usedInodes = 0
  /** Called after every change. */
  readonly watchers = new Set<(change: Change) => void>()

  constructor(options: { readonly now: () => number; readonly limits: DiskLimits }) {
    this.now = options.now
    this.limits = options.limits
    this.nodes = makeNodes(1_000_000, false)
    this.root = this.nodes.directory(0o755, 0, options.now())
    this.root.links = 1
  }

  /**
   * Finds where a path leads. With `follow` a link at its end is followed too; a name that is missing there is no failure.
   * Every name on the way, those of links included, is added to `way`.
   */
  resolve(path: string, uid: number, follow: boolean, way?: Array<Entry>): FsResult<Place> {
    if (path.length > maxPathBytes && encode(path).length > maxPathBytes) return fsFail("name-too-long", path)
    const pending = partsOf(path)
    const directories: Array<DirectoryNode> = [this.root]
    const names: Array<string> = []
    let mustBeDirectory = path.endsWith("/") || path.endsWith("/.")
    let links = 0
    for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
      const parent = directories[directories.length - 1] ?? this.root
      if (!allowed(parent, uid, SEARCH)) return fsFail("permission", path)
      if (part === "..") {
        directories.length = Math.max(1, directories.length - 1)
        names.pop()
        continue
      }
      if (part.length > maxNameBytes / 4 && encode(part).length > maxNameBytes)
        return fsFail("name-too-long", path)
      way?.push({ parent, name: part })
      const last = pending.length === 0
      const node = parent.entries.get(part)
      if (node === undefined) {
        if (!last) return fsFail("not-found", path)
        return Result.succeed(placeOf(names, parent, part, undefined))
      }
      if (node.kind === "symlink" && (!last || follow || mustBeDirectory)) {
        links++
        if (links > maxLinks) return fsFail("symlink-loop", path)
        if (node.target.startsWith("/")) {
          directories.length = 1
          names.length = 0
        }
        if (last && node.target.endsWith("/")) mustBeDirectory = true
        pending.push(...partsOf(node.target))
        continue
      }
      if (last) {
        if (mustBeDirectory && node.kind !== "directory") return fsFail("not-directory", path)
        return Result.succeed(placeOf(names, parent, part, node))
      }
      if (node.kind !== "directory") return fsFail("not-directory", path)
      directories.push(node)
      names.push(part)
    }
    // The path ended at a directory already passed: the root, or after `..`.
    const node = directories.pop() ?? this.root
    const name = names.pop() ?? ""
    return Result.succeed(placeOf(names, directories[directories.length - 1] ?? this.root, name, node))
  }

  /** Finds an existing node. */
  lookup(
    path: string,
    uid: number,
    follow: boolean,
    way?: Array<Entry>
  ): FsResult<Place & { readonly node: Node }> {
    const place = this.resolve(path, uid, follow, way)
    if (Result.isFailure(place)) return Result.fail(place.failure)
    const node = place.success.node
    return node === undefined ? fsFail("not-found", path) : Result.succeed({ ...place.success, node })
  }

  /** Whether a user may add or remove the name of a place. */
  mayChange(place: Place, uid: number, path: string): FsResult<void> {
    if (place.name === "") return fsFail("busy", path)
    if (place.parent.frozen) return fsFail("read-only", path)
    if (!allowed(place.parent, uid, WRITE | SEARCH)) return fsFail("permission", path)
    const sticky = (place.parent.mode & 0o1000) !== 0 && uid !== 0 && place.parent.uid !== uid
    if (sticky && place.node !== undefined && place.node.uid !== uid) return fsFail("permission", path)
    return Result.succeed(undefined)
  }

  /** Puts a new node at a free place. */
  add(place: Place, node: Node, uid: number, path: string): FsResult<Place> {
    if (place.node !== undefined) return fsFail("exists", path)
    const may = this.mayChange(place, uid, path)
    if (Result.isFailure(may)) return Result.fail(may.failure)
    if (node.links === 0 && !(node.kind === "file" && node.opens > 0)) {
      const size = node.kind === "directory" ? blockBytes : node.kind === "file" ? blocksOf(node.size) : 0
      if (this.usedInodes + 1 > this.limits.inodes) return fsFail("no-space", path, "no inodes left")
      if (this.usedBytes + size > this.limits.bytes) return fsFail("no-space", path)
      this.usedInodes++
      this.usedBytes += size
    }
    this.attach(place, node)
    this.changed({ kind: "created", at: place, node })
    return Result.succeed({ ...place, node })
  }

  /** Takes a node from its place, freeing it when this was its last name. */
  detach(place: Place & { readonly node: Node }): void {
    place.parent.entries.delete(place.name)
    place.parent.modifiedAt = this.now()
    place.node.links--
    moveEntries(place.node, place, { parent: undefined, name: place.name })
    this.release(place.node)
    this.changed({ kind: "removed", at: place, node: place.node })
  }

  /** Frees a node without names and open handles. */
  release(node: Node): void {
    if (node.frozen || node.links > 0 || (node.kind === "file" && node.opens > 0)) return
    this.usedInodes--
    if (node.kind === "directory") this.usedBytes -= blockBytes
    if (node.kind === "file") this.usedBytes -= blocksOf(node.size)
  }

  attach(place: Place, node: Node): void {
    place.parent.entries.set(place.name, node)
    place.parent.modifiedAt = this.now()
    node.links++
    if (node.kind === "directory") node.entry = { parent: place.parent, name: place.name }
  }

  /** Puts another file where one is, at once. */
  supplant(place: Place, existing: Node, node: FileNode): void {
    existing.links--
    moveEntries(existing, place, { parent: undefined, name: place.name })
    this.release(existing)
    this.attach(place, node)
    this.changed({ kind: "modified", at: place, node })
  }

  /** A file without a name, which counts until its handle is released: for writes that become visible at once. */
  unnamed(mode: number, uid: number, path: string): FsResult<FileNode> {
    if (this.usedInodes + 1 > this.limits.inodes) return fsFail("no-space", path, "no inodes left")
    this.usedInodes++
    const node = this.nodes.file(mode, uid, this.now())
    node.opens = 1
    return Result.succeed(node)
  }

  closeFile(node: FileNode): void {
    node.opens--
    this.release(node)
  }

  /** Writes what fits on the disk and returns how many bytes that was: 0 when it is full. */
  writeAt(node: FileNode, offset: number, data: Uint8Array): number {
    const room = blocksOf(node.size) + Math.max(0, this.limits.bytes - this.usedBytes)
    const whole = Math.floor(room / blockBytes) * blockBytes
    const count = Math.min(data.length, Math.max(0, whole - offset))
    if (count === 0) return 0
    this.resize(node, Math.max(node.size, offset + count))
    node.data.set(count === data.length ? data : data.subarray(0, count), offset)
    node.modifiedAt = this.now()
    return count
  }

  /** Cuts a file, or lengthens it with zeros; the caller has made sure that it fits. */
  resize(node: FileNode, size: number): void {
    this.usedBytes += blocksOf(size) - blocksOf(node.size)
    if (size > node.data.length) {
      // Doubled, so that each byte of a file that grows is moved a few times at most, but never more than the disk has.
      const free = Math.max(0, this.limits.bytes - this.usedBytes)
      const data = new Uint8Array(Math.max(size, Math.min(node.data.length * 2, size + free)))
      data.set(node.data.subarray(0, node.size))
      node.data = data
    } else if (size === 0) {
      node.data = new Uint8Array(0)
    } else if (size < node.size) {
      node.data.fill(0, size, node.size)
    }
    node.size = size
    node.modifiedAt = this.now()
  }

  /** Gives a node a new name, replacing what rename(2) lets it replace. */
  rename(from: string, to: string, uid: number): FsResult<void> {
    const source = this.lookup(from, uid, false)
    if (Result.isFailure(source)) return Result.fail(source.failure)
    const target = this.resolve(to, uid, false)
    if (Result.isFailure(target)) return Result.fail(target.failure)
    return this.move(source.success, target.success, uid, from, to)
  }

  private move(
    source: Place & { readonly node: Node },
    target: Place,
    uid: number,
    from: string,
    to: string
  ): FsResult<void> {
    const node = source.node
    for (const may of [this.mayChange(source, uid, from), this.mayChange(target, uid, to)]) {
      if (Result.isFailure(may)) return may
    }
    const replaced = target.node
    if (replaced === node) return Result.succeed(undefined)
    if (node.kind === "directory") {
      if (isAtOrBelow(target.parent, node)) return fsFail("invalid", to)
      // Its `..` changes, which is a write to the directory itself.
      if (source.parent !== target.parent && !allowed(node, uid, WRITE)) return fsFail("permission", from)
    }
    if (replaced !== undefined) {
      if (replaced.kind === "directory") {
        if (node.kind !== "directory") return fsFail("is-directory", to)
        if (replaced.entries.size > 0) return fsFail("not-empty", to)
      } else if (node.kind === "directory") {
        return fsFail("not-directory", to)
      }
    } else if (to.endsWith("/") && node.kind !== "directory") {
      return fsFail("not-directory", to)
    }
    this.replace(source, target)
    return Result.succeed(undefined)
  }

  /** Moves a node to a place, freeing what was there. All checks have been made. */
  private replace(source: Place & { readonly node: Node }, target: Place): void {
    source.parent.entries.delete(source.name)
    source.parent.modifiedAt = this.now()
    const { node } = source
    const replaced = target.node
    if (replaced !== undefined) {
      replaced.links--
      moveEntries(replaced, target, { parent: undefined, name: target.name })
      this.release(replaced)
    }
    target.parent.entries.set(target.name, node)
    target.parent.modifiedAt = this.now()
    moveEntries(node, source, target)
    this.changed({ kind: "renamed", at: source, node, to: target, replaced })
  }

  changed(change: Change): void {
    for (const watcher of this.watchers) watcher(change)
  }
}

/** Has what knows a node by a name know it by another one from now on. */
const moveEntries = (node: Node, from: Entry, to: Entry): void => {
  const known =
    node.kind === "file" ? node.openAs : node.kind === "directory" && node.entry ? [node.entry] : []
  for (const entry of known) {
    if (entry.parent !== from.parent || entry.name !== from.name) continue
    entry.parent = to.parent
    entry.name = to.name
  }
}

const isAtOrBelow = (directory: DirectoryNode, top: DirectoryNode): boolean => {
  let at: DirectoryNode | undefined = directory
  while (at !== undefined && at !== top) at = at.entry?.parent
  return at === top
}

const placeOf = (
  names: ReadonlyArray<string>,
  parent: DirectoryNode,
  name: string,
  node: Node | undefined
): Place => ({
  parent,
  name,
  node,
  path: name === "" ? "/" : `/${[...names, name].join("/")}`
})
