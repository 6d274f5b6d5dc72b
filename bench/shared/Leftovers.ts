/** Whether a run of measurements left anything on the machine. */
import { readdirSync, readFileSync, rmdirSync } from "node:fs"
import { Effect, Schedule } from "effect"

const unlessGone = <A>(read: () => A, otherwise: A): A => {
  try {
    return read()
  } catch {
    return otherwise
  }
}

const mountinfo = () =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" "))

const mounts = (): ReadonlyArray<string> => mountinfo().map((fields) => `mount ${fields[4]}`)

const hierarchies = (): ReadonlyArray<string> =>
  mountinfo().flatMap((fields) => {
    const point = fields[4]
    return point !== undefined && fields.some((field) => field.startsWith("cgroup")) ? [point] : []
  })

/** The parent that podman makes for all its groups and never removes. */
const podmanGroup = "libpod_parent"

const groups = (): ReadonlyArray<string> =>
  hierarchies().flatMap((root) =>
    readdirSync(root)
      .filter((name) => /^(fiberbox|fbb|libpod)/.test(name))
      .map((name) => `control group ${root}/${name}`)
  )

const processes = (): ReadonlyArray<string> =>
  readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .flatMap((pid) => {
      const name = unlessGone(() => readFileSync(`/proc/${pid}/comm`, "utf8").trim(), "")
      return /^(fiberbox|runc|podman|conmon|bwrap)/.test(name) ? [`process ${pid} (${name})`] : []
    })

const disks = (): ReadonlyArray<string> =>
  readdirSync("/sys/block").flatMap((name) => {
    const backing = unlessGone(() => readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").trim(), "")
    return backing === "" ? [] : [`disk ${name} of ${backing}`]
  })

/** What is on the machine of the kinds that measurements make. */
export const inventory = (): ReadonlySet<string> =>
  new Set([...mounts(), ...groups(), ...processes(), ...disks()])

/** A control group has no files that could be removed, only groups below it. */
const removeGroup = (path: string): void => {
  const below = unlessGone(() => readdirSync(path, { withFileTypes: true }), [])
  for (const entry of below) if (entry.isDirectory()) removeGroup(`${path}/${entry.name}`)
  unlessGone(() => rmdirSync(path), undefined)
}

const removePodmanGroup = (before: ReadonlySet<string>): void => {
  for (const root of hierarchies()) {
    const path = `${root}/${podmanGroup}`
    if (!before.has(`control group ${path}`)) removeGroup(path)
  }
}

/** What was not there `before` and is there still after a while; the kernel ends some things late. */
export const leftovers = (before: ReadonlySet<string>): Effect.Effect<ReadonlyArray<string>> =>
  Effect.sync(() => {
    removePodmanGroup(before)
    return [...inventory()].filter((thing) => !before.has(thing))
  }).pipe(
    Effect.repeat({
      schedule: Schedule.upTo(Schedule.spaced("200 millis"), { duration: "10 seconds" }),
      until: (left) => left.length === 0
    })
  )
