/**
 * What must hold of sandboxes whatever goes wrong, as a pure model: what was
 * acknowledged, what may be, and what each answer and each look at the world
 * says about it.
 *
 * Where the outcome of a call is not known the model holds all that may be, and
 * what is seen next narrows it. It says that a promise is broken only where no
 * outcome explains what was seen.
 */
import type { SandboxId } from "../domain/Ids.ts"
import type { ExpiryAction } from "../domain/Sandbox.ts"
import { decideExpiry } from "../domain/Status.ts"
import type { Fault, Of, Shape, Slot } from "./LifeCommands.ts"
import type { Now } from "./LifeWorld.ts"

/** Where a sandbox may stand; one that there never was counts as killed. */
export type Standing = "running" | "paused" | "stopped" | "failed" | "killed"

/** A program that was asked for. Its number is in the command lines of all its processes. */
export interface Program {
  readonly number: number
  readonly shape: Shape
  /** Of the machine that it was started in; undefined: in one of which it is not known which. */
  readonly generation: number | undefined
  /** Whether it runs, as far as was acknowledged. */
  readonly runs: "yes" | "maybe" | "no"
  /** The time that it may run yet: at least, if all the time that it may have run counts; at most, if only the time that it surely has. */
  readonly left: { readonly atLeast: number; readonly atMost: number } | undefined
}

/** A time to live. */
interface Ttl {
  readonly at: number
  readonly action: ExpiryAction
  /** Whether it was due once, by a clock that may have been wrong: then it may be used up. */
  readonly wasDue: boolean
}

/** A sandbox as far as it is known. */
export interface Box {
  /** Undefined while nothing but its name is known. */
  readonly id: SandboxId | undefined
  readonly may: ReadonlyArray<Standing>
  readonly generation: number
  /** Whether its machine may be a later one than that. */
  readonly isRenewed: boolean
  readonly restarts: boolean
  /** What may be in each file; null: no file. One that is not named was never written. */
  readonly files: { readonly [path: string]: ReadonlyArray<string | null> }
  readonly programs: ReadonlyArray<Program>
  readonly ttl: Ttl | "unknown" | undefined
  readonly isFull: boolean
  /** Whether what is in its files may not have reached the disk, which was full: it may be written to only after the next start. */
  readonly isSpoilt: boolean
  /** Whether it is being killed, which is not recorded yet: should the service end meanwhile, what is left of it may be without its disk. */
  readonly isDying: boolean
  /** Whether it may go on though it is recorded as paused: a pause that failed could not be taken back. */
  readonly isAdrift: boolean
  /** Until when its machine may be given up because its agent hung when a program was to be ended; undefined: it was not. */
  readonly giveUpUntil: number | undefined
}

/** All that is known. */
export interface Belief {
  readonly boxes: { readonly [S in Slot]: Box | undefined }
  /** Faults that last, or wait to be met. */
  readonly troubles: ReadonlyArray<Fault["_tag"]>
  readonly elapsed: number
}

/** Before anything has happened. */
export const initial: Belief = { boxes: { a: undefined, b: undefined }, troubles: [], elapsed: 0 }

/** All places where a sandbox may stand. */
export const all: ReadonlyArray<Standing> = ["running", "paused", "stopped", "failed", "killed"]

/** Puts what is believed of a slot. */
export const put = (belief: Belief, slot: Slot, box: Box | undefined): Belief => ({
  ...belief,
  boxes: { ...belief.boxes, [slot]: box }
})

/** Some things and more, each once. */
export const or = <A>(some: ReadonlyArray<A>, ...more: ReadonlyArray<A>): ReadonlyArray<A> => [
  ...new Set([...some, ...more])
]

/** Whether a sandbox can stand nowhere else. */
export const only = (box: Box, standing: Standing) => box.may.length === 1 && box.may[0] === standing

/** Whether a sandbox may be there at all. */
export const mayLive = (box: Box | undefined): box is Box => box !== undefined && !only(box, "killed")

/** Changes what is believed of every program. */
export const mapPrograms = (box: Box, f: (program: Program) => Program): Box => ({
  ...box,
  programs: box.programs.map(f)
})

/** No program that was known runs any more. */
export const withoutPrograms = (box: Box): Box => mapPrograms(box, (program) => ({ ...program, runs: "no" }))

/** No program runs any more that was started in an earlier machine. */
export const withoutEarlier = (box: Box): Box =>
  mapPrograms(box, (program) =>
    program.generation === undefined ? doubted(program) : { ...program, runs: "no" }
  )

const doubted = (program: Program): Program => ({
  ...program,
  runs: program.runs === "no" ? "no" : "maybe"
})

/** Each program may have ended. */
export const withDoubt = (box: Box): Box => mapPrograms(box, doubted)

/** A sandbox that was just asked for. */
export const fresh = (call: Of<"Create">): Box => ({
  id: undefined,
  may: all,
  generation: 1,
  isRenewed: true,
  restarts: call.restarts,
  files: {},
  programs: [],
  ttl: call.ttl === null ? undefined : "unknown",
  isFull: false,
  isSpoilt: false,
  isDying: false,
  isAdrift: false,
  giveUpUntil: undefined
})

// --- time ---

/** What may have happened by itself by now. */
export const elapse = (belief: Belief, now: Now): Belief => {
  const millis = now.elapsed - belief.elapsed
  const isHung = belief.troubles.includes("AgentHangs")
  const mayFail = belief.troubles.includes("HelperFails")
  const older = (box: Box | undefined) => {
    if (box === undefined) return undefined
    const aged = withTime(box, byItself(box, now, mayFail), millis)
    const owes = isHung && (box.giveUpUntil !== undefined || aged.programs.some(isDue))
    const owing = owes ? unanswered(aged, now) : aged
    return (owing.giveUpUntil ?? -1) >= belief.elapsed ? givenUp(owing) : owing
  }
  return { ...belief, elapsed: now.elapsed, boxes: { a: older(belief.boxes.a), b: older(belief.boxes.b) } }
}

/** How long after an agent goes on its machine may still be given up, in milliseconds. */
const giveUpMillis = 40_000

/** Whether a program's limit may have passed, and the program may run. */
const isDue = ({ left, runs }: Program) => left !== undefined && left.atLeast <= 0 && runs !== "no"

/** A hanging agent was asked to end a program: its machine may be given up. */
export const unanswered = (box: Box, now: Now): Box => ({ ...box, giveUpUntil: now.elapsed + giveUpMillis })

const givenUp = (box: Box): Box =>
  box.may.includes("running")
    ? withDoubt({ ...box, may: or(box.may, "failed"), isRenewed: box.isRenewed || box.restarts })
    : box

/** Lets the programs' own time pass, which is only while their sandbox runs. */
const withTime = (before: Box, after: Box, millis: number): Box =>
  mapPrograms(after, (program) => {
    if (program.left === undefined) return program
    const { atLeast, atMost } = program.left
    const mayRun = before.may.includes("running") || after.may.includes("running")
    const surelyRan = only(before, "running") && only(after, "running")
    const left = {
      atLeast: mayRun ? atLeast - millis : atLeast,
      atMost: surelyRan ? atMost - millis : atMost
    }
    return { ...program, left, runs: left.atLeast > 0 || program.runs === "no" ? program.runs : "maybe" }
  })

/** Where a time to live leads. */
export const endOf: { readonly [A in ExpiryAction]: Standing } = {
  kill: "killed",
  stop: "stopped",
  pause: "paused"
}

/** What time limits and the restart policy may have made of a sandbox. `mayFail`: what ends machines may not have done so. */
const byItself = (box: Box, now: Now, mayFail: boolean): Box => {
  const isDue = box.ttl !== undefined && (box.ttl === "unknown" || box.ttl.at <= now.wall)
  const action = box.ttl === undefined || box.ttl === "unknown" ? undefined : box.ttl.action
  const restarted: Box =
    box.restarts && box.may.includes("failed")
      ? { ...box, may: or(box.may, "running"), isRenewed: true }
      : box
  if (!isDue || !mayLive(box)) return restarted
  if (action === undefined) return withDoubt({ ...restarted, may: all, isRenewed: true })
  const due = {
    ...restarted,
    ttl: box.ttl === undefined || box.ttl === "unknown" ? box.ttl : { ...box.ttl, wasDue: true }
  }
  const isAbout = box.may.some((standing) => decideExpiry(action, standing) === "proceed")
  if (!isAbout) return due
  const ends = action === "stop" && mayFail ? (["stopped", "failed"] as const) : [endOf[action]]
  const expired = { ...due, may: or(due.may, ...ends) }
  return action === "pause" ? expired : withDoubt(expired)
}

// --- faults ---

/** Faults that last until they are healed, or until they are met. */
const lasting: ReadonlyArray<Fault["_tag"]> = [
  "AgentHangs",
  "DiskFull",
  "HelperFails",
  "StoreFails",
  "WayCut"
]

/** What is troubled by a fault: a store whose disk is full fails. */
const troublesOf = (fault: Fault): ReadonlyArray<Fault["_tag"]> =>
  fault._tag === "DiskFull" ? ["DiskFull", "StoreFails"] : lasting.includes(fault._tag) ? [fault._tag] : []

/** What a fault may have done. `isSure`: it struck while nothing else went on. */
export const struck = (belief: Belief, fault: Fault, isSure: boolean): Belief => {
  const after = { ...belief, troubles: or(belief.troubles, ...troublesOf(fault)) }
  if (fault._tag === "DiskFull") return spoilt(after)
  if (fault._tag === "ServiceKilled" || fault._tag === "ServiceEnded") return forgotten(after)
  if (fault._tag !== "MachineDies") return after
  const box = after.boxes[fault.slot]
  if (box === undefined) return after
  const had = box.may.includes("running") || box.may.includes("paused")
  if (!had && isSure) return after
  const kept = isSure ? box.may.filter((one) => one !== "running" && one !== "paused") : box.may
  const dead: Box = { ...box, may: or(kept, "failed") }
  return put(after, fault.slot, isSure ? withoutPrograms(dead) : withDoubt(dead))
}

const spoilt = (belief: Belief): Belief => {
  const { a, b } = belief.boxes
  return { ...belief, boxes: { a: a && { ...a, isSpoilt: true }, b: b && { ...b, isSpoilt: true } } }
}

/** A kill or an end that could not be recorded while its service lived is not known to the next one, which finishes a start that it finds begun. */
const forgotten = (belief: Belief): Belief => {
  const { a, b } = belief.boxes
  const isUnrecorded = belief.troubles.includes("StoreFails")
  const forget = (box: Box | undefined): Box | undefined => {
    if (box?.isDying === true) return { ...box, may: all, isRenewed: true }
    return isUnrecorded && box?.may.includes("failed") ? { ...box, may: or(box.may, "running") } : box
  }
  return { ...belief, boxes: { a: forget(a), b: forget(b) } }
}

/** Nothing goes wrong any more. */
export const healed = (belief: Belief): Belief => ({ ...belief, troubles: [] })
