/**
 * The files of a sandbox as one end of a copy.
 */
import { posix } from "node:path"
import { Effect } from "effect"
import { FileFailed } from "../../domain/Errors.ts"
import type { FileInfo } from "../../domain/FileSystem.ts"
import type { User } from "../../domain/Sandbox.ts"
import type { FileOperationError } from "../../rpc/SandboxRpcs.ts"
import type { Sandbox } from "../../services/Sandbox.ts"
import { localFile, refuse } from "../Failure.ts"
import type { Entry, NamedEntry, Place } from "./Place.ts"

/** A user's home, where relative paths begin. */
export const homeOf = (user: User): string => (user === "root" ? "/root" : "/home/user")

const typeOf = ({ type }: FileInfo): Entry["type"] =>
  type === "file" || type === "directory" || type === "symlink" ? type : "special"

const entryOf = (info: FileInfo): Entry => ({
  type: typeOf(info),
  size: info.size,
  mode: info.mode,
  modified: { millis: info.modifiedAt, nanos: info.nanos },
  file: info.links > 1 ? info.inode : undefined,
  target: info.target
})

const isAbsent = (error: FileOperationError): boolean =>
  error._tag === "FileFailed" && (error.reason === "not-found" || error.reason === "not-directory")

/** As Linux has it. */
const maxLinks = 40
const maxEntries = 10_000

/** A sandbox is not trusted: a name with a slash, or a way up, would be a path of its choice on this machine. */
const isName = (name: string): boolean => name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name)

/** The files of a sandbox, with the rights of `user`. */
export const inside = ({ files, process }: Sandbox, user: User): Place => {
  const as = { as: user }

  const find = (path: string, links = 0): ReturnType<Place["find"]> =>
    files.stat(path, as).pipe(
      Effect.flatMap((info): ReturnType<Place["find"]> => {
        if (info.type !== "symlink" || info.target === undefined) return Effect.succeed(entryOf(info))
        return links >= maxLinks
          ? Effect.fail(new FileFailed({ reason: "symlink-loop", path, detail: "" }))
          : find(posix.resolve(posix.dirname(path), info.target), links + 1)
      }),
      Effect.catchIf(
        (error): error is FileFailed => error._tag === "FileFailed" && isAbsent(error),
        () => Effect.succeed(undefined)
      )
    )

  const list: Place["list"] = Effect.fnUntraced(function* (path) {
    const { entries, truncated, unnamed } = yield* files.list(path, { ...as, limit: maxEntries })
    if (truncated) {
      return yield* refuse(
        `${path} has more than ${maxEntries} entries`,
        "pass them as one stream: fiberbox exec SANDBOX -- tar -C DIR -c . | tar -x"
      )
    }
    const named = yield* Effect.forEach(entries, (info) => {
      const name = info.path.slice(info.path.lastIndexOf("/") + 1)
      return isName(name) && posix.join(path, name) === info.path
        ? Effect.succeed<NamedEntry>({ ...entryOf(info), name })
        : Effect.fail(localFile(`${path}: the sandbox told of an entry that cannot be one`))
    })
    return { entries: named, unnamed }
  })

  const remove = (path: string) =>
    files.remove(path, { ...as, recursive: true }).pipe(Effect.catchIf(isAbsentFile, () => Effect.void))

  const setModified: Place["setModified"] = (path, { millis, nanos }) =>
    files.setTimes(path, { modifiedAt: millis, nanos }, as)

  return {
    find,
    list,
    read: (path) => files.stream(path, as),
    write: Effect.fnUntraced(function* (path, content, like) {
      yield* files.writeStream(path, content, { ...as, mode: like?.mode })
      if (like === undefined) return
      // Writing takes the bits away that give a program its owner's rights.
      if ((like.mode & 0o6000) !== 0) yield* files.chmod(path, like.mode, as)
      yield* setModified(path, like.modified)
    }),
    makeDir: (path, mode) => files.makeDir(path, { ...as, mode }),
    chmod: (path, mode) => files.chmod(path, mode, as),
    link: (path, target) =>
      Effect.andThen(remove(path), Effect.asVoid(process.run(["ln", "-s", "--", target, path], { user }))),
    hardLink: (from, to) => Effect.andThen(remove(to), files.link(from, to, as)),
    setModified,
    rename: (from, to) => files.rename(from, to, as),
    remove
  }
}

const isAbsentFile = (error: FileOperationError): error is FileFailed =>
  error._tag === "FileFailed" && isAbsent(error)
