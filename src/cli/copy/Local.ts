/**
 * The files of this machine as one end of a copy.
 */
import { Effect, Exit, FileSystem, Path, type PlatformError, Random, Stream } from "effect"
import { localFile } from "../Failure.ts"
import { reasonOf } from "../Stdio.ts"
import type { Entry, Place } from "./Place.ts"

const reasons: Readonly<Record<string, string>> = {
  NotFound: "no such file or directory",
  AlreadyExists: "exists already",
  PermissionDenied: "permission denied",
  BadResource: "not a file or directory that this can be done with"
}

const explain = (path: string) => (error: PlatformError.PlatformError) =>
  localFile(`${path}: ${reasons[error.reason._tag] ?? reasonOf(error.reason.cause ?? error.reason)}`)

const typeOf = (type: FileSystem.File.Type): Entry["type"] => {
  switch (type) {
    case "File":
      return "file"
    case "Directory":
      return "directory"
    case "SymbolicLink":
      return "symlink"
    default:
      return "special"
  }
}

const entryOf = (info: FileSystem.File.Info): Entry => ({
  type: typeOf(info.type),
  size: Number(info.size),
  mode: info.mode & 0o777
})

/** Bytes read at once: what one call to a sandbox carries. */
const chunkSize = 128 * 1024

/** The files of this machine. */
export const local = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const absent = (error: PlatformError.PlatformError) => error.reason._tag === "NotFound"

  /** What is at a path itself. */
  const look = (at: string) =>
    fs.readLink(at).pipe(
      Effect.map((target): Entry => ({ type: "symlink", size: 0, mode: 0o777, target })),
      Effect.catch(() => Effect.map(fs.stat(at), entryOf)),
      Effect.map((entry): Entry | undefined => entry),
      Effect.catchIf(absent, () => Effect.succeed(undefined)),
      Effect.mapError(explain(at))
    )

  const find: Place["find"] = (at) =>
    fs.stat(at).pipe(
      Effect.map((info): Entry | undefined => entryOf(info)),
      Effect.catchIf(absent, () => Effect.succeed(undefined)),
      Effect.mapError(explain(at))
    )

  const writeInto = (
    file: string,
    shown: string,
    flag: "w" | "wx",
    content: Parameters<Place["write"]>[1],
    mode?: number
  ) =>
    Effect.gen(function* () {
      const handle = yield* Effect.mapError(
        fs.open(file, mode === undefined ? { flag } : { flag, mode }),
        explain(shown)
      )
      yield* Stream.runForEach(content, (bytes) => Effect.mapError(handle.writeAll(bytes), explain(shown)))
    }).pipe(Effect.scoped)

  const writeBeside = Effect.fnUntraced(function* (
    at: string,
    content: Parameters<Place["write"]>[1],
    mode: number | undefined
  ) {
    const id = yield* Random.nextIntBetween(0, 2 ** 48)
    const temporary = path.join(path.dirname(at), `.fiberbox-${id.toString(36)}.part`)
    yield* Effect.addFinalizer((exit) =>
      Exit.isSuccess(exit) ? Effect.void : Effect.ignore(fs.remove(temporary, { force: true }))
    )
    yield* writeInto(temporary, at, "wx", content, mode)
    yield* Effect.mapError(fs.rename(temporary, at), explain(at))
  }, Effect.scoped)

  const write: Place["write"] = Effect.fnUntraced(function* (at, content, mode) {
    const present = yield* find(at)
    // A device or pipe is written to; a file in its place would be a surprise.
    if (present?.type === "special") return yield* writeInto(at, at, "w", content)
    if (present?.type === "directory") return yield* localFile(`${at}: is a directory`)
    const real = yield* Effect.orElseSucceed(fs.realPath(at), () => at)
    return yield* writeBeside(real, content, mode ?? present?.mode)
  })

  const place: Place = {
    find,
    list: Effect.fnUntraced(function* (at) {
      const names = yield* Effect.mapError(fs.readDirectory(at), explain(at))
      const entries = yield* Effect.forEach(names.sort(), (name) =>
        Effect.map(look(path.join(at, name)), (entry) => ({ name, entry }))
      )
      // What is gone by now was not there.
      return entries.flatMap(({ name, entry }) => (entry === undefined ? [] : [{ ...entry, name }]))
    }),
    read: (at) => Stream.mapError(fs.stream(at, { chunkSize }), explain(at)),
    write,
    makeDir: Effect.fnUntraced(function* (at, mode) {
      const present = yield* look(at)
      // Never through a link: what is copied must not choose where it goes.
      if (present !== undefined && present.type !== "directory") {
        return yield* localFile(`${at}: exists and is not a directory`)
      }
      if (present === undefined) yield* Effect.mapError(fs.makeDirectory(at, { mode }), explain(at))
    }),
    chmod: (at, mode) => Effect.mapError(fs.chmod(at, mode), explain(at)),
    link: Effect.fnUntraced(function* (at, target) {
      const present = yield* look(at)
      if (present?.type === "directory") return yield* localFile(`${at}: is a directory`)
      if (present !== undefined) yield* Effect.mapError(fs.remove(at), explain(at))
      yield* Effect.mapError(fs.symlink(target, at), explain(at))
    }),
    rename: (from, to) => Effect.mapError(fs.rename(from, to), explain(to)),
    remove: (at) => Effect.mapError(fs.remove(at, { recursive: true, force: true }), explain(at))
  }
  return place
})
