/** Where memory went, in kB of 1024 bytes, as the kernel counts it. */
import { readFileSync } from "node:fs"

const fields = (path: string): ReadonlyMap<string, number> =>
  new Map(
    readFileSync(path, "utf8")
      .split("\n")
      .flatMap((line): Array<[string, number]> => {
        const [, name, value] = /^(\S+):\s+(\d+) kB$/.exec(line) ?? []
        return name === undefined ? [] : [[name, Number(value)]]
      })
  )

const sum = (values: ReadonlyMap<string, number>, ...names: ReadonlyArray<string>): number =>
  names.reduce((total, name) => total + (values.get(name) ?? 0), 0)

/** What a process has, and its part of what it shares: `Pss` of proc_pid_smaps(5). */
export const proportional = (pid: number): number => sum(fields(`/proc/${pid}/smaps_rollup`), "Pss")

/** What this machine and this process use. */
export const snapshot = () => {
  const machine = fields("/proc/meminfo")
  return {
    available: sum(machine, "MemAvailable"),
    slab: sum(machine, "SReclaimable", "SUnreclaim"),
    unreclaimableSlab: sum(machine, "SUnreclaim"),
    kernel: sum(machine, "KernelStack", "PageTables", "SecPageTables", "Percpu", "VmallocUsed"),
    ownResident: process.memoryUsage().rss / 1024,
    ownHeap: process.memoryUsage().heapUsed / 1024
  }
}
