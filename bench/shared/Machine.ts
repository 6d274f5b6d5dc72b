/** On what it was measured: enough to compare two results, and nothing that names the machine. */
import { readFileSync } from "node:fs"
import { cpus, loadavg, release, totalmem } from "node:os"
import { Effect } from "effect"
import { parseLayout } from "../../src/layers/container/Cgroup.ts"
import { versionOf } from "./Peers.ts"

export interface Machine {
  readonly processor: string
  readonly processors: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly controlGroups: string
  /** Of the file system that the sandboxes' disks lie on. */
  readonly fileSystem: string
  readonly node: string
  /** Of those that are not installed: null. */
  readonly programs: { readonly [name: string]: string | null }
}

/** More than this at the start, and other programs are measured as well. */
export const quietLoad = 0.7

/** The load of the last minute. */
export const load = (): number => loadavg()[0] ?? 0

/** The type of the file system that holds a path; see proc_pid_mountinfo(5). */
const fileSystemOf = (mountinfo: string, path: string): string =>
  mountinfo
    .split("\n")
    .flatMap((line) => {
      const [head = "", tail = ""] = line.split(" - ")
      const point = head.split(" ")[4] ?? ""
      const holds = path.startsWith(point.endsWith("/") ? point : `${point}/`)
      return point !== "" && holds ? [{ point, type: tail.split(" ")[0] ?? "" }] : []
    })
    .reduce((best, found) => (found.point.length >= best.point.length ? found : best), {
      point: "",
      type: ""
    }).type

export const describeMachine = Effect.fnUntraced(function* (directory: string) {
  const mountinfo = readFileSync("/proc/self/mountinfo", "utf8")
  const named = (name: string) => Effect.map(versionOf(name), (version) => [name, version ?? null] as const)
  const machine: Machine = {
    processor: cpus()[0]?.model.trim() ?? "unknown",
    processors: cpus().length,
    memoryGiB: Math.round((totalmem() / 2 ** 30) * 10) / 10,
    kernel: release(),
    controlGroups: `version ${parseLayout(mountinfo, "").version}`,
    fileSystem: fileSystemOf(mountinfo, directory),
    node: process.versions.node,
    programs: Object.fromEntries(yield* Effect.forEach(["runc", "podman", "bwrap"], named))
  }
  return machine
})
