/**
 * Watching a directory: what changes in it is queued, up to a bound, and what
 * did not fit is told as one `Overflow`.
 */
import { Result } from "effect"
import type { WatchEvent } from "../../domain/FileSystem.ts"
import { join } from "./Files.ts"
import type { Change, FileTree, Place } from "./FileTree.ts"
import { allowed, type DirectoryNode, type FsResult, fsFail, READ } from "./Inode.ts"
import { type Schedule, Wakeup } from "./Wakeup.ts"

/** Events that wait for a reader; then an overflow is told and the rest dropped. */
const queueLimit = 4096

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
  const place = tree.lookup(path, uid, true)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const directory = place.success.node
  if (directory.kind !== "directory") return fsFail("not-directory", path)
  if (!allowed(directory, uid, READ)) return fsFail("permission", path)

  const wakeup = new Wakeup(schedule)
  let queue: Array<WatchEvent> = []
  const onChange = (change: Change): void => {
    const event = eventOf(change, (at) => pathBelow(path, directory, recursive, at))
    if (event === undefined || repeats(queue[queue.length - 1], event)) return
    if (queue.length < queueLimit) queue.push(event)
    else if (queue.length === queueLimit) queue.push({ _tag: "Overflow" })
    wakeup.notify()
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

/** The path of a place as the watcher names it, or undefined when it is outside. */
const pathBelow = (
  root: string,
  directory: DirectoryNode,
  recursive: boolean,
  place: Place
): string | undefined => {
  const index = place.directories.lastIndexOf(directory)
  if (index < 0 || (!recursive && index !== place.directories.length - 1)) return undefined
  return [...place.names.slice(index), place.name].reduce(join, root)
}

/** What a watcher sees of a change; a move across its border is an appearance or a removal. */
const eventOf = (change: Change, pathAt: (place: Place) => string | undefined): WatchEvent | undefined => {
  const path = pathAt(change.place)
  switch (change.kind) {
    case "created":
      return path === undefined ? undefined : { _tag: "Created", path }
    case "modified":
      return path === undefined ? undefined : { _tag: "Modified", path }
    case "removed":
      return path === undefined ? undefined : { _tag: "Removed", path }
    case "renamed": {
      const to = pathAt(change.to)
      if (path !== undefined && to !== undefined) return { _tag: "Renamed", from: path, to }
      if (path !== undefined) return { _tag: "Removed", path }
      return to === undefined ? undefined : { _tag: "Created", path: to }
    }
  }
}

/** Repeated writes to one file are told once, as inotify(7) does. */
const repeats = (before: WatchEvent | undefined, event: WatchEvent): boolean =>
  before?._tag === "Modified" && event._tag === "Modified" && before.path === event.path
