/**
 * Whether this machine can grant and enforce the limits of a specification.
 */
import { InvalidArgument, type Unsupported } from "../../domain/Errors.ts"
import type { Limits } from "../../domain/Sandbox.ts"
import type { CgroupLayout, Controller } from "./Cgroup.ts"
import { unsupported } from "./Failures.ts"

/** How large this machine is. */
export interface MachineSize {
  readonly memoryBytes: number
  readonly cpus: number
  readonly pids: number
  /** Of the file system that holds the disks. */
  readonly diskBytes: number
}

/** Below this much memory the runtime and the agent do not start. */
export const minimumMemoryBytes = 16 * 1024 * 1024

/** Below this many processes the agent cannot run a command and its supervisor. */
export const minimumPids = 8

/** A smaller disk has no room for its own tables. */
export const minimumDiskBytes = 8 * 1024 * 1024

/** The root's own directories take some. */
export const minimumInodes = 64

/** What one inode takes of the disk. */
const inodeBytes = 256

const invalid = (field: keyof Limits, reason: string) =>
  new InvalidArgument({ field: `limits.${field}`, reason })

const between = (
  field: keyof Limits,
  value: number,
  low: number,
  high: number,
  owner = "this machine has"
) =>
  value < low
    ? invalid(field, `must be at least ${low}, is ${value}`)
    : value > high
      ? invalid(field, `${owner} ${high}, asked for ${value}`)
      : undefined

/** The controllers without which limits could not be kept, each with the capability that is lost. */
export const neededControllers: ReadonlyArray<readonly [Controller, string]> = [
  ["memory", "limit-memory"],
  ["cpu", "limit-cpus"],
  ["pids", "limit-pids"],
  ["freezer", "pause"]
]

/** The first thing that is wrong with the limits, or undefined. */
export const checkLimits = (
  limits: Limits,
  machine: MachineSize,
  cgroups: CgroupLayout
): InvalidArgument | Unsupported | undefined => {
  const missing = neededControllers.find(([controller]) => cgroups.controllers[controller] === undefined)
  if (missing !== undefined) {
    return unsupported(missing[1], `the control group controller "${missing[0]}" is not mounted`)
  }
  return (
    between("memoryBytes", limits.memoryBytes, minimumMemoryBytes, machine.memoryBytes) ??
    between("cpus", limits.cpus, 0.01, machine.cpus) ??
    between("pids", limits.pids, minimumPids, machine.pids) ??
    between("diskBytes", limits.diskBytes, minimumDiskBytes, machine.diskBytes) ??
    between(
      "inodes",
      limits.inodes,
      minimumInodes,
      // Beyond this their table takes more than half of the disk.
      Math.floor(limits.diskBytes / inodeBytes / 2),
      `a disk of ${limits.diskBytes} bytes has room for`
    )
  )
}
