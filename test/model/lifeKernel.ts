/** What the kernel and the disk show of an instance's sandboxes, whatever its service says, and the removal of all of it by force. */
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs"
import { Effect, Schedule, Schema } from "effect"
import { SandboxId } from "../../src/domain/Ids.ts"
import type { LifeSystem } from "../../src/testing.ts"

/** What this gives, or nothing where what it is about has ended meanwhile. */
export const unlessGone = <A>(f: () => A): A | undefined => {
  try {
    return f()
  } catch {
    return undefined
  }
}

const names = (path: string) => unlessGone(() => readdirSync(path)) ?? []
export const text = (path: string) => unlessGone(() => readFileSync(path, "utf8")) ?? ""

const groupRoot = "/sys/fs/cgroup"

export const sandboxIn = (text: string): SandboxId | undefined => {
  const id = `sb_${/local_[a-z0-9]+/.exec(text)?.[0]}`
  return Schema.is(SandboxId)(id) ? id : undefined
}

const nameOf = (id: SandboxId) => id.slice("sb_".length)

const Instance = Schema.fromJsonString(Schema.Struct({ id: Schema.String }))

/** The name of the instance in a directory; empty while there is none. */
export const instanceIn = (base: string): string => {
  const found = Schema.decodeOption(Instance)(text(`${base}/state/instance.json`))
  return found._tag === "Some" ? found.value.id : ""
}

/** The directories of an instance's control groups: one for each hierarchy. */
const groupsOf = (instance: string) =>
  ["", ...names(groupRoot).map((hierarchy) => `/${hierarchy}`)]
    .map((hierarchy) => `${groupRoot}${hierarchy}/fiberbox-${instance}`)
    .filter((path) => existsSync(path))

/** The processes that live in a sandbox's control groups, frozen or not. */
const processesOf = (instance: string, id: SandboxId): ReadonlyArray<number> => {
  const lists = groupsOf(instance).map((group) => text(`${group}/${nameOf(id)}/cgroup.procs`))
  const pids = new Set(lists.flatMap((list) => list.split("\n").filter((line) => line !== "")))
  return [...pids].map(Number).filter((pid) => /^State:\s+[^ZX]/m.test(text(`/proc/${pid}/status`)))
}

/** The agent: the first process of its namespace. */
export const agentOf = (instance: string, id: SandboxId) =>
  processesOf(instance, id).find((pid) => /^NSpid:.*\t1$/m.test(text(`/proc/${pid}/status`)))

const isFrozen = (instance: string, id: SandboxId) =>
  groupsOf(instance).some(
    (group) =>
      text(`${group}/${nameOf(id)}/freezer.state`).trim() === "FROZEN" ||
      /^frozen 1$/m.test(text(`${group}/${nameOf(id)}/cgroup.events`))
  )

/** Kills all in a sandbox's control groups; of version 1 the frozen die only when they thaw. */
export const killAll = (instance: string, id: SandboxId) => {
  for (const pid of processesOf(instance, id)) unlessGone(() => process.kill(pid, "SIGKILL"))
  for (const group of groupsOf(instance)) {
    const state = `${group}/${nameOf(id)}/freezer.state`
    if (existsSync(state)) unlessGone(() => writeFileSync(state, "THAWED"))
  }
}

const Record = Schema.fromJsonString(Schema.Struct({ generation: Schema.Number }))

/** All that is there of any sandbox of an instance: groups, disks in use or not, records of the runtime, mounts. */
export const census = (base: string, instance: string): ReadonlyArray<LifeSystem.Found> => {
  const disks = names("/sys/block")
    .map((name) => text(`/sys/block/${name}/loop/backing_file`))
    .filter((file) => file.startsWith(`${base}/`))
  const mounts = text("/proc/self/mountinfo")
    .split("\n")
    .filter((line) => line.includes(`${base}/state/`))
  const places = [
    ...groupsOf(instance).flatMap(names),
    ...disks.map((file) => file.slice(base.length)),
    ...mounts,
    ...names(`${base}/state/s`),
    ...names(`${base}/state/runc`)
  ]
  const ids = new Set(places.flatMap((place) => sandboxIn(place) ?? []))
  return [...ids].map((id) => {
    const processes = processesOf(instance, id)
    if (processes.length === 0) return { id, machine: undefined }
    const record = Schema.decodeOption(Record)(text(`${base}/state/s/${nameOf(id)}/machine.json`))
    const programs = processes.map((pid) => text(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim())
    return {
      id,
      machine: {
        generation: record._tag === "Some" ? record.value.generation : Number.NaN,
        isPaused: isFrozen(instance, id),
        programs
      }
    }
  })
}

/** The directory of a service on trial; what is killed and removed is found by this name, so it is like no other. */
export const baseName = (process: number) => `fb-life${process}-`
const isBase = (base: string) => /\/fb-(life\d+-)?\w{6}$/.test(base)

/** Kills all that was started for a directory or runs in its instance's sandboxes, and removes the control groups. */
const endAll = (base: string, instance: string) => {
  for (const pid of names("/proc").map(Number)) {
    const isFor = text(`/proc/${pid}/cmdline`).includes(`${base}/`)
    if (isFor && pid !== process.pid) unlessGone(() => process.kill(pid, "SIGKILL"))
  }
  for (const { id } of census(base, instance)) killAll(instance, id)
  for (const group of groupsOf(instance)) removeGroup(group)
  return groupsOf(instance).length === 0
}

const removeGroup = (group: string): void => {
  for (const name of unlessGone(() => readdirSync(group, { withFileTypes: true })) ?? []) {
    if (name.isDirectory()) removeGroup(`${group}/${name.name}`)
  }
  unlessGone(() => rmdirSync(group))
}

/** Ends and removes all of an instance, without its service, which must have ended. Dies when something stays. */
export const sweep = (base: string, instance: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!isBase(base)) return Effect.die(new Error(`${base} is not a directory that a test has made`))
    if (!endAll(base, instance)) return Effect.fail(new Error(`control groups of ${base} stay`))
    return Effect.try(() => {
      for (const name of names(base)) rmSync(`${base}/${name}`, { recursive: true, force: true })
    })
  }).pipe(Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 }), Effect.orDie)
