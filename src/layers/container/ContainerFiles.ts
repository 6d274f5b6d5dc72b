/**
 * The directory of one container: what is in it, and what that says.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { BackendFailed, ResourceExhausted } from "../../domain/Errors.ts"
import { Generation, type SandboxId } from "../../domain/Ids.ts"
import { fromPlatform, isMissing, startFailed } from "./Failures.ts"
import { ContainerSettings, containerName, filesOf, instanceGroup, layout, sandboxOf } from "./Settings.ts"

/** What is written down of a machine before it is started, for whoever finds it later. */
export const MachineRecord = Schema.Struct({
  generation: Generation,
  /** Its range of ids; see `IdRanges`. */
  range: Schema.Natural
})
export type MachineRecord = typeof MachineRecord.Type

const RecordText = Schema.fromJsonString(MachineRecord)

/** Names and places of one container. */
export interface Container {
  readonly sandboxId: SandboxId
  /** Of its directory, its runtime container and its hostname. */
  readonly name: string
  readonly directory: string
  readonly files: ReturnType<typeof filesOf>
  /** Its control group, below every hierarchy's root. */
  readonly group: string
  /** The OCI runtime's own directory of it. */
  readonly runtimeState: string
}

/** The containers of this instance, as its state directory shows them. */
export class ContainerFiles extends Context.Service<
  ContainerFiles,
  {
    readonly container: (sandboxId: SandboxId) => Container
    /** Every container that has a directory. */
    readonly all: Effect.Effect<ReadonlyArray<Container>, BackendFailed>
    /** Whether the container has a directory. */
    readonly exists: (container: Container) => Effect.Effect<boolean, BackendFailed>
    /** The record of its machine; undefined when it has none. One that cannot be read may be that of a running machine. */
    readonly record: (container: Container) => Effect.Effect<MachineRecord | "unreadable" | undefined>
    readonly writeRecord: (
      container: Container,
      record: MachineRecord
    ) => Effect.Effect<void, BackendFailed | ResourceExhausted>
    /** The agent's process, as the runtime wrote it down. */
    readonly pid: (container: Container) => Effect.Effect<number | undefined, BackendFailed>
    /** The helpers and runtimes at work on a start of any of these containers. Looks at every process. */
    readonly starting: Effect.Effect<ReadonlyArray<number>>
    /** Forgets a machine that has ended: all files but the disk. What cannot be removed is named in the log. */
    readonly forgetMachine: (container: Container) => Effect.Effect<void, BackendFailed>
    /** Removes all files, disk included. */
    readonly removeAll: (container: Container) => Effect.Effect<void, BackendFailed>
    /** Whether the loop device of its last machine still holds its disk. */
    readonly diskInUse: (container: Container) => Effect.Effect<boolean, BackendFailed>
    /** Who has its disk mounted, by number and name; empty when that cannot be found out. Looks at every process. */
    readonly diskHolders: (container: Container) => Effect.Effect<string>
  }
>()("fiberbox/layers/container/ContainerFiles") {
  static readonly layer: Layer.Layer<ContainerFiles, never, ContainerSettings | FileSystem.FileSystem> =
    Layer.effect(
      ContainerFiles,
      Effect.suspend(() => make)
    )
}

const make = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const settings = yield* ContainerSettings
  const { containers, runtimeState } = layout(settings)

  const container = (sandboxId: SandboxId): Container => {
    const name = containerName(sandboxId)
    const directory = `${containers}/${name}`
    return {
      sandboxId,
      name,
      directory,
      files: filesOf(directory),
      group: `${instanceGroup(settings.instanceId)}/${name}`,
      runtimeState: `${runtimeState}/${name}`
    }
  }

  const readIfThere = (path: string) =>
    fs.readFileString(path).pipe(
      Effect.catchIf(isMissing, () => Effect.succeed(undefined)),
      Effect.mapError(fromPlatform("read a container's files"))
    )

  const all = fs.readDirectory(containers).pipe(
    Effect.catchIf(isMissing, () => Effect.succeed<Array<string>>([])),
    Effect.map((names) =>
      names
        .map(sandboxOf)
        .filter((id) => id !== undefined)
        .map(container)
    ),
    Effect.mapError(fromPlatform("list containers"))
  )

  const record = (of: Container) =>
    readIfThere(of.files.machine).pipe(
      Effect.flatMap((text) =>
        text === undefined ? Effect.succeed(undefined) : Schema.decodeEffect(RecordText)(text)
      ),
      Effect.orElseSucceed(() => "unreadable" as const)
    )

  const writeRecord = (of: Container, machine: MachineRecord) => {
    const fresh = `${of.files.machine}.new`
    return fs
      .writeFileString(fresh, JSON.stringify(machine), { mode: 0o600 })
      .pipe(
        Effect.andThen(fs.rename(fresh, of.files.machine)),
        Effect.mapError(startFailed("write a machine's record"))
      )
  }

  const pid = (of: Container) =>
    Effect.map(readIfThere(of.files.pid), (text) =>
      text !== undefined && /^\d+$/.test(text.trim()) ? Number(text) : undefined
    )

  const remove = (path: string) =>
    fs
      .remove(path, { recursive: true, force: true })
      .pipe(Effect.mapError(fromPlatform("remove a container")))

  /** Whatever is there, and not what should be: a runtime that was killed leaves files under names of its own. */
  const forgetMachine = Effect.fnUntraced(function* (of: Container) {
    const names = yield* fs.readDirectory(of.directory).pipe(
      Effect.catchIf(isMissing, () => Effect.succeed<Array<string>>([])),
      Effect.mapError(fromPlatform("remove a container"))
    )
    const files = names.map((name) => `${of.directory}/${name}`).filter((path) => path !== of.files.disk)
    const removeOrName = (path: string) =>
      Effect.catch(remove(path), (error) => Effect.logWarning(`could not clear ${path}: ${error.reason}`))
    yield* Effect.forEach([of.runtimeState, ...files], removeOrName, {
      concurrency: "unbounded",
      discard: true
    })
  })

  const orEmpty = (path: string) => Effect.orElseSucceed(fs.readFileString(path), () => "")

  const starting = Effect.gen(function* () {
    const names = yield* Effect.orElseSucceed(fs.readDirectory("/proc"), (): Array<string> => [])
    const pids = names.filter((name) => /^\d+$/.test(name))
    const found = yield* Effect.filter(
      pids,
      (pid) =>
        Effect.map(orEmpty(`/proc/${pid}/cmdline`), (words) =>
          ["dir", "--bundle"].some((word) => words.includes(`\0${word}\0${containers}/`))
        ),
      { concurrency: 16 }
    )
    return found.map(Number)
  })

  /** The disk itself is in nobody's mount table, but the root above it is, which the helper gives the container's name. */
  const diskHolders = Effect.fnUntraced(function* (of: Container) {
    const names = yield* Effect.orElseSucceed(fs.readDirectory("/proc"), (): Array<string> => [])
    const holders = yield* Effect.filter(
      names.filter((name) => /^\d+$/.test(name)),
      (pid) =>
        Effect.map(orEmpty(`/proc/${pid}/mountinfo`), (mounts) => mounts.includes(` - overlay ${of.name} `)),
      { concurrency: 16 }
    )
    const described = yield* Effect.forEach(holders, (pid) =>
      Effect.map(orEmpty(`/proc/${pid}/comm`), (name) => `process ${pid} (${name.trim()})`)
    )
    return described.join(", ")
  })

  const diskInUse = Effect.fnUntraced(function* (of: Container) {
    const loop = yield* readIfThere(of.files.loop)
    if (loop === undefined) return false
    const backing = yield* orEmpty(`/sys/block/loop${loop.trim()}/loop/backing_file`)
    // The kernel writes " (deleted)" after the path of a removed file.
    return backing.startsWith(of.files.disk)
  })

  return ContainerFiles.of({
    container,
    all,
    exists: (of) => Effect.mapError(fs.exists(of.directory), fromPlatform("look for a container")),
    record,
    writeRecord,
    pid,
    starting,
    forgetMachine,
    removeAll: (of) =>
      Effect.forEach([of.runtimeState, of.directory], remove, { concurrency: 2, discard: true }),
    diskInUse,
    diskHolders
  })
})
