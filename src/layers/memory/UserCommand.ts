/**
 * Commands a test defines: effects that run as programs of an in-memory machine.
 */
import { Effect, Result, type Scope, Stream } from "effect"
import { Conflict, type FileFailed } from "../../domain/Errors.ts"
import type { FileInfo } from "../../domain/FileSystem.ts"
import type { Signal } from "../../domain/Process.ts"
import { list, makeDirs, readAll, remove, stat, writeWhole } from "./Files.ts"
import { encode, type FsResult } from "./Inode.ts"
import type { Connection } from "./Network.ts"
import type { Process, Program } from "./Process.ts"
import { toFileFailed } from "./Uploads.ts"
import { Wakeup, waitFor } from "./Wakeup.ts"

/** Files as the command's user may use them. Paths may be relative to the working directory. */
export interface CommandFiles {
  readonly read: (path: string) => Effect.Effect<Uint8Array, FileFailed>
  /** Replaces a file whole, making its parents. */
  readonly write: (path: string, data: string | Uint8Array) => Effect.Effect<void, FileFailed>
  readonly stat: (path: string) => Effect.Effect<FileInfo, FileFailed>
  /** A directory's own entries, sorted by path. */
  readonly list: (path: string) => Effect.Effect<ReadonlyArray<FileInfo>, FileFailed>
  /** With its parents. */
  readonly makeDir: (path: string) => Effect.Effect<void, FileFailed>
  /** A file or a whole tree. */
  readonly remove: (path: string) => Effect.Effect<void, FileFailed>
}

/** What a command sees of its machine. Everything in it stands still while the machine is paused. */
export interface CommandContext {
  /** The name it was called by, and its arguments. */
  readonly argv: ReadonlyArray<string>
  readonly env: { readonly [name: string]: string }
  readonly cwd: string
  readonly user: "user" | "root"
  readonly pid: number
  /** Ends when whoever writes to it has ended it. */
  readonly stdin: Stream.Stream<Uint8Array>
  /** Writes, waiting while nobody takes the output. */
  readonly stdout: (data: string | Uint8Array) => Effect.Effect<void>
  readonly stderr: (data: string | Uint8Array) => Effect.Effect<void>
  readonly files: CommandFiles
  /** Serves connections to a port, each with its own run of the handler, for as long as the command lives. `Conflict` when the port is taken. */
  readonly listen: (
    port: number,
    handler: (connection: Connection) => Effect.Effect<void, never, Scope.Scope>
  ) => Effect.Effect<never, Conflict>
  /** Does something instead of ending when a signal comes; `SIGKILL` and `SIGSTOP` cannot be handled. */
  readonly onSignal: (signal: Signal, handler: Effect.Effect<void>) => Effect.Effect<void>
  /** Takes memory for as long as it runs; ends by `SIGKILL` when the machine has no more. */
  readonly allocate: (bytes: number) => Effect.Effect<void>
}

/**
 * A command: ends with an exit code. An error or a defect is printed to
 * standard error and is exit code 1. Its clock is the machine's, so that it does not go on while the machine is paused.
 */
export type MemoryCommand = (context: CommandContext) => Effect.Effect<number, unknown, Scope.Scope>

/** Turns a command into a program. */
export const toProgram =
  (command: MemoryCommand): Program =>
  (process, argv) =>
    Effect.scoped(Effect.suspend(() => command(contextOf(process, argv)))).pipe(
      Effect.provideContext(process.context),
      Effect.orDie
    )

const contextOf = (process: Process, argv: ReadonlyArray<string>): CommandContext => ({
  argv,
  env: Object.fromEntries(process.env),
  cwd: process.cwd,
  user: process.uid === 0 ? "root" : "user",
  pid: process.pid,
  stdin: Stream.takeWhile(Stream.fromEffectRepeat(process.read(0)), (data) => data.length > 0),
  stdout: (data) => Effect.asVoid(process.write(1, bytesOf(data))),
  stderr: (data) => Effect.asVoid(process.write(2, bytesOf(data))),
  files: filesOf(process),
  listen: (port, handler) => listen(process, port, handler),
  onSignal: (signal, handler) =>
    Effect.sync(() => {
      process.dispositions.set(signal, () => {
        if (process.status === undefined) process.kernel.fork(handler)
      })
    }),
  allocate: (bytes) => process.allocate(bytes)
})

/** A copy, so that the command may use its buffer again. */
const bytesOf = (data: string | Uint8Array): Uint8Array =>
  typeof data === "string" ? encode(data) : data.slice()

const filesOf = (process: Process): CommandFiles => {
  const { tree } = process.kernel
  const { uid } = process
  const act = <A>(action: () => FsResult<A>): Effect.Effect<A, FileFailed> =>
    Effect.andThen(
      process.gate,
      Effect.suspend(() => {
        const result = action()
        return Result.isSuccess(result)
          ? Effect.succeed(result.success)
          : Effect.fail(toFileFailed(result.failure))
      })
    )
  return {
    read: (path) => act(() => readAll(tree, process.absolute(path), uid)),
    write: (path, data) => act(() => writeWhole(tree, process.absolute(path), bytesOf(data), undefined, uid)),
    stat: (path) => act(() => stat(tree, process.absolute(path), uid)),
    list: (path) =>
      act(() =>
        Result.map(
          list(tree, process.absolute(path), 1, Number.POSITIVE_INFINITY, uid),
          ({ entries }) => entries
        )
      ),
    makeDir: (path) => act(() => makeDirs(tree, process.absolute(path), 0o755, uid)),
    remove: (path) => act(() => remove(tree, process.absolute(path), true, uid))
  }
}

const listen = Effect.fnUntraced(function* (
  process: Process,
  port: number,
  handler: (connection: Connection) => Effect.Effect<void, never, Scope.Scope>
) {
  const { kernel } = process
  if (kernel.listeners.has(port)) {
    return yield* new Conflict({
      kind: "process",
      id: String(port),
      reason: "somebody listens on this port already"
    })
  }
  const waiting: Array<Connection> = []
  const wakeup = new Wakeup(kernel.schedule)
  kernel.listeners.set(port, {
    owner: process,
    accept: (connection) => {
      waiting.push(connection)
      wakeup.notify()
    }
  })
  for (;;) {
    const connection = yield* waitFor(wakeup, () => waiting.shift())
    yield* process.gate
    yield* Effect.forkChild(Effect.ensuring(Effect.scoped(handler(connection)), connection.end))
  }
})
