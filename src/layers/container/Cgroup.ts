/**
 * Control groups, versions 1 and 2: what a container uses, stopping it where it
 * stands, killing all of it, and removing its groups.
 *
 * The OCI runtime makes the groups and sets the limits; everything later is
 * done here by reading and writing the kernel's files, which starts no program.
 * A group is named by its path below every hierarchy's root, with a leading slash.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type { PlatformError } from "effect/PlatformError"
import * as Schedule from "effect/Schedule"
import { type BackendFailed, Timeout } from "../../domain/Errors.ts"
import { fromPlatform, isMissing } from "./Failures.ts"
import { killProcess, removeEmptyDirectory } from "./Kernel.ts"

/** The controllers that containers are limited and held by. */
export type Controller = "memory" | "cpu" | "cpuacct" | "pids" | "freezer"

/** How control groups are mounted on this machine. */
export interface CgroupLayout {
  readonly version: 1 | 2
  /** Mount points of every hierarchy; a container has a group in each. */
  readonly hierarchies: ReadonlyArray<string>
  /** Mount points by controller; those that are missing cannot limit anything here. */
  readonly controllers: { readonly [C in Controller]?: string }
}

/** What a group uses at this moment. */
export interface Usage {
  readonly cpuMillis: number
  readonly memoryBytes: number
  readonly pids: number
}

const controllers: ReadonlyArray<Controller> = ["memory", "cpu", "cpuacct", "pids", "freezer"]

interface Hierarchy {
  readonly path: string
  readonly version: 1 | 2
  readonly controllers: ReadonlyArray<string>
}

/** See proc_pid_mountinfo(5): the fields after ` - ` are type, source and the file system's own options. */
const hierarchyOf = (line: string): ReadonlyArray<Hierarchy> => {
  const [head = "", tail = ""] = line.split(" - ")
  const [type, , options = ""] = tail.split(" ")
  const path = head.split(" ")[4]
  if (path === undefined || (type !== "cgroup" && type !== "cgroup2")) return []
  return [{ path, version: type === "cgroup" ? 1 : 2, controllers: options.split(",") }]
}

/**
 * The layout, from `/proc/self/mountinfo` and the controllers of version 2
 * (the contents of `cgroup.controllers`). Where memory has a version 1
 * hierarchy the machine is one of version 1, as OCI runtimes see it.
 */
export const parseLayout = (mountinfo: string, unified: string): CgroupLayout => {
  const found = mountinfo.split("\n").flatMap(hierarchyOf)
  const seen = new Map(found.map((hierarchy) => [hierarchy.path, hierarchy]))
  const hierarchies = [...seen.keys()]
  const v1 = [...seen.values()].filter((hierarchy) => hierarchy.version === 1)
  if (v1.some((hierarchy) => hierarchy.controllers.includes("memory"))) {
    const place = (name: Controller) => v1.find((hierarchy) => hierarchy.controllers.includes(name))?.path
    return { version: 1, hierarchies, controllers: pick(place) }
  }
  const root = [...seen.values()].find((hierarchy) => hierarchy.version === 2)?.path
  const names = unified.trim().split(/\s+/)
  // Accounting and freezing belong to every version 2 group.
  const has = (name: Controller) => name === "cpuacct" || name === "freezer" || names.includes(name)
  return { version: 2, hierarchies, controllers: pick((name) => (has(name) ? root : undefined)) }
}

const pick = (place: (name: Controller) => string | undefined): CgroupLayout["controllers"] =>
  Object.fromEntries(
    controllers.flatMap((name) => {
      const path = place(name)
      return path === undefined ? [] : [[name, path]]
    })
  )

/** The value of a key in a flat keyed file, such as `memory.events`; 0 when it is not there. */
export const keyed = (text: string, key: string): number => {
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${key} `))
  return line === undefined ? 0 : Number(line.slice(key.length + 1))
}

/** The kernel's control groups. */
export class Cgroups extends Context.Service<
  Cgroups,
  {
    readonly layout: CgroupLayout
    /** The processes in a group, as this machine numbers them; none when the group does not exist. */
    readonly processes: (group: string) => Effect.Effect<ReadonlyArray<number>, BackendFailed>
    /** Stops every process of a group and waits until all stand still. */
    readonly freeze: (group: string) => Effect.Effect<void, BackendFailed | Timeout>
    /** Whether a group stands still, or is about to. */
    readonly isFrozen: (group: string) => Effect.Effect<boolean, BackendFailed>
    readonly thaw: (group: string) => Effect.Effect<void, BackendFailed>
    /**
     * Lets a group that has used more processor time than it may run at once, as after a pause: what it owes is forgotten,
     * and its limit stays. Hundreds of programs that fork overdraw it by seconds, and all that is in the group waits.
     */
    readonly forgiveCpu: (group: string) => Effect.Effect<void, BackendFailed>
    /** The file that lists the processes of a group. */
    readonly processList: (group: string) => string | undefined
    /** What a group uses; zeros for what is not counted here. */
    readonly usage: (group: string) => Effect.Effect<Usage, BackendFailed>
    /** How many processes of a group were killed for want of memory. */
    readonly memoryKills: (group: string) => Effect.Effect<number, BackendFailed>
    /** Kills every process of a group, frozen ones too, and waits until none is left. */
    readonly kill: (group: string) => Effect.Effect<void, BackendFailed | Timeout>
    /** Removes an empty group from every hierarchy. */
    readonly remove: (group: string) => Effect.Effect<void, BackendFailed | Timeout>
    /** The names of the groups directly below a group, in any hierarchy. */
    readonly children: (group: string) => Effect.Effect<ReadonlyArray<string>, BackendFailed>
  }
>()("fiberbox/layers/container/Cgroups") {
  static readonly layer: Layer.Layer<Cgroups, BackendFailed, FileSystem.FileSystem> = Layer.effect(
    Cgroups,
    Effect.suspend(() => make)
  )
}

/** How long the kernel may take to stop, kill or let go of processes: a thousand times what it takes on a quiet machine. */
const waitMillis = 10_000

/** Repeats a check every millisecond until it holds; no wait is without an end. */
const until = <E, R>(
  check: Effect.Effect<boolean, E, R>,
  limit: "drain" | "transport"
): Effect.Effect<void, E | Timeout, R> =>
  check.pipe(
    Effect.repeat({ schedule: Schedule.spaced("1 millis"), until: (done) => done }),
    Effect.timeoutOrElse({
      duration: waitMillis,
      orElse: () => Effect.fail(new Timeout({ limit, millis: waitMillis, outcome: "unknown" }))
    }),
    Effect.asVoid
  )

const make = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const read = (path: string): Effect.Effect<string, PlatformError> =>
    fs.readFileString(path).pipe(Effect.catchIf(isMissing, () => Effect.succeed("")))
  const mountinfo = yield* Effect.mapError(read("/proc/self/mountinfo"), fromPlatform("read control groups"))
  const unified = yield* Effect.mapError(
    read("/sys/fs/cgroup/cgroup.controllers"),
    fromPlatform("read control groups")
  )
  const layout = parseLayout(mountinfo, unified)
  const { version } = layout
  const place = (controller: Controller, group: string, file: string) => {
    const root = layout.controllers[controller]
    return root === undefined ? undefined : `${root}${group}/${file}`
  }
  const value = (controller: Controller, group: string, file: string) => {
    const path = place(controller, group, file)
    return path === undefined ? Effect.succeed("") : read(path)
  }
  const write = (controller: Controller, group: string, file: string, text: string) => {
    const path = place(controller, group, file)
    return path === undefined
      ? Effect.void
      : fs.writeFileString(path, text, { flag: "r+" }).pipe(Effect.catchIf(isMissing, () => Effect.void))
  }

  const processes = (group: string) =>
    value("freezer", group, "cgroup.procs").pipe(
      Effect.map((text) =>
        text
          .split("\n")
          .filter((line) => line !== "")
          .map(Number)
      ),
      // A group that is being removed answers ENODEV.
      Effect.catch(() => Effect.succeed<ReadonlyArray<number>>([]))
    )

  const frozen = (group: string) =>
    version === 1
      ? Effect.map(value("freezer", group, "freezer.state"), (text) => text.trim() === "FROZEN")
      : Effect.map(value("freezer", group, "cgroup.events"), (text) => keyed(text, "frozen") === 1)

  const freeze = Effect.fnUntraced(
    function* (group: string) {
      if (version === 1) yield* write("freezer", group, "freezer.state", "FROZEN")
      else yield* write("freezer", group, "cgroup.freeze", "1")
      yield* until(frozen(group), "transport")
    },
    Effect.catchTag("PlatformError", (error) => Effect.fail(fromPlatform("freeze a container")(error)))
  )

  const isFrozen = (group: string) =>
    (version === 1
      ? Effect.map(value("freezer", group, "freezer.state"), (text) => /^(FROZEN|FREEZING)/.test(text))
      : Effect.map(value("freezer", group, "cgroup.freeze"), (text) => text.trim() === "1")
    ).pipe(Effect.mapError(fromPlatform("look whether a container is frozen")))

  const thaw = (group: string) =>
    (version === 1
      ? write("freezer", group, "freezer.state", "THAWED")
      : write("freezer", group, "cgroup.freeze", "0")
    ).pipe(Effect.mapError(fromPlatform("thaw a container")))

  // The kernel begins a new period whenever the limit is written, also when it is the same.
  const cpuLimit = version === 1 ? "cpu.cfs_quota_us" : "cpu.max"
  const forgiveCpu = (group: string) =>
    value("cpu", group, cpuLimit).pipe(
      Effect.flatMap((limit) => (limit === "" ? Effect.void : write("cpu", group, cpuLimit, limit))),
      Effect.mapError(fromPlatform("let a container run"))
    )

  const usage = Effect.fnUntraced(
    function* (group: string): Effect.fn.Return<Usage, PlatformError> {
      const pids = Number(yield* value("pids", group, "pids.current"))
      if (version === 1) {
        const nanos = Number(yield* value("cpuacct", group, "cpuacct.usage"))
        const memoryBytes = Number(yield* value("memory", group, "memory.usage_in_bytes"))
        return { cpuMillis: nanos / 1e6, memoryBytes, pids }
      }
      const micros = keyed(yield* value("cpuacct", group, "cpu.stat"), "usage_usec")
      const memoryBytes = Number(yield* value("memory", group, "memory.current"))
      return { cpuMillis: micros / 1e3, memoryBytes, pids }
    },
    Effect.mapError(fromPlatform("measure a container"))
  )

  const memoryKills = (group: string) =>
    value("memory", group, version === 1 ? "memory.oom_control" : "memory.events").pipe(
      Effect.map((text) => keyed(text, "oom_kill")),
      Effect.mapError(fromPlatform("measure a container"))
    )

  // Thawed as well: a process frozen by version 1 does not die of SIGKILL until it is thawed.
  const killOnce = Effect.fnUntraced(function* (group: string) {
    const pids = yield* processes(group)
    if (pids.length === 0) return true
    // At once and with all groups below, where the kernel can; what it cannot is done one by one.
    if (version === 2) yield* Effect.ignore(write("freezer", group, "cgroup.kill", "1"))
    yield* Effect.forEach(pids, killProcess, { discard: true })
    yield* thaw(group)
    return false
  })

  const removeFrom = (path: string) =>
    removeEmptyDirectory(path).pipe(
      Effect.as(true),
      Effect.catch((code) => Effect.succeed(code !== "EBUSY" && code !== "ENOTEMPTY"))
    )

  const children = (group: string) =>
    Effect.forEach(
      layout.hierarchies,
      (root) =>
        fs
          .readDirectoryEntries(`${root}${group}`)
          .pipe(
            Effect.catchIf(isMissing, () => Effect.succeed<ReadonlyArray<FileSystem.DirectoryEntry>>([]))
          ),
      { concurrency: "unbounded" }
    ).pipe(
      Effect.map((entries) => [
        ...new Set(
          entries
            .flat()
            .filter((entry) => entry.type === "Directory")
            .map((entry) => entry.name)
        )
      ]),
      Effect.mapError(fromPlatform("list control groups"))
    )

  return Cgroups.of({
    layout,
    processes,
    freeze,
    isFrozen,
    thaw,
    forgiveCpu,
    processList: (group) => place("freezer", group, "cgroup.procs"),
    usage,
    memoryKills,
    kill: (group) => until(killOnce(group), "drain"),
    remove: (group) =>
      Effect.forEach(layout.hierarchies, (root) => until(removeFrom(`${root}${group}`), "drain"), {
        concurrency: "unbounded",
        discard: true
      }),
    children
  })
})
