/**
 * File operations on a {@link FileTree} as a machine offers them: whole writes
 * that become visible at once, listings, trees made and removed.
 */
import { Result } from "effect"
import { entryBytes, type FileInfo, type FileList, maxListBytes } from "../../domain/FileSystem.ts"
import type { FileTimes } from "../../services/Machine.ts"
import type { FileTree, Place } from "./FileTree.ts"
import {
  allowed,
  type DirectoryNode,
  type FileNode,
  type FsResult,
  fsFail,
  infoOf,
  type Node,
  READ,
  SEARCH,
  WRITE
} from "./Inode.ts"

/** Joins a directory's path and a name. */
export const join = (directory: string, name: string): string =>
  directory.endsWith("/") ? `${directory}${name}` : `${directory}/${name}`

/** An absolute path without `.`, `..` and doubled slashes; links are not looked at. */
export const normalize = (path: string): string => {
  const parts: Array<string> = []
  for (const part of path.split("/")) {
    if (part === "..") parts.pop()
    else if (part !== "" && part !== ".") parts.push(part)
  }
  return `/${parts.join("/")}`
}

/** The path of the directory that holds a path's last name. */
export const parentOf = (path: string): string => {
  const trimmed = path.replace(/\/+$/, "")
  const slash = trimmed.lastIndexOf("/")
  return slash <= 0 ? "/" : trimmed.slice(0, slash)
}

/** Describes a path; a link itself, unless followed. */
export const stat = (tree: FileTree, path: string, uid: number, follow = false): FsResult<FileInfo> =>
  Result.map(tree.lookup(path, uid, follow), (place) => infoOf(path, place.node))

/** A regular file that a user may read. */
export const readable = (tree: FileTree, path: string, uid: number): FsResult<FileNode> => {
  const place = tree.lookup(path, uid, true)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const node = place.success.node
  if (node.kind === "directory") return fsFail("is-directory", path)
  if (node.kind !== "file") return fsFail("not-regular", path)
  return allowed(node, uid, READ) ? Result.succeed(node) : fsFail("permission", path)
}

/** A file's whole content. */
export const readAll = (tree: FileTree, path: string, uid: number): FsResult<Uint8Array> =>
  Result.map(readable(tree, path, uid), (node) => node.data.slice(0, node.size))

/** Makes a directory and its parents; an existing directory is no error and keeps its mode. */
export const makeDirs = (tree: FileTree, path: string, mode: number, uid: number): FsResult<void> => {
  const found = tree.resolve(path, uid, true)
  if (Result.isFailure(found) && found.failure.reason !== "not-found") return Result.fail(found.failure)
  if (Result.isSuccess(found)) {
    const { node } = found.success
    if (node?.kind === "directory") return Result.succeed(undefined)
    if (node !== undefined) return fsFail("exists", path)
  }
  // mkdir(2) does not follow a link that leads nowhere, and nothing else may be made through it.
  const itself = tree.resolve(path.replace(/\/+$/, ""), uid, false)
  if (Result.isSuccess(itself) && itself.success.node !== undefined) return fsFail("not-found", path)
  if (Result.isFailure(found)) {
    const parent = parentOf(path)
    if (parent === path) return Result.fail(found.failure)
    const made = makeDirs(tree, parent, 0o755, uid)
    return Result.isFailure(made) ? made : makeDirs(tree, path, mode, uid)
  }
  return Result.map(
    tree.add(found.success, tree.nodes.directory(mode, uid, tree.now()), uid, path),
    () => undefined
  )
}

/** The place a whole write goes to: what is there may be replaced by this user. */
export const writable = (tree: FileTree, path: string, uid: number): FsResult<Place> => {
  const place = tree.resolve(path, uid, true)
  if (Result.isFailure(place)) return place
  const node = place.success.node
  if (node?.kind === "directory" || path.endsWith("/")) return fsFail("is-directory", path)
  if (node !== undefined && node.kind !== "file") return fsFail("not-regular", path)
  return Result.map(tree.mayChange(place.success, uid, path), () => place.success)
}

/** Makes a path's parents and finds the place to write it. */
export const prepareWrite = (tree: FileTree, path: string, uid: number): FsResult<Place> => {
  const parents = makeDirs(tree, parentOf(path), 0o755, uid)
  if (Result.isSuccess(parents)) return writable(tree, path, uid)
  return parents.failure.reason === "exists"
    ? fsFail("not-directory", path)
    : Result.fail({ ...parents.failure, path })
}

/** Puts an unnamed file at a place, replacing a file there, and lets go of the handle on it. */
export const publish = (
  tree: FileTree,
  place: Place,
  node: FileNode,
  mode: number | undefined,
  uid: number,
  path: string
): FsResult<void> => {
  const existing = place.node
  if (existing?.kind === "file") {
    // A file that is replaced keeps its mode, unless another is asked for, and its owner where root writes.
    if (mode === undefined) node.mode = existing.mode
    if (uid === 0) {
      node.uid = existing.uid
      node.gid = existing.gid
    }
  }
  if (existing === undefined) {
    const added = tree.add(place, node, uid, path)
    if (Result.isFailure(added)) return Result.fail(added.failure)
  } else {
    tree.supplant(place, existing, node)
  }
  tree.closeFile(node)
  return Result.succeed(undefined)
}

/** Replaces a file whole, making its parents. On failure the old content stays. */
export const writeWhole = (
  tree: FileTree,
  path: string,
  data: Uint8Array,
  mode: number | undefined,
  uid: number
): FsResult<void> => {
  const place = prepareWrite(tree, path, uid)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const node = tree.unnamed(mode ?? 0o644, uid, path)
  if (Result.isFailure(node)) return Result.fail(node.failure)
  const written = tree.writeAt(node.success, 0, data)
  const published =
    written < data.length
      ? fsFail("no-space", path)
      : publish(tree, place.success, node.success, mode, uid, path)
  if (Result.isFailure(published)) tree.closeFile(node.success)
  return published
}

/** What is below a directory, `depth` levels, sorted by path, at most `limit` entries; unreadable directories below it are not entered. */
export const list = (
  tree: FileTree,
  path: string,
  depth: number,
  limit: number,
  uid: number
): FsResult<FileList> => {
  const place = tree.lookup(path, uid, true)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const directory = place.success.node
  if (directory.kind !== "directory") return fsFail("not-directory", path)
  if (!allowed(directory, uid, READ)) return fsFail("permission", path)
  const found: Array<readonly [string, Node]> = []
  const enter = (at: string, of: DirectoryNode, levels: number): void => {
    for (const [name, node] of of.entries) {
      const below = join(at, name)
      found.push([below, node])
      if (node.kind === "directory" && levels > 1 && allowed(node, uid, READ | SEARCH))
        enter(below, node, levels - 1)
    }
  }
  enter(path, directory, depth)
  found.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  let bytes = 0
  const isOver = ([at]: readonly [string, Node]) => {
    bytes += entryBytes + at.length
    return bytes > maxListBytes
  }
  const end = found.slice(0, limit).findIndex(isOver)
  const kept = found.slice(0, end === -1 ? limit : end)
  return Result.succeed({
    entries: kept.map(([at, node]) => infoOf(at, node)),
    // The memory of this machine has text for names.
    unnamed: [],
    truncated: found.length > kept.length
  })
}

/** Removes a file, a link or an empty directory; with `recursive` a whole tree, as far as the user may. */
export const remove = (tree: FileTree, path: string, recursive: boolean, uid: number): FsResult<void> => {
  const place = tree.lookup(path, uid, false)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  return removePlace(tree, place.success, recursive, uid, path)
}

const removePlace = (
  tree: FileTree,
  place: Place & { readonly node: Node },
  recursive: boolean,
  uid: number,
  path: string
): FsResult<void> => {
  const may = tree.mayChange(place, uid, path)
  if (Result.isFailure(may)) return may
  const node = place.node
  if (node.kind === "directory" && node.entries.size > 0) {
    if (!recursive) return fsFail("not-empty", path)
    if (!node.frozen && !allowed(node, uid, READ | SEARCH | WRITE)) return fsFail("permission", path)
    // What cannot be removed does not save what stands beside it.
    const removed = [...node.entries].map(([name, child]) =>
      removePlace(
        tree,
        { parent: node, name, node: child, path: join(place.path, name) },
        true,
        uid,
        join(path, name)
      )
    )
    const kept = removed.find(Result.isFailure)
    if (kept !== undefined) return kept
  }
  tree.detach(place)
  return Result.succeed(undefined)
}

/** Changes permission bits; only the owner and root may. */
export const chmod = (tree: FileTree, path: string, mode: number, uid: number): FsResult<void> => {
  const place = tree.lookup(path, uid, true)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const node = place.success.node
  if (node.frozen) return fsFail("read-only", path)
  if (uid !== 0 && node.uid !== uid) return fsFail("permission", path)
  node.mode = mode
  if (node.kind !== "directory") tree.changed({ kind: "modified", at: place.success, node })
  return Result.succeed(undefined)
}

/** Sets when a node was last changed; only the owner and root may. */
export const setTimes = (
  tree: FileTree,
  path: string,
  { modifiedAt, nanos }: FileTimes,
  uid: number
): FsResult<void> => {
  const place = tree.lookup(path, uid, false)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const node = place.success.node
  if (node.frozen) return fsFail("read-only", path)
  if (uid !== 0 && node.uid !== uid) return fsFail("permission", path)
  node.modifiedAt = modifiedAt + nanos / 1_000_000
  return Result.succeed(undefined)
}

/** Gives what is at one path another name; as link(2), not to directories. */
export const addName = (tree: FileTree, from: string, to: string, uid: number): FsResult<void> => {
  const source = tree.lookup(from, uid, false)
  if (Result.isFailure(source)) return Result.fail(source.failure)
  const { node } = source.success
  if (node.frozen) return fsFail("cross-device", to)
  if (node.kind === "directory") return fsFail("permission", to)
  const target = tree.resolve(to, uid, false)
  if (Result.isFailure(target)) return Result.fail(target.failure)
  return Result.map(tree.add(target.success, node, uid, to), () => undefined)
}
