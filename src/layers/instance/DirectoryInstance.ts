/**
 * Instances that live in a directory: a persistent one where its owner says,
 * an ephemeral one below the base directory.
 *
 * In a state directory: `lock` (held while the instance lives), `instance.json`
 * (the id, written once), and whatever the instance keeps.
 */
import { homedir } from "node:os"
import {
  Config,
  Context,
  Effect,
  FileSystem,
  Layer,
  Option,
  Path,
  type PlatformError,
  Predicate,
  Schema,
  type Scope
} from "effect"
import type { SecureRandom } from "effect/crypto"
import type { SqlError } from "effect/sql"
import { BackendFailed, Conflict, InvalidArgument, ResourceExhausted } from "../../domain/Errors.ts"
import { type DeadInstance, Instance, InstanceId, makeInstanceId } from "../../services/Instance.ts"
import { makeDirectories } from "../../services/makeDirectories.ts"
import { isDiskFull } from "../sql/SqliteErrors.ts"
import * as Lock from "./lock.ts"

/** Where an instance lives. */
export interface InstanceOptions {
  /** State directory of a persistent instance, made when missing; without one the instance is ephemeral. */
  readonly stateDir?: string | undefined
  /** What the instances of this computer and user share; default {@link defaultBaseDir}. */
  readonly baseDir?: string | undefined
}

/**
 * Why there is no instance: `Conflict` when its directory is in use,
 * `InvalidArgument` when it cannot be written, otherwise the disk fails.
 */
export type InstanceError = Conflict | InvalidArgument | ResourceExhausted | BackendFailed

/**
 * The environment's `FIBERBOX_BASE_DIR`; else `/var/lib/fiberbox` for root, and
 * for others `fiberbox` in the XDG state directory (`~/.local/state`).
 */
export const defaultBaseDir: Effect.Effect<string, never, Path.Path> = Effect.gen(function* () {
  const path = yield* Path.Path
  const setting = (name: string) =>
    Effect.orElseSucceed(Config.option(Config.NonEmptyString(name)), Option.none)
  const chosen = yield* setting("FIBERBOX_BASE_DIR")
  if (Option.isSome(chosen)) return chosen.value
  if (process.getuid?.() === 0) return "/var/lib/fiberbox"
  const state = yield* setting("XDG_STATE_HOME")
  return path.join(
    Option.getOrElse(state, () => path.join(homedir(), ".local/state")),
    "fiberbox"
  )
})

/** Makes the instance for as long as the scope lives; at its end an ephemeral one removes its directory. */
export const make = Effect.fnUntraced(function* (
  options: InstanceOptions
): Effect.fn.Return<Instance["Service"], InstanceError, Requirements | Scope.Scope> {
  const path = yield* Path.Path
  const baseDir = path.resolve(options.baseDir ?? (yield* defaultBaseDir))
  const { id, stateDir } = yield* options.stateDir === undefined
    ? ephemeral(baseDir)
    : persistent(path.resolve(options.stateDir))
  // Only these two: the context holds the scope of this instance as well, and dead ones belong to their caller's.
  const context = Context.pick(
    FileSystem.FileSystem,
    Path.Path
  )(yield* Effect.context<FileSystem.FileSystem | Path.Path>())
  return {
    id,
    stateDir,
    baseDir,
    ephemeral: options.stateDir === undefined,
    deadInstances: Effect.provideContext(deadInstances(path.join(baseDir, "ephemeral")), context)
  }
})

type Requirements = FileSystem.FileSystem | Path.Path | SecureRandom.SecureRandom

/** The `Instance` this program is, for as long as the layer lives. See {@link make}. */
export const layer = (options: InstanceOptions = {}): Layer.Layer<Instance, InstanceError, Requirements> =>
  Layer.effect(Instance, make(options))

const persistent = Effect.fnUntraced(function* (stateDir: string) {
  yield* lockDirectory(stateDir)
  return { id: yield* readOrWriteId(stateDir), stateDir }
})

const ephemeral = Effect.fnUntraced(
  function* (baseDir: string) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const id = yield* makeInstanceId
    const stateDir = path.join(baseDir, "ephemeral", id)
    yield* lockDirectory(stateDir)
    // Between the making of the directory and the lock somebody may have found it without an owner and removed it.
    if (!(yield* fs.exists(path.join(stateDir, lockName)).pipe(Effect.mapError(failed(stateDir))))) {
      return yield* new Conflict({ kind: "instance", id: stateDir, reason: "was cleared away" })
    }
    yield* Effect.addFinalizer(() => Effect.ignore(removeWhenEmpty(stateDir)))
    return { id, stateDir }
  },
  // Until the finalizer stands, an interruption would leave the directory.
  Effect.uninterruptible,
  Effect.retry({ times: 5, while: (error) => error._tag === "Conflict" })
)

/** What could not be ended keeps its place, so that the next start finds it. */
const removeWhenEmpty = Effect.fnUntraced(function* (stateDir: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const left = yield* Effect.orElseSucceed(fs.readDirectory(path.join(stateDir, sandboxesName)), () => [])
  if (left.length === 0) yield* fs.remove(stateDir, { recursive: true })
})

/** Name of the directory in a state directory that holds one entry for each sandbox. */
export const sandboxesName = "s"
const lockName = "lock"

const lockDirectory = Effect.fnUntraced(function* (stateDir: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  // Environments of sandboxes stand in there: nobody else has business with it.
  yield* makeDirectories(fs, stateDir).pipe(Effect.mapError(failed(stateDir)))
  yield* Lock.acquire(path.join(stateDir, lockName)).pipe(Effect.mapError(lockFailed(stateDir)))
})

const IdFile = Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(1), id: InstanceId }))

const readOrWriteId = Effect.fnUntraced(function* (stateDir: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(stateDir, "instance.json")
  const text = yield* fs.readFileString(file).pipe(
    Effect.catchIf(
      (error) => error.reason._tag === "NotFound",
      () => Effect.succeed(undefined)
    ),
    Effect.mapError(failed(stateDir))
  )
  if (text !== undefined) {
    const { id } = yield* Schema.decodeEffect(IdFile)(text).pipe(
      // Under a new id nobody would ever find what runs under the old one.
      Effect.mapError((error) => broken("read", `${file} holds no instance id: ${error.message}`))
    )
    return id
  }
  const id = yield* makeInstanceId
  const content = yield* Effect.orDie(Schema.encodeEffect(IdFile)({ version: 1, id }))
  yield* writeDurably(file, content).pipe(Effect.mapError(failed(stateDir)))
  return id
})

/** Written beside, brought to the disk, renamed: there is the whole file or none, also after a power cut. */
const writeDurably = Effect.fnUntraced(function* (file: string, content: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const temporary = `${file}.new`
  yield* Effect.scoped(
    Effect.gen(function* () {
      const handle = yield* fs.open(temporary, { flag: "w", mode: 0o600 })
      yield* handle.writeAll(new TextEncoder().encode(content))
      yield* handle.sync
    })
  )
  yield* fs.rename(temporary, file)
  // A name is on the disk when its directory is.
  const toDisk = (directory: string) =>
    Effect.scoped(Effect.flatMap(fs.open(directory), (handle) => handle.sync))
  const directory = path.dirname(file)
  yield* toDisk(directory)
  // The one above may be another's, and need not be readable for us.
  yield* Effect.ignore(toDisk(path.dirname(directory)))
})

const deadInstances = Effect.fnUntraced(function* (
  directory: string
): Effect.fn.Return<
  ReadonlyArray<DeadInstance>,
  BackendFailed,
  FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = yield* fs.readDirectory(directory).pipe(
    Effect.catchIf(
      (error) => error.reason._tag === "NotFound",
      () => Effect.succeed<Array<string>>([])
    ),
    Effect.mapError((error) => broken("look for dead instances", error.message))
  )
  const found = yield* Effect.forEach(names.filter(Schema.is(InstanceId)), (id) => {
    const stateDir = path.join(directory, id)
    const dead: DeadInstance = {
      id,
      stateDir,
      remove: fs
        .remove(stateDir, { recursive: true, force: true })
        .pipe(Effect.mapError((error) => broken("clear away a dead instance", error.message)))
    }
    // Whatever keeps the lock from us, the directory is not ours to clear away now.
    return Effect.option(Effect.as(Lock.acquire(path.join(stateDir, lockName)), dead))
  })
  return found.flatMap(Option.toArray)
})

const broken = (operation: string, reason: string) =>
  new BackendFailed({ backend: "instance", operation, reason, outcome: "not-started" })

const errnoOf = (error: PlatformError.PlatformError): string | undefined => {
  const { cause } = error.reason
  return Predicate.hasProperty(cause, "code") && Predicate.isString(cause.code) ? cause.code : undefined
}

const failed =
  (stateDir: string) =>
  (error: PlatformError.PlatformError): InvalidArgument | ResourceExhausted | BackendFailed => {
    switch (errnoOf(error)) {
      case "EACCES":
      case "EPERM":
      case "EROFS":
        return unwritable(stateDir, "permission denied")
      case "EEXIST":
      case "ENOTDIR":
      case "ENAMETOOLONG":
      case "ELOOP":
        return unwritable(stateDir, "not a directory")
      case "ENOENT":
        return unwritable(stateDir, "no directory can be made there")
      case "ENOSPC":
      case "EDQUOT":
        return new ResourceExhausted({ resource: "disk", reason: `no space for ${stateDir}` })
      default:
        return broken("open", error.message)
    }
  }

const lockFailed =
  (stateDir: string) =>
  (error: SqlError.SqlError): InstanceError => {
    if (isDiskFull(error))
      return new ResourceExhausted({ resource: "disk", reason: `no space for ${stateDir}` })
    switch (error.reason._tag) {
      case "LockTimeoutError":
        return new Conflict({
          kind: "instance",
          id: stateDir,
          reason: "the state directory is in use by a running instance"
        })
      case "ConnectionError":
      case "AuthorizationError":
        return unwritable(stateDir, "permission denied")
      default:
        return broken("lock", error.message)
    }
  }

const unwritable = (stateDir: string, why: string) =>
  new InvalidArgument({ field: "stateDir", reason: `${stateDir} cannot be used: ${why}` })
