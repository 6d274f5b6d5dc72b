/**
 * How the command line of the same user finds the service that runs on this
 * computer: a file of theirs alone, with where it is and its token.
 *
 * A service that was killed leaves its file. Whoever took over its port must
 * not be given the token, so the file also names the process, by number and
 * time of birth, and counts for nothing when that does not live.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs"
import { Effect, FileSystem, Path, type PlatformError, Redacted, Result, Schema, type Scope } from "effect"
import { BackendFailed } from "../domain/Errors.ts"
import { makeDirectories } from "../services/makeDirectories.ts"

/** Where a service is, and the token that opens it. */
export interface Found {
  readonly url: string
  readonly token: Redacted.Redacted<string>
}

const Content = Schema.fromJsonString(
  Schema.Struct({
    version: Schema.Literal(1),
    url: Schema.String,
    token: Schema.String,
    pid: Schema.Int.check(Schema.isGreaterThan(0)),
    /** When the process was born, in whatever its system counts; empty where that is not known. */
    born: Schema.String
  })
)
const encode = Schema.encodeEffect(Content)
const decode = Schema.decodeUnknownResult(Content)
const encoder = new TextEncoder()

/** The file in a base directory. */
const fileIn = (path: Path.Path, baseDir: string) => path.join(baseDir, "service.json")

/** When a living process was born: the 22nd field of proc(5)'s stat, counted behind the name, which may hold anything. */
const bornAt = (pid: number): string | undefined => {
  try {
    process.kill(pid, 0)
  } catch {
    return undefined
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""
  } catch {
    return ""
  }
}

/** The text of a file that is ours, that nobody else may read or write, and that is no link. */
const readOwn = (file: string): string | undefined => {
  let descriptor: number | undefined
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const { mode, size, uid } = fstatSync(descriptor)
    const isFile = (mode & constants.S_IFMT) === constants.S_IFREG
    const isOurs = uid === process.geteuid?.() && (mode & 0o077) === 0
    return isFile && isOurs && size < 65_536 ? readFileSync(descriptor, "utf8") : undefined
  } catch {
    return undefined
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}

const read = (file: string) => {
  const text = readOwn(file)
  if (text === undefined) return undefined
  const content = decode(text)
  return Result.isSuccess(content) ? content.success : undefined
}

/** The service of this user that runs on this computer with this base directory; undefined when none does. */
export const find = Effect.fnUntraced(function* (
  baseDir: string
): Effect.fn.Return<Found | undefined, never, Path.Path> {
  const content = read(fileIn(yield* Path.Path, baseDir))
  if (content === undefined || bornAt(content.pid) !== content.born) return undefined
  return { url: content.url, token: Redacted.make(content.token, { label: "token" }) }
})

/** What announcements are written to before they are renamed: `service.json.<pid>`. */
const temporaryPattern = /^service\.json\.(\d{1,10})$/

/** Removes what services left that were killed while they announced themselves: it holds their token. */
const clear = Effect.fnUntraced(function* (baseDir: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  for (const name of yield* fs.readDirectory(baseDir)) {
    const pid = Number(temporaryPattern.exec(name)?.[1] ?? 0)
    if (pid === 0) continue
    const file = path.join(baseDir, name)
    const born = bornAt(pid)
    // Half written by one that lives, or its own.
    if (born !== undefined && born === (read(file)?.born ?? born)) continue
    yield* fs.remove(file, { force: true })
  }
})

const failed = (error: PlatformError.PlatformError) =>
  new BackendFailed({
    backend: "service",
    operation: "announce itself",
    reason: error.message,
    outcome: "not-started"
  })

/** Announces a service until the scope closes. The last one that does so is found. */
export const announce = Effect.fnUntraced(function* (
  baseDir: string,
  { url, token }: Found
): Effect.fn.Return<void, BackendFailed, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = fileIn(path, baseDir)
  const { pid } = process
  const content = yield* Effect.orDie(
    encode({ version: 1, url, token: Redacted.value(token), pid, born: bornAt(pid) ?? "" })
  )
  const write = Effect.gen(function* () {
    const temporary = `${file}.${pid}`
    yield* makeDirectories(fs, baseDir)
    yield* clear(baseDir)
    yield* fs.remove(temporary, { force: true })
    yield* Effect.scoped(
      Effect.flatMap(fs.open(temporary, { flag: "wx", mode: 0o600 }), (handle) =>
        handle.writeAll(encoder.encode(content))
      )
    )
    yield* fs.rename(temporary, file)
  })
  const withdraw = Effect.suspend(() => {
    const present = read(file)
    // Another service may have announced itself since.
    return present?.pid === pid && present.url === url ? Effect.ignore(fs.remove(file)) : Effect.void
  })
  yield* Effect.acquireRelease(Effect.mapError(write, failed), () => withdraw)
})
