/**
 * Copies a file or a tree from one place to another.
 *
 * What is new appears at once and whole, a directory too: it is made under
 * another name and renamed at the end, so that an interruption leaves nothing of
 * it. Into a directory that exists, files go one by one, each of them whole.
 */
import { posix } from "node:path"
import { Effect, Exit, Random, Stream } from "effect"
import { refuse } from "../Failure.ts"
import type { Entry, Place, PlaceError } from "./Place.ts"

/** What is told while a copy goes on. */
export interface Listener {
  /** How much there is to copy; once, before the first byte. */
  readonly total: (bytes: number) => void
  readonly copied: (bytes: number) => void
}

/** What was copied. */
export interface Summary {
  readonly files: number
  readonly bytes: number
  /** Paths below the source that are neither file, directory nor link, and were left out. */
  readonly skipped: ReadonlyArray<string>
  /** Paths below the source that are no UTF-8, or links to such, and were refused: their bytes, escaped. */
  readonly unnamed: ReadonlyArray<string>
}

/** A path at a place. */
export interface At {
  readonly place: Place
  readonly path: string
}

interface Item extends Entry {
  /** Below the directory that is copied. */
  readonly path: string
}

/** Everything below a directory, parents first; what cannot be named is added to `unnamed`. */
const walk = (
  place: Place,
  root: string,
  unnamed: Array<string>,
  below = ""
): Effect.Effect<ReadonlyArray<Item>, PlaceError> =>
  Effect.gen(function* () {
    const { entries, unnamed: refused } = yield* place.list(posix.join(root, below))
    for (const name of refused) unnamed.push(posix.join(below, name))
    const items = yield* Effect.forEach(
      entries,
      ({ name, ...entry }) => {
        const item: Item = { ...entry, path: posix.join(below, name) }
        return item.type === "directory"
          ? Effect.map(walk(place, root, unnamed, item.path), (inner) => [item, ...inner])
          : Effect.succeed([item])
      },
      { concurrency: 4 }
    )
    return items.flat()
  })

const counted = (listener: Listener) => (content: Stream.Stream<Uint8Array, PlaceError>) =>
  Stream.tap(content, (bytes) => Effect.sync(() => listener.copied(bytes.byteLength)))

/** Copies a file, or what comes from elsewhere, to a path. */
export const copyFile = (
  content: Stream.Stream<Uint8Array, PlaceError>,
  like: Pick<Entry, "mode" | "modified"> | undefined,
  to: At,
  listener: Listener
) => to.place.write(to.path, counted(listener)(content), like)

/** Files without the further names of those before them, and these with the first name of theirs. */
const byFile = (items: ReadonlyArray<Item>) => {
  const firsts = new Map<string, Item>()
  const files: Array<Item> = []
  const further: Array<{ readonly item: Item; readonly first: Item }> = []
  for (const item of items) {
    if (item.type !== "file") continue
    const first = item.file === undefined ? undefined : firsts.get(item.file)
    if (first !== undefined) further.push({ item, first })
    else files.push(item)
    if (item.file !== undefined && first === undefined) firsts.set(item.file, item)
  }
  return { files, further }
}

/** Whether a directory gets its mode when it is made: it can be written to then, and has no bits that making it leaves out. */
const isMadeSo = (mode: number): boolean => (mode & 0o7700) === 0o700

const copyInto = Effect.fnUntraced(function* (
  from: At,
  root: Entry,
  to: At,
  items: ReadonlyArray<Item>,
  listener: Listener,
  isNew: boolean
) {
  const source = (item: Item) => posix.join(from.path, item.path)
  const target = (item: Item) => posix.join(to.path, item.path)
  const directories = items.filter(({ type }) => type === "directory")
  yield* to.place.makeDir(to.path, root.mode | 0o700)
  for (const item of directories) yield* to.place.makeDir(target(item), item.mode | 0o700)
  const { files, further } = byFile(items)
  yield* Effect.forEach(
    files,
    (item) => copyFile(from.place.read(source(item)), item, { ...to, path: target(item) }, listener),
    { concurrency: 4, discard: true }
  )
  for (const { item, first } of further) yield* to.place.hardLink(target(first), target(item))
  // Links come last, so that nothing is ever written through one of them.
  for (const item of items) {
    if (item.target === undefined) continue
    yield* to.place.link(target(item), item.target)
    yield* to.place.setModified(target(item), item.modified)
  }
  for (const item of directories.reverse()) {
    if (!isMadeSo(item.mode)) yield* to.place.chmod(target(item), item.mode)
    // Among directories that were there, somebody else's may be.
    const dated = to.place.setModified(target(item), item.modified)
    yield* isNew ? dated : Effect.ignore(dated)
  }
})

/** Copies a directory, entries included, to a path where there is none, or into the directory that is there. */
export const copyDirectory = Effect.fnUntraced(function* (
  from: At,
  root: Entry,
  to: At,
  listener: Listener
): Effect.fn.Return<Summary, PlaceError> {
  const unnamed: Array<string> = []
  const items = yield* walk(from.place, from.path, unnamed)
  for (const { type, target, path } of items) {
    if (type === "symlink" && target === undefined) unnamed.push(path)
  }
  const files = items.filter(({ type }) => type === "file")
  const bytes = files.reduce((sum, { size }) => sum + size, 0)
  listener.total(bytes)
  const summary = {
    files: files.length,
    bytes,
    skipped: items.filter(({ type }) => type === "special").map(({ path }) => path),
    unnamed: unnamed.sort()
  }
  const present = yield* to.place.find(to.path)
  if (present !== undefined && present.type !== "directory") {
    return yield* refuse(`${to.path} exists and is not a directory`, "name another target, or remove it")
  }
  if (present !== undefined)
    return yield* Effect.as(copyInto(from, root, to, items, listener, false), summary)

  const id = yield* Random.nextIntBetween(0, 2 ** 48)
  const staging = posix.join(posix.dirname(to.path), `.fiberbox-${id.toString(36)}.part`)
  yield* copyInto(from, root, { ...to, path: staging }, items, listener, true).pipe(
    Effect.andThen(to.place.rename(staging, to.path)),
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Effect.ignore(to.place.remove(staging))))
  )
  if (!isMadeSo(root.mode)) yield* to.place.chmod(to.path, root.mode)
  yield* to.place.setModified(to.path, root.modified)
  return summary
})
