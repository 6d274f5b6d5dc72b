/**
 * What a look at everything says: at the records, at what the service tells of
 * programs, and at the world itself.
 */
import type { SandboxId } from "../domain/Ids.ts"
import type { ProcessInfo } from "../domain/Process.ts"
import type { SandboxInfo } from "../domain/Sandbox.ts"
import type { Slot } from "./LifeCommands.ts"
import {
  all,
  type Belief,
  type Box,
  only,
  or,
  type Program,
  put,
  type Standing,
  withoutEarlier,
  withoutPrograms
} from "./LifeModel.ts"
import type { Found, Now } from "./LifeWorld.ts"

/** What was seen in one look, at one moment. */
export interface Sighting {
  readonly now: Now
  /** All sandboxes that the service lists. */
  readonly listed: ReadonlyArray<SandboxInfo>
  /** What the service says of those that are known by id and not listed; undefined when it knows none. */
  readonly others: ReadonlyMap<SandboxId, SandboxInfo | undefined>
  /** The processes of those that run. */
  readonly processes: ReadonlyMap<SandboxId, ReadonlyArray<ProcessInfo>>
  /** Why they are not all known. */
  readonly unanswered: ReadonlyArray<string>
  readonly found: ReadonlyArray<Found>
}

/** What is believed after a look, and the promises that it shows broken. */
export interface Audited {
  readonly belief: Belief
  readonly broken: ReadonlyArray<string>
  /** Whether something is broken that is not in order again when a later look finds it so: by then it may only be over. */
  readonly isForGood: boolean
}

/** How late a limit may be, in milliseconds. */
const limitMillis = 1000

/** The number by which a program is known in command lines. */
export const markOf = (number: number): string => String(100_000 + number)

/** Takes in a look while nothing goes wrong and no call is under way. */
export const audit = (belief: Belief, sighting: Sighting): Audited => {
  const slots: ReadonlyArray<Slot> = ["a", "b"]
  const broken = [...sighting.unanswered]
  const owned = new Set<SandboxId>()
  let after = belief
  let isForGood = false
  for (const slot of slots) {
    const box = belief.boxes[slot]
    if (box === undefined) continue
    const seen = box.id === undefined ? byName(slot, sighting) : byId(box.id, sighting)
    const look = lookAt(box, seen, sighting)
    if (look.box.id !== undefined) owned.add(look.box.id)
    isForGood = isForGood || look.isForGood === true
    broken.push(...look.broken.map((text) => `${slot}: ${text}`))
    after = put(after, slot, look.box)
  }
  for (const { id, name } of sighting.listed) {
    if (!owned.has(id)) broken.push(`nobody knows of the sandbox ${name} (${id})`)
  }
  const living = new Set(sighting.listed.map(({ id }) => id))
  for (const { id, machine } of sighting.found) {
    if (!living.has(id))
      broken.push(`${machine === undefined ? "remains" : "a machine"} of ${id}, which does not exist`)
  }
  return { belief: after, broken, isForGood }
}

const byName = (slot: Slot, { listed }: Sighting) => listed.find(({ name }) => name === slot)
const byId = (id: SandboxId, { listed, others }: Sighting) =>
  listed.find((info) => info.id === id) ?? others.get(id)

interface Look {
  readonly box: Box
  readonly broken: ReadonlyArray<string>
  /** See {@link Audited.isForGood}; default false. */
  readonly isForGood?: boolean | undefined
}

const isStanding = (status: string): status is Standing => all.some((one) => one === status)

const lookAt = (box: Box, info: SandboxInfo | undefined, sighting: Sighting): Look => {
  const status = info?.status ?? "killed"
  if (info === undefined && box.id !== undefined && !box.may.includes("killed")) {
    return { box, broken: [`it is lost, and should be ${box.may}`] }
  }
  if (!isStanding(status)) return { box, broken: [`it is still ${status}`] }
  if (!box.may.includes(status)) {
    return { box, broken: [`it is ${status} (${info?.reason}), and should be ${box.may}`] }
  }
  if (info === undefined || status === "killed") {
    return {
      box: withoutPrograms({ ...box, may: ["killed"], id: box.id ?? info?.id, isDying: false }),
      broken: []
    }
  }
  const found = sighting.found.find(({ id }) => id === info.id)
  // That it is being killed may be recorded at any later moment, or only be seen by its machine, which is gone.
  const may = box.isDying ? or([status], "killed", "failed") : [status]
  const known = renewed({ ...box, id: info.id, may }, info)
  const ttl = lookAtTtl(known, status, info, sighting.now, info.generation > box.generation)
  return {
    box: ttl.box,
    isForGood: ttl.isForGood,
    broken: [
      ...generations(box, info),
      ...ttl.broken,
      ...(box.isDying && status !== "running" && found === undefined
        ? []
        : machine(status, info, found, box.isAdrift)),
      ...programs(ttl.box, status, sighting.processes.get(info.id), found)
    ]
  }
}

const renewed = (box: Box, info: SandboxInfo): Box => {
  const known = { ...box, generation: info.generation, isRenewed: false }
  const isSame = info.generation === box.generation && (info.status === "running" || info.status === "paused")
  return isSame ? known : withoutEarlier(known)
}

const generations = (box: Box, info: SandboxInfo) =>
  info.generation < box.generation || (info.generation > box.generation && !box.isRenewed)
    ? [`it is of generation ${info.generation} after ${box.generation}, without a reason`]
    : []

/** The time to live: what was promised stands in the record until its effect does. */
const lookAtTtl = (box: Box, status: Standing, info: SandboxInfo, now: Now, wasReplaced: boolean): Look => {
  const { expiresAt, spec } = info
  if (box.ttl === "unknown") {
    const ttl =
      expiresAt === undefined || spec.ttl === undefined
        ? undefined
        : { at: expiresAt, action: spec.ttl.action, wasDue: false }
    return { box: { ...box, ttl }, broken: [] }
  }
  if (box.ttl === undefined) {
    return { box, broken: expiresAt === undefined ? [] : [`it has a time to live until ${expiresAt}`] }
  }
  const { at, action } = box.ttl
  if (now.wall < at) {
    if (box.ttl.wasDue && expiresAt === undefined) return { box: { ...box, ttl: undefined }, broken: [] }
    if (expiresAt === at) return { box, broken: [] }
    // It was acknowledged, so it is written; and once it is over nothing tells any more that it was not.
    return { box, broken: [`its time to live until ${at} is recorded as ${expiresAt}`], isForGood: true }
  }
  const isEffective = status !== "running" && action !== "kill" && (action === "pause" || status !== "paused")
  const isLate = !isEffective && now.wall >= at + limitMillis
  const broken = isLate ? [`it is ${status} though its time to live (${action}) was over at ${at}`] : []
  // Used up once its effect is there for good: what waits to be started again is not stopped yet.
  // Or once it was there, and went with the machine that was paused.
  if (expiresAt === undefined && action === "pause" && wasReplaced)
    return { box: { ...box, ttl: undefined }, broken: [] }
  const isUsed = isEffective && expiresAt === undefined && !(status === "failed" && box.restarts)
  return { box: isUsed ? { ...box, ttl: undefined } : box, broken }
}

/** The record and the world agree on whether there is a machine, which, and whether it stands still. */
const machine = (
  status: Standing,
  info: SandboxInfo,
  found: Found | undefined,
  isAdrift: boolean
): ReadonlyArray<string> => {
  const has = found?.machine
  const shall = status === "running" || status === "paused"
  if (found === undefined) return [`it is ${status}, and nothing of it is there`]
  if (has === undefined) return shall ? [`it is ${status}, and no machine runs`] : []
  if (!shall) return [`it is ${status} (${info.reason}), and a machine runs`]
  if (has.generation !== info.generation) {
    return [`it is of generation ${info.generation}, and its machine of ${has.generation}`]
  }
  return has.isPaused === (status === "paused") || (isAdrift && status === "paused")
    ? []
    : [`it is ${status}, and its machine ${has.isPaused ? "stands still" : "goes on"}`]
}

const programs = (
  box: Box,
  status: Standing,
  listed: ReadonlyArray<ProcessInfo> | undefined,
  found: Found | undefined
): ReadonlyArray<string> => {
  const lines = found?.machine?.programs ?? []
  return box.programs.flatMap((program) => {
    const mark = markOf(program.number)
    const processes = lines.filter((line) => line.includes(mark)).length
    const told = listed?.find(({ argv }) => argv.some((part) => part.includes(mark)))
    return program1(box, program, status, processes, listed === undefined ? "nothing" : told)
  })
}

const program1 = (
  box: Box,
  program: Program,
  status: Standing,
  processes: number,
  told: ProcessInfo | undefined | "nothing"
): ReadonlyArray<string> => {
  const name = `program ${program.number} (${program.shape})`
  const says =
    told === "nothing" ? "nothing" : told === undefined ? "none" : told.exit === undefined ? "runs" : "ended"
  const leaves = program.shape === "leaves a child"
  const isOver = program.left !== undefined && program.left.atMost + limitMillis < 0
  const shall = program.runs === "yes" && program.generation === box.generation && only(box, status)
  if (processes > 0) {
    if (program.runs === "no" || (program.generation ?? box.generation) !== box.generation)
      return [`${name} runs, and should not`]
    if (isOver) return [`${name} runs ${-(program.left?.atMost ?? 0)} ms after its limit`]
    if (says === "none") return [`${name} runs, and is not listed`]
    if (says === "ended" && !leaves) return [`${name} runs, and is listed as ended`]
    return []
  }
  if (shall && (status === "running" || status === "paused")) return [`${name} does not run, and should`]
  if (says === "runs") return [`${name} does not run, and is listed as running`]
  return []
}
