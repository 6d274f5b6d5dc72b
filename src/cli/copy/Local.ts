/**
 * The files of this machine as one end of a copy.
 *
 * Over Node's own file system: names are bytes there, times have nanoseconds,
 * and files holes.
 */

import { isUtf8 } from "node:buffer"
import { type BigIntStats, constants } from "node:fs"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { Effect, Exit, Predicate, Random, Stream } from "effect"
import { escaped } from "../../services/Bytes.ts"
import { localFile, type Refused } from "../Failure.ts"
import { reasonOf } from "../Stdio.ts"
import type { Entry, Listing, Modified, NamedEntry, Place } from "./Place.ts"

/** Does something with a file; what goes wrong is told of `path`. */
const attempt = <A>(path: string, action: () => Promise<A>): Effect.Effect<A, Refused> =>
  Effect.tryPromise({ try: action, catch: (error) => localFile(`${path}: ${reasonOf(error)}`) })

const isAbsent = (error: unknown): boolean =>
  Predicate.hasProperty(error, "code") && (error.code === "ENOENT" || error.code === "ENOTDIR")

/** What an action gives, or nothing where there is nothing. */
const ifPresent = <A>(path: string, action: () => Promise<A>): Effect.Effect<A | undefined, Refused> =>
  attempt(path, () =>
    action().catch((error: unknown) => {
      if (isAbsent(error)) return undefined
      throw error
    })
  )

const typeOf = (info: BigIntStats): Entry["type"] => {
  if (info.isFile()) return "file"
  if (info.isDirectory()) return "directory"
  return info.isSymbolicLink() ? "symlink" : "special"
}

const nanosOf = (info: BigIntStats): Modified => {
  const nanos = ((info.mtimeNs % 1_000_000n) + 1_000_000n) % 1_000_000n
  return { millis: Number((info.mtimeNs - nanos) / 1_000_000n), nanos: Number(nanos) }
}

const entryOf = (info: BigIntStats): Entry => ({
  type: typeOf(info),
  size: Number(info.size),
  mode: Number(info.mode) & 0o7777,
  modified: nanosOf(info),
  file: info.nlink > 1n && info.isFile() ? `${info.dev}:${info.ino}` : undefined
})

/** What is at a path itself. */
const look = (at: string) =>
  ifPresent(at, async (): Promise<Entry> => {
    const entry = entryOf(await fs.lstat(at, { bigint: true }))
    if (entry.type !== "symlink") return entry
    const target = await fs.readlink(at, { encoding: "buffer" })
    return { ...entry, target: isUtf8(target) ? target.toString() : undefined }
  })

const find: Place["find"] = (at) =>
  ifPresent(at, async (): Promise<Entry> => entryOf(await fs.stat(at, { bigint: true })))

/** What comes out of a sandbox gives nobody its owner's rights. */
const harmless = (mode: number): number => mode & 0o1777

/** Bytes read at once: what one call to a sandbox carries. */
const chunkSize = 128 * 1024

const read: Place["read"] = (at) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const file = yield* Effect.acquireRelease(
        attempt(at, () => fs.open(at, constants.O_RDONLY)),
        (file) => Effect.promise(() => file.close())
      )
      const next = attempt(at, async () => {
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(chunkSize), 0, chunkSize, null)
        return buffer.subarray(0, bytesRead)
      })
      return Stream.fromEffectRepeat(next).pipe(Stream.takeWhile((bytes) => bytes.byteLength > 0))
    })
  ).pipe(Stream.scoped)

const blockSize = 4096
const zeros = Buffer.alloc(blockSize)

/** Where the blocks of nothing but zeros at the beginning of some bytes end, or with `not` those that are something. */
const blocksUntil = (bytes: Uint8Array, from: number, areZero: boolean): number => {
  let at = from
  while (at < bytes.byteLength) {
    const block = bytes.subarray(at, at + blockSize)
    if ((zeros.compare(block, 0, block.byteLength, 0, block.byteLength) === 0) !== areZero) break
    at += block.byteLength
  }
  return at
}

/** Writes bytes at a position, and leaves holes where there are only zeros. */
const writeSparse = async (file: fs.FileHandle, bytes: Uint8Array, position: number): Promise<void> => {
  let at = blocksUntil(bytes, 0, true)
  while (at < bytes.byteLength) {
    const end = blocksUntil(bytes, at, false)
    for (let from = at; from < end; ) {
      from += (await file.write(bytes, from, end - from, position + from)).bytesWritten
    }
    at = blocksUntil(bytes, end, true)
  }
}

type Content = Parameters<Place["write"]>[1]

/** Writes to what is no file: a pipe, a device. */
const writeThrough = Effect.fnUntraced(function* (at: string, content: Content) {
  const file = yield* Effect.acquireRelease(
    attempt(at, () => fs.open(at, constants.O_WRONLY)),
    (file) => Effect.promise(() => file.close())
  )
  yield* Stream.runForEach(content, (bytes) => attempt(at, () => file.writeFile(bytes)))
}, Effect.scoped)

const secondsOf = ({ millis, nanos }: Modified): number => millis / 1000 + nanos / 1_000_000_000

/** Writes a file beside the one it becomes. */
const writeBeside = Effect.fnUntraced(function* (
  at: string,
  content: Content,
  mode: number,
  modified: Modified | undefined
) {
  const id = yield* Random.nextIntBetween(0, 2 ** 48)
  const temporary = join(dirname(at), `.fiberbox-${id.toString(36)}.part`)
  yield* Effect.addFinalizer((exit) =>
    Exit.isSuccess(exit) ? Effect.void : Effect.ignore(attempt(temporary, () => fs.rm(temporary)))
  )
  const file = yield* Effect.acquireRelease(
    attempt(at, () => fs.open(temporary, "wx", 0o600)),
    (file) => Effect.promise(() => file.close())
  )
  let size = 0
  yield* Stream.runForEach(content, (bytes) =>
    attempt(at, async () => {
      await writeSparse(file, bytes, size)
      size += bytes.byteLength
    })
  )
  yield* attempt(at, async () => {
    await file.truncate(size)
    await file.chmod(mode)
    if (modified !== undefined) await file.utimes(secondsOf(modified), secondsOf(modified))
    await fs.rename(temporary, at)
  })
}, Effect.scoped)

const write: Place["write"] = Effect.fnUntraced(function* (at, content, like) {
  const present = yield* find(at)
  // A device or pipe is written to; a file in its place would be a surprise.
  if (present?.type === "special") return yield* writeThrough(at, content)
  if (present?.type === "directory") return yield* localFile(`${at}: is a directory`)
  const real = (yield* ifPresent(at, () => fs.realpath(at))) ?? at
  const mode = like === undefined ? (present?.mode ?? 0o666 & ~process.umask()) : harmless(like.mode)
  return yield* writeBeside(real, content, mode, like?.modified)
})

/** Makes room for a link. */
const clear = Effect.fnUntraced(function* (at: string) {
  const present = yield* look(at)
  if (present?.type === "directory") return yield* localFile(`${at}: is a directory`)
  if (present !== undefined) yield* attempt(at, () => fs.unlink(at))
})

const list: Place["list"] = Effect.fnUntraced(function* (at): Effect.fn.Return<Listing, Refused> {
  const names = yield* attempt(at, () => fs.readdir(at, { encoding: "buffer" }))
  const named = names.flatMap((name) => (isUtf8(name) ? [name.toString()] : [])).sort()
  const entries = yield* Effect.forEach(named, (name) =>
    // What is gone by now was not there.
    Effect.map(
      look(join(at, name)),
      (entry): ReadonlyArray<NamedEntry> => (entry ? [{ ...entry, name }] : [])
    )
  )
  return { entries: entries.flat(), unnamed: names.flatMap((name) => (isUtf8(name) ? [] : [escaped(name)])) }
})

/** The files of this machine. */
export const local: Place = {
  find,
  list,
  read,
  write,
  makeDir: Effect.fnUntraced(function* (at, mode) {
    const present = yield* look(at)
    // Never through a link: what is copied must not choose where it goes.
    if (present !== undefined && present.type !== "directory") {
      return yield* localFile(`${at}: exists and is not a directory`)
    }
    if (present !== undefined) return
    yield* attempt(at, async () => {
      await fs.mkdir(at, { mode: 0o700 })
      await fs.chmod(at, harmless(mode))
    })
  }),
  chmod: (at, mode) => attempt(at, () => fs.chmod(at, harmless(mode))),
  link: (at, target) =>
    Effect.andThen(
      clear(at),
      attempt(at, () => fs.symlink(target, at))
    ),
  hardLink: (from, to) =>
    Effect.andThen(
      clear(to),
      attempt(to, () => fs.link(from, to))
    ),
  setModified: (at, modified) => attempt(at, () => fs.lutimes(at, secondsOf(modified), secondsOf(modified))),
  rename: (from, to) => attempt(to, () => fs.rename(from, to)),
  remove: (at) => attempt(at, () => fs.rm(at, { recursive: true, force: true }))
}
