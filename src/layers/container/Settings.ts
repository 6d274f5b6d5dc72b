/**
 * Where a container backend keeps things and which programs it uses.
 */
import { fileURLToPath } from "node:url"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { SandboxId } from "../../domain/Ids.ts"
import { Instance, type InstanceId } from "../../services/Instance.ts"

/** What a program may choose about its containers. Paths are absolute. */
export interface ContainerOptions {
  /** The host helper; default: `native/build/fiberbox-host` of this package. */
  readonly helper?: string | undefined
  /** The agent, a static program; default: `native/build/fiberbox-agent` of this package. */
  readonly agent?: string | undefined
  /** The OCI runtime: a path, or a name to be found in PATH. Default: `runc`. */
  readonly runtime?: string | undefined
  /** Whether the image `host` is offered. Default: yes; a service for others offers it only when its operator says so. */
  readonly hostImage?: boolean | undefined
  /**
   * Whether `dir:/path` images are offered: those at or below these directories, symbolic links followed; or all,
   * which is only for where whoever names images may read every file of this machine. Default: none.
   */
  readonly directoryImages?: boolean | ReadonlyArray<string> | undefined
  /**
   * Whether the host's disk keeps all of a sandbox's disk free for it from the beginning, so that it never becomes too
   * full for what a sandbox has written. Default: no; disks take room as they are written to.
   */
  readonly reserveDisks?: boolean | undefined
  /** How long making a machine may take, in milliseconds. Default: 30 s. */
  readonly provisionMillis?: number | undefined
  /** How long a machine that is not detached waits for a lost service before it ends itself, in milliseconds. Default: 60 s. */
  readonly orphanMillis?: number | undefined
}

/** Where an instance keeps its containers and which programs it uses. */
export class ContainerSettings extends Context.Service<
  ContainerSettings,
  { readonly [K in keyof ContainerOptions]-?: Exclude<ContainerOptions[K], undefined> } & {
    /** The instance's own directory. It exists, and its owner holds its lock. */
    readonly stateDir: string
    /** Part of the name of every control group of this instance. */
    readonly instanceId: InstanceId
    /** Shared by all instances on this machine: caches, and which ids are in use. */
    readonly baseDir: string
  }
>()("fiberbox/layers/container/ContainerSettings") {
  /** The settings of the instance that this program is. */
  static readonly layer = (options: ContainerOptions): Layer.Layer<ContainerSettings, never, Instance> =>
    Layer.effect(
      ContainerSettings,
      Effect.map(Instance, ({ id, stateDir, baseDir }) => ({
        helper: options.helper ?? nativeProgram("fiberbox-host"),
        agent: options.agent ?? nativeProgram("fiberbox-agent"),
        runtime: options.runtime ?? "runc",
        hostImage: options.hostImage ?? true,
        directoryImages: options.directoryImages ?? false,
        reserveDisks: options.reserveDisks ?? false,
        provisionMillis: options.provisionMillis ?? 30_000,
        orphanMillis: options.orphanMillis ?? 60_000,
        stateDir,
        instanceId: id,
        baseDir
      }))
    )
}

/** A compiled native part of this package; sources and built files lie equally deep below its root. */
const nativeProgram = (name: string): string =>
  fileURLToPath(new URL(`../../../native/build/${name}`, import.meta.url))

/** The programs that are used when none are named. */
export const defaultPrograms = {
  helper: nativeProgram("fiberbox-host"),
  agent: nativeProgram("fiberbox-agent"),
  runtime: "runc"
}

/** The name of this backend in errors and results. */
export const backendName = "container"

/** What a sandbox's directory, control group and runtime container are called: its id without the prefix. */
export const containerName = (id: SandboxId): string => id.slice("sb_".length)

/** The sandbox a container belongs to; undefined for what is not one of ours. */
export const sandboxOf = (name: string): SandboxId | undefined => {
  const id = `sb_${name}`
  return Schema.is(SandboxId)(id) ? id : undefined
}

/** The instance's control group, below the root of every hierarchy. */
export const instanceGroup = (instanceId: InstanceId): string => `/fiberbox-${instanceId}`

/** The files of one instance. */
export const layout = (settings: { readonly stateDir: string; readonly baseDir: string }) => ({
  containers: `${settings.stateDir}/s`,
  /** The OCI runtime's own state. */
  runtimeState: `${settings.stateDir}/runc`,
  /** Empty disks to copy. */
  disks: `${settings.baseDir}/cache/disks`,
  /** Roots made from the host. */
  images: `${settings.baseDir}/cache/images`,
  /** One file per range of ids in use. */
  ids: `${settings.baseDir}/ids`
})

/** The files of one container, in its directory. */
export const filesOf = (directory: string) => ({
  bundle: `${directory}/config.json`,
  disk: `${directory}/disk.ext4`,
  /** What of the root differs from sandbox to sandbox. */
  own: `${directory}/own`,
  socket: `${directory}/a.sock`,
  pid: `${directory}/pid`,
  loop: `${directory}/loop`,
  log: `${directory}/runc.log`,
  machine: `${directory}/machine.json`
})
