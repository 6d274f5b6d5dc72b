/**
 * What an answer says: which of them may be given at all by what is believed,
 * and what is believed after them.
 */
import type { SandboxError } from "../domain/Errors.ts"
import type { SandboxInfo } from "../domain/Sandbox.ts"
import { decide, type Command as LifeCommand } from "../domain/Status.ts"
import type { Call, Fault, Of } from "./LifeCommands.ts"
import {
  all,
  type Box,
  endOf,
  fresh,
  mapPrograms,
  mayLive,
  only,
  or,
  type Program,
  type Standing,
  withDoubt,
  withoutEarlier,
  withoutPrograms
} from "./LifeModel.ts"
import type { Now } from "./LifeWorld.ts"

/** What came of a call. */
export type Answer =
  | { readonly _tag: "Done"; readonly info?: SandboxInfo | undefined; readonly text?: string | undefined }
  | { readonly _tag: "Failed"; readonly error: SandboxError }
  /** None in time. */
  | { readonly _tag: "Late" }
  /** Its caller gave it up before there was one. */
  | { readonly _tag: "GivenUp" }

/** A call as it went. */
export interface Went {
  readonly answer: Answer
  /** The number of the program that it starts, if it does. */
  readonly number: number
  /** All that goes wrong, or went wrong in the middle of it. */
  readonly troubles: ReadonlyArray<Fault["_tag"]>
  readonly before: Now
  readonly after: Now
  readonly unitMillis: number
}

/** What is believed of the sandbox after a call, and the promise that the answer breaks, if it does. */
export interface Judged {
  readonly box: Box | undefined
  readonly broken?: string | undefined
}

/** Takes an answer in. */
export const judge = (box: Box | undefined, call: Call, went: Went): Judged => {
  if (call._tag === "Create") return create(box, call, went)
  if (box === undefined) return { box }
  switch (call._tag) {
    case "Change":
      return change(box, call.command, went)
    case "SetTtl":
      return setTtl(box, call, went)
    default:
      return inMachine(box, call, went)
  }
}

const say = (error: SandboxError) => `${error._tag}: ${error.message} (${error.outcome})`

const create = (box: Box | undefined, call: Of<"Create">, went: Went): Judged => {
  const { answer, troubles } = went
  const isFree = box === undefined || box.may.includes("killed")
  switch (answer._tag) {
    case "Done":
      if (!isFree) return { box, broken: "a name that is taken was given again" }
      return withTtl({ ...fresh(call), may: ["running"] }, call.ttl, went)
    case "GivenUp":
      if (!isFree) return { box }
      return {
        box: {
          ...fresh(call),
          may: troubles.includes("ServiceKilled") ? all : ["killed"],
          isDying: troubles.includes("StoreFails")
        }
      }
    case "Late":
      return { box: isFree ? fresh(call) : box, broken: "create did not end" }
    case "Failed": {
      if (answer.error._tag === "Conflict") {
        return mayLive(box) || troubles.includes("StoreFails")
          ? { box }
          : { box, broken: `a name that is free was refused: ${say(answer.error)}` }
      }
      const ttlMillis = call.ttl === null ? Number.POSITIVE_INFINITY : call.ttl.units * went.unitMillis
      const mayBeOver = went.after.elapsed - went.before.elapsed >= ttlMillis
      if (answer.error._tag === "NotFound" && call.ttl?.action === "kill" && mayBeOver) {
        return { box: isFree ? { ...fresh(call), may: ["killed"] } : box }
      }
      // What failed is taken back, which may not be recorded.
      return {
        box: isFree ? { ...fresh(call), isDying: troubles.includes("StoreFails") } : box,
        broken: troubles.length > 0 ? undefined : `create failed without a reason: ${say(answer.error)}`
      }
    }
  }
}

/** What may be true of a sandbox whose machine was, or may have been, replaced or ended. */
const settled = (box: Box, standing: Standing, info: SandboxInfo): Box => {
  const isSame = info.generation === box.generation && (standing === "running" || standing === "paused")
  const known = {
    ...box,
    id: info.id,
    may: [standing],
    generation: info.generation,
    isRenewed: false,
    isAdrift: false,
    ttl: isUsedUp(box, info) ? undefined : box.ttl
  }
  return isSame ? known : withoutEarlier(known)
}

/** Whether a time to live was due, and the sandbox came to where that leads before it was asked to go on from there. */
const isUsedUp = ({ may, ttl }: Box, { expiresAt }: SandboxInfo) =>
  expiresAt === undefined &&
  ttl !== undefined &&
  ttl !== "unknown" &&
  ttl.wasDue &&
  may.includes(endOf[ttl.action])

const targets: { readonly [C in LifeCommand]: Standing } = {
  start: "running",
  stop: "stopped",
  restart: "running",
  pause: "paused",
  resume: "running",
  kill: "killed"
}

const endsPrograms = (command: LifeCommand) => command !== "pause" && command !== "resume"

const change = (box: Box, command: LifeCommand, went: Went): Judged => {
  const { answer, troubles } = went
  const accepting = box.may.filter((standing) =>
    standing === "killed" ? command === "kill" : decide(command, standing) !== "refused"
  )
  switch (answer._tag) {
    case "Late":
    case "GivenUp":
      return { box: unsure(box, command), broken: `${command} did not end` }
    case "Done": {
      if (accepting.length === 0) return { box, broken: `${command} was done, of ${box.may}` }
      if (command === "kill" || answer.info === undefined) {
        return { box: withoutPrograms({ ...box, may: [targets[command]] }) }
      }
      const { info } = answer
      const isEarlier = info.generation < box.generation
      // The answer tells how it is now: what has died since is not where the command led.
      const hasDied = info.status === "failed" && troubles.includes("MachineDies")
      const isOther = info.status !== targets[command] && !hasDied
      const after = settled(box, targets[command], info)
      return {
        box: after,
        broken: isEarlier
          ? `${command} answered with generation ${info.generation} after ${box.generation}`
          : isOther
            ? `${command} answered that it is ${info.status}`
            : undefined
      }
    }
    case "Failed": {
      const { error } = answer
      if (error._tag === "NotFound") {
        // It may be the disk that is missing, and that is found when the next generation has begun.
        return box.may.includes("killed") || box.isDying
          ? { box: { ...box, isRenewed: box.isRenewed || box.isDying } }
          : { box, broken: `${command} of what was never killed: ${say(error)}` }
      }
      if (error._tag === "InvalidState") {
        const isWrong = accepting.length === box.may.length && troubles.length === 0
        return { box, broken: isWrong ? `${command} was refused of ${box.may}: ${say(error)}` : undefined }
      }
      if (command === "kill" && isUnhindered(troubles)) {
        const isTold = troubles.includes("StoreFails") && error.outcome !== "not-started"
        return {
          box: withoutPrograms({ ...box, may: ["killed"], isDying: true }),
          broken: isTold ? undefined : `kill failed without a reason: ${say(error)}`
        }
      }
      const isDying = box.isDying || (command === "kill" && troubles.includes("StoreFails"))
      // What did not reach a full disk is told when the disk is no more used.
      const isLoss = box.isSpoilt && (command === "stop" || command === "pause")
      return {
        box: { ...unsure(box, command), isDying },
        broken:
          isDying || isLoss || troubles.length > 0
            ? undefined
            : `${command} failed without a reason: ${say(error)}`
      }
    }
  }
}

/**
 * Whether nothing that goes wrong may keep a kill from its end: neither a store that fails, which may only keep it
 * from being recorded, nor an agent that hangs.
 */
export const isUnhindered = (troubles: ReadonlyArray<Fault["_tag"]>): boolean =>
  troubles.every((trouble) => !killMeets.includes(trouble))

const killMeets: ReadonlyArray<Fault["_tag"]> = ["HelperFails", "ServiceKilled", "ServiceEnded"]

/** After a change of which it is not known how far it came. */
const unsure = (box: Box, command: LifeCommand): Box => {
  const after = { ...box, may: or(box.may, targets[command], "failed"), isRenewed: true }
  return endsPrograms(command) ? withDoubt(after) : { ...after, isAdrift: true }
}

/** Takes in that a time to live was set: by the answer, and by nothing else, it is known when it ends. */
const withTtl = (box: Box, ttl: Of<"SetTtl">["ttl"], went: Went): Judged => {
  const { answer, before, after, unitMillis } = went
  const info = answer._tag === "Done" ? answer.info : undefined
  if (info === undefined) return { box: { ...box, ttl: "unknown" } }
  const known = { ...box, id: info.id, generation: info.generation, isRenewed: false }
  if (ttl === null) {
    const kept = info.expiresAt === undefined ? undefined : `it still ends at ${info.expiresAt}`
    return { box: { ...known, ttl: undefined }, broken: kept }
  }
  const millis = ttl.units * unitMillis
  // The clock may have been set at any moment in between.
  const passed = after.elapsed - before.elapsed
  const earliest = Math.min(before.wall, after.wall - passed) + millis
  // It may have ended and been carried out before the answer.
  if (info.expiresAt === undefined && after.wall >= earliest) return { box: { ...known, ttl: "unknown" } }
  const at = info.expiresAt ?? Number.NaN
  const latest = Math.max(before.wall + passed, after.wall) + millis
  return {
    box: { ...known, ttl: { at, action: ttl.action, wasDue: after.wall >= at } },
    broken: at >= earliest && at <= latest ? undefined : `its time to live of ${millis} ms ends at ${at}`
  }
}

const setTtl = (box: Box, call: Of<"SetTtl">, went: Went): Judged => {
  const { answer, troubles } = went
  if (answer._tag === "Done") {
    return mayLive(box) ? withTtl(box, call.ttl, went) : { box, broken: "a time to live of what was killed" }
  }
  if (answer._tag !== "Failed")
    return { box: { ...box, ttl: "unknown" }, broken: "setting a time to live did not end" }
  if (answer.error._tag === "NotFound" && box.may.includes("killed")) return { box }
  return {
    box: { ...box, ttl: "unknown" },
    broken: troubles.length > 0 ? undefined : `a time to live could not be set: ${say(answer.error)}`
  }
}

type InMachine = Exclude<Call, { readonly _tag: "Create" | "Change" | "SetTtl" }>

/** What is asked of a running machine. */
const inMachine = (box: Box, call: InMachine, went: Went): Judged => {
  const { answer, troubles } = went
  const isPossible = box.may.includes("running")
  // A program's time does not run while it is paused, so neither does the wait for its end.
  const mayWait = call._tag === "RunLong" && box.may.includes("paused")
  if (answer._tag === "Late") {
    return { box: unknown(box, call, went), broken: mayWait ? undefined : `${call._tag} did not end` }
  }
  if (answer._tag === "GivenUp") return { box: unknown(box, call, went) }
  if (answer._tag === "Done") {
    if (!isPossible) return { box, broken: `${call._tag} was done, of ${box.may}` }
    return done({ ...box, may: box.isRenewed ? box.may : ["running"] }, call, went)
  }
  const { error } = answer
  switch (error._tag) {
    case "NotFound":
      if (error.kind === "process") return { box }
      return box.may.includes("killed")
        ? { box }
        : { box, broken: `${call._tag} of what was never killed: ${say(error)}` }
    case "InvalidState": {
      const isWrong = only(box, "running") && troubles.length === 0
      return { box, broken: isWrong ? `${call._tag} was refused: ${say(error)}` : undefined }
    }
    default:
      return failed(box, call, error, went)
  }
}

const done = (box: Box, call: InMachine, went: Went): Judged => {
  const text = went.answer._tag === "Done" ? went.answer.text : undefined
  switch (call._tag) {
    case "Write":
      return { box: withFile(box, call.path, [call.text]) }
    case "Read": {
      if (box.isSpoilt) return { box }
      const may = box.files[call.path] ?? [null]
      return text !== undefined && may.includes(text)
        ? { box: withFile(box, call.path, [text]) }
        : { box, broken: `${call.path} holds ${text}, not ${may}` }
    }
    case "Echo":
      return { box, broken: text === call.text ? undefined : `echo ${call.text} answered ${text}` }
    case "Start":
      return { box: started(box, call, went, "yes") }
    case "RunLong":
      return { box, broken: "a program that never ends has ended well" }
    case "KillProgram":
      return { box: killed(box) }
    case "Fill":
      return { box: { ...box, isFull: true } }
  }
}

const failed = (box: Box, call: InMachine, error: SandboxError, went: Went): Judged => {
  const isExcused =
    went.troubles.length > 0 ||
    !only(box, "running") ||
    ((box.isFull || box.isSpoilt) && error._tag === "FileFailed")
  const broken = isExcused ? undefined : `${call._tag} failed without a reason: ${say(error)}`
  switch (call._tag) {
    case "Fill":
      return { box: { ...box, isFull: true } }
    case "RunLong":
      // That its limit has ended it is what was asked for.
      if (error._tag === "Timeout" && error.limit === "command")
        return { box: started(box, call, went, "no") }
      return { box: unknown(box, call, went), broken }
    case "Read": {
      if (error._tag !== "FileFailed" || error.reason !== "not-found") return { box, broken }
      const may = box.files[call.path] ?? [null]
      return may.includes(null) || box.isSpoilt
        ? { box: withFile(box, call.path, [null]) }
        : { box, broken: `${call.path} is not there, and should hold ${may}` }
    }
    default:
      return { box: error.outcome === "not-started" ? box : unknown(box, call, went), broken }
  }
}

/** After something in a machine of which it is not known whether it happened. */
const unknown = (box: Box, call: InMachine, { answer, ...went }: Went): Box => {
  switch (call._tag) {
    case "Write":
      return withFile(box, call.path, or(box.files[call.path] ?? [null], call.text))
    case "Start":
    case "RunLong": {
      // What its caller gave up shall end; but a caller that went with its service gave up nothing, and nothing ends while it stands still.
      const isGivenUp = answer._tag === "GivenUp" || call._tag === "RunLong"
      const hasNext = went.troubles.includes("ServiceKilled") || went.troubles.includes("ServiceEnded")
      const lives = hasNext || !isGivenUp || box.may.includes("paused")
      return started(box, call, { answer, ...went }, lives ? "maybe" : "no")
    }
    case "KillProgram":
      return withDoubt(box)
    case "Fill":
      return { ...box, isFull: true }
    case "Read":
    case "Echo":
      return box
  }
}

const started = (
  box: Box,
  call: Of<"Start"> | Of<"RunLong">,
  { number, before, after, unitMillis }: Went,
  runs: Program["runs"]
): Box => {
  const limit = call._tag === "RunLong" ? 1 : call.limit
  const left = limit === null ? undefined : limit * unitMillis
  const program: Program = {
    number,
    shape: call.shape,
    generation: box.isRenewed ? undefined : box.generation,
    runs,
    left: left === undefined ? undefined : { atLeast: left - (after.elapsed - before.elapsed), atMost: left }
  }
  return { ...box, programs: [...box.programs, program] }
}

/** The program that was started last has ended. */
const killed = (box: Box): Box => {
  const last = box.programs.at(-1)?.number
  return mapPrograms(box, (program) => (program.number === last ? { ...program, runs: "no" } : program))
}

const withFile = (box: Box, path: string, may: ReadonlyArray<string | null>): Box => ({
  ...box,
  files: { ...box.files, [path]: may }
})
