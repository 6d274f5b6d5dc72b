/**
 * Watching a directory, as inotify(7) does: what changes in the directories a
 * watch holds is queued, up to a bound, and what did not fit is told as one `Overflow`.
 */
import { Result } from "effect"
import type { WatchEnd, WatchEvent } from "../../domain/FileSystem.ts"
import { join } from "./Files.ts"
import type { Change, Entry, FileTree } from "./FileTree.ts"
import { allowed, type DirectoryNode, type FsResult, fsFail, type Node, READ, SEARCH } from "./Inode.ts"
import { type Schedule, Wakeup } from "./Wakeup.ts"

/** Events that wait for a reader; then an overflow is told and the rest dropped. */
const queueLimit = 4096

/** How many watches a machine has. */
export const maxWatches = 16

/** One watch. */
export interface FileWatch {
  readonly wakeup: Wakeup
  /** Takes all that is queued. */
  readonly take: () => ReadonlyArray<WatchEvent>
  readonly close: () => void
}

/** Begins to watch a directory that a user may read. */
export const watch = (
  tree: FileTree,
  path: string,
  recursive: boolean,
  uid: number,
  schedule: Schedule
): FsResult<FileWatch> => {
  const way: Array<Entry> = []
  const place = tree.lookup(path, uid, true, way)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const directory = place.success.node
  if (directory.kind !== "directory") return fsFail("not-directory", path)
  if (!allowed(directory, uid, READ)) return fsFail("permission", path)

  const wakeup = new Wakeup(schedule)
  const held = new Held(path, directory, uid, recursive)
  let queue: Array<WatchEvent> = []
  const push = (event: WatchEvent): void => {
    if (repeats(queue[queue.length - 1], event)) return
    if (queue.length < queueLimit || event._tag === "Ended") queue.push(event)
    else if (queue.length === queueLimit) queue.push({ _tag: "Overflow" })
    wakeup.notify()
  }
  const onChange = (change: Change): void => {
    const reason = endOf(way, change)
    if (reason === undefined) held.events(change, push)
    else {
      tree.watchers.delete(onChange)
      push({ _tag: "Ended", reason })
    }
  }
  tree.watchers.add(onChange)
  return Result.succeed({
    wakeup,
    take: () => {
      const taken = queue
      queue = []
      return taken
    },
    close: () => tree.watchers.delete(onChange)
  })
}

/** How a change takes the directory from under its path: one of the names on the way leads there no more. */
const endOf = (way: ReadonlyArray<Entry>, change: Change): WatchEnd | undefined => {
  const leads = (at: Entry) => way.some(({ parent, name }) => parent === at.parent && name === at.name)
  if (change.kind === "removed") return leads(change.at) ? "removed" : undefined
  if (change.kind !== "renamed") return undefined
  return leads(change.at) ? "moved" : leads(change.to) ? "replaced" : undefined
}

/** The directories of a watch: the one it is for and, if asked for, those below that the user may read. */
class Held {
  private readonly path: string
  private readonly root: DirectoryNode
  private readonly uid: number
  private readonly recursive: boolean
  private readonly directories = new Set<DirectoryNode>()

  constructor(path: string, root: DirectoryNode, uid: number, recursive: boolean) {
    this.path = path
    this.root = root
    this.uid = uid
    this.recursive = recursive
    this.add(root, () => {})
  }

  /** What is told of a change; a move across the border is an appearance or a removal. */
  events(change: Change, tell: (event: WatchEvent) => void): void {
    const { at, node } = change
    const isHere = this.has(at.parent)
    switch (change.kind) {
      case "created":
        if (isHere) this.appear(at, node, tell)
        break
      case "modified":
        if (isHere) tell({ _tag: "Modified", path: this.pathOf(at) })
        break
      case "removed":
        if (isHere) this.remove(at, node, tell)
        break
      case "renamed": {
        const { to, replaced } = change
        if (replaced?.kind === "directory") this.directories.delete(replaced)
        const isThere = this.has(to.parent)
        if (isHere && isThere) {
          tell({ _tag: "Renamed", from: this.pathOf(at), to: this.pathOf(to) })
          this.follow(node, tell)
        } else if (isHere) this.remove(at, node, tell)
        else if (isThere) this.appear(to, node, tell)
      }
    }
  }

  private has(directory: DirectoryNode | undefined): boolean {
    return directory !== undefined && this.directories.has(directory)
  }

  private appear(at: Entry, node: Node, tell: (event: WatchEvent) => void): void {
    tell({ _tag: "Created", path: this.pathOf(at) })
    this.follow(node, tell)
  }

  private remove(at: Entry, node: Node, tell: (event: WatchEvent) => void): void {
    tell({ _tag: "Removed", path: this.pathOf(at) })
    if (node.kind === "directory") this.forget(node)
  }

  private follow(node: Node, tell: (event: WatchEvent) => void): void {
    if (!this.recursive || node.kind !== "directory" || this.has(node)) return
    for (let above = node.entry?.parent; above !== undefined; above = above.entry?.parent) {
      if (!allowed(above, this.uid, SEARCH)) return
      if (above !== this.root) continue
      this.add(node, tell)
      return
    }
  }

  private add(directory: DirectoryNode, tell: (event: WatchEvent) => void): void {
    if (!allowed(directory, this.uid, READ)) return
    this.directories.add(directory)
    if (!this.recursive) return
    const enters = allowed(directory, this.uid, SEARCH)
    for (const [name, node] of directory.entries) {
      tell({ _tag: "Created", path: this.pathOf({ parent: directory, name }) })
      if (enters && node.kind === "directory") this.add(node, tell)
    }
  }

  private forget(directory: DirectoryNode): void {
    this.directories.delete(directory)
    for (const node of directory.entries.values()) if (node.kind === "directory") this.forget(node)
  }

  /** The path of something below, under the name by which the directory is watched. */
  private pathOf(at: Entry): string {
    const names = [at.name]
    let above = at.parent
    while (above !== undefined && above !== this.root && above.entry !== undefined) {
      names.push(above.entry.name)
      above = above.entry.parent
    }
    return names.reduceRight(join, this.path)
  }
}

/** Repeated writes to one file are told once, as inotify(7) does. */
const repeats = (before: WatchEvent | undefined, event: WatchEvent): boolean =>
  before?._tag === "Modified" && event._tag === "Modified" && before.path === event.path
