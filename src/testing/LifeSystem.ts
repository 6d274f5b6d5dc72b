/**
 * Carries out random programs of a sandbox's life under faults, and compares
 * what is answered and what is there with {@link LifeModel}.
 *
 * ```ts
 * const result = yield* ModelRunner.check(LifeSystem.spec(makeWorld), { runs: 100 })
 * const problem = ModelRunner.report(result, "REPLAY")
 * ```
 *
 * `makeWorld` gives a fresh {@link World} for every program: a service over the
 * backend that is tried, on a clock, with records, that outlive the service.
 */
import { Arbitrary, Cause, Effect, Exit, Option, type Scope } from "effect"
import type { SandboxError } from "../domain/Errors.ts"
import type { SandboxId } from "../domain/Ids.ts"
import type { ProcessInfo } from "../domain/Process.ts"
import type { SandboxInfo } from "../domain/Sandbox.ts"
import type { CreateOptions, Sandboxes } from "../services/Sandboxes.ts"
import { type Answer, isUnhindered, judge } from "./LifeAnswers.ts"
import { audit, markOf, type Sighting } from "./LifeAudit.ts"
import {
  type Call,
  type Command,
  type Fault,
  type Of,
  type Shape,
  type Slot,
  Step,
  slotOf
} from "./LifeCommands.ts"
import {
  type Belief,
  type Box,
  elapse,
  healed,
  initial,
  mayLive,
  only,
  put,
  struck,
  unanswered
} from "./LifeModel.ts"
import type { Asked, World } from "./LifeWorld.ts"
import type * as ModelRunner from "./ModelRunner.ts"

export type { Command, Fault } from "./LifeCommands.ts"
export type { Asked, Found, Now, World } from "./LifeWorld.ts"

/** A world, and what is believed of it. */
interface System {
  readonly world: World
  belief: Belief
  /** Programs that were asked for so far. */
  programs: number
}

type Service = Sandboxes["Service"]
type Carried = { readonly info?: SandboxInfo; readonly text?: string }

/** What a step answers when no promise was broken. */
const asPromised = "as promised"

const say = (broken: ReadonlyArray<string>): string => (broken.length === 0 ? asPromised : broken.join("; "))

// --- calls ---

const argvOf = (shape: Shape, number: number): readonly [string, ...Array<string>] => {
  const mark = markOf(number)
  switch (shape) {
    case "alone":
      return ["sleep", mark]
    case "pair":
      return ["sh", "-c", `sleep ${mark} & sleep ${mark}`]
    case "leaves a child":
      return ["sh", "-c", `sleep ${mark} & exit 0`]
  }
}

const processIdOf = (number: number) => `program-${number}`

/** Small, so that it is soon full. */
const limits = { diskBytes: 16 * 1024 * 1024, inodes: 400 }
const manyFiles = 'i=0; while [ $i -lt 500 ]; do echo > "n$i" || exit 1; i=$((i+1)); done'
const mebibyte = new Uint8Array(1024 * 1024)

const create = (call: Of<"Create">, unitMillis: number): CreateOptions => ({
  name: call.slot,
  limits,
  ...(call.restarts && {
    restartPolicy: { _tag: "Always", initialMillis: unitMillis, factor: 1, maxMillis: unitMillis }
  }),
  ...(call.ttl !== null && { ttl: { afterMillis: call.ttl.units * unitMillis, action: call.ttl.action } })
})

/** The call itself, as an owner would make it. */
const carry = (call: Call, key: string, number: number, last: number, { unitMillis }: World) =>
  Effect.fnUntraced(function* (sandboxes: Service): Effect.fn.Return<Carried, SandboxError> {
    if (call._tag === "Create") {
      yield* sandboxes.createDetached(create(call, unitMillis))
      return {}
    }
    if (call._tag === "Change" && call.command === "kill") {
      yield* sandboxes.kill(key)
      return {}
    }
    const sandbox = yield* sandboxes.connect(key)
    switch (call._tag) {
      case "Change":
        if (call.command === "stop") return { info: yield* sandbox.stop({ graceMillis: 100 }) }
        if (call.command === "kill") return {}
        return { info: yield* sandbox[call.command] }
      case "SetTtl": {
        const ttl = call.ttl && { afterMillis: call.ttl.units * unitMillis, action: call.ttl.action }
        return { info: yield* sandbox.setExpiry({ ttl }) }
      }
      case "Write":
        yield* sandbox.files.write(`/home/user/${call.path}`, call.text)
        return {}
      case "Read":
        return { text: yield* sandbox.files.readText(`/home/user/${call.path}`) }
      case "Echo":
        return { text: (yield* sandbox.process.run(["echo", "-n", call.text])).stdout }
      case "Start": {
        const timeoutMillis = call.limit === null ? undefined : call.limit * unitMillis
        yield* sandbox.process.start(argvOf(call.shape, number), {
          processId: processIdOf(number),
          ...(timeoutMillis !== undefined && { timeoutMillis })
        })
        return {}
      }
      case "RunLong":
        yield* sandbox.process.run(argvOf(call.shape, number), {
          processId: processIdOf(number),
          timeoutMillis: unitMillis
        })
        return {}
      case "KillProgram":
        yield* (yield* sandbox.process.connect(processIdOf(last))).kill
        return {}
      case "Fill":
        if (call.what === "files") yield* sandbox.commands.run(manyFiles)
        else for (let n = 0; n < 20; n++) yield* sandbox.files.write(`/home/user/big${n}`, mebibyte)
        return {}
    }
  })

/** What a caller makes of an exit. A defect is no answer: it is a divergence. */
const answerOf = (exit: Exit.Exit<Carried, SandboxError> | undefined): Effect.Effect<Answer> => {
  if (exit === undefined) return Effect.succeed({ _tag: "Late" })
  if (Exit.isSuccess(exit)) return Effect.succeed({ _tag: "Done", ...exit.value })
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some"
    ? Effect.succeed({ _tag: "Failed", error: error.value })
    : Effect.die(Cause.squash(exit.cause))
}

/** How long a call may take: a program that is run to its limit has that as well. */
const boundOf = (call: Call, world: World) =>
  world.callMillis + (call._tag === "RunLong" ? world.unitMillis : 0)

const idOf = (belief: Belief, about: Call | Fault): SandboxId | undefined => {
  const slot = slotOf(about)
  return slot === undefined ? undefined : belief.boxes[slot]?.id
}

/** Asks, lets `meanwhile` happen, and takes the answer in. */
const call = Effect.fnUntraced(function* (
  system: System,
  call: Call,
  meanwhile: (asked: Asked<Carried>) => Effect.Effect<Answer | undefined>,
  fault?: Fault
) {
  const { world } = system
  const { slot } = call
  const before = yield* world.now
  system.belief = elapse(system.belief, before)
  const box = system.belief.boxes[slot]
  // Without a sandbox there is nobody to ask, and of one that may be there or not nobody knows which is asked.
  const isVain = call._tag === "Create" ? mayLive(box) && box.may.includes("killed") : box === undefined
  if (isVain) return asPromised
  const last = box?.programs.at(-1)?.number ?? 0
  const number = ++system.programs
  const asked = yield* world.ask(carry(call, box?.id ?? slot, number, last, world))
  const early = yield* meanwhile(asked)
  if (fault !== undefined) system.belief = struck(system.belief, fault, false)
  let answer = early ?? (yield* answerOf(yield* asked.answer(boundOf(call, world))))
  if (call._tag === "Create" && answer._tag === "Done") {
    // Asked for afterwards, so that whoever gives up a creation gives up nothing else.
    const info = yield* Effect.option(question(world, (sandboxes) => sandboxes.get(slot)))
    answer = { ...answer, info: Option.getOrUndefined(info) }
  }
  if (answer._tag === "Late") yield* asked.giveUp(world.callMillis)
  const after = yield* world.now
  system.belief = elapse(system.belief, after)
  const troubles = fault === undefined ? system.belief.troubles : [...system.belief.troubles, fault._tag]
  const judged = judge(system.belief.boxes[slot], call, {
    answer,
    number,
    troubles,
    before,
    after,
    unitMillis: world.unitMillis
  })
  const mayOwe = troubles.includes("AgentHangs") && (answer._tag !== "Done" || call._tag === "KillProgram")
  const owing = judged.box !== undefined && mayOwe ? unanswered(judged.box, after) : judged.box
  const believed = owing && { ...owing, isSpoilt: owing.isSpoilt || troubles.includes("DiskFull") }
  system.belief = put(system.belief, slot, believed)
  // It may have struck before the answer or after it.
  if (fault !== undefined) system.belief = elapse(struck(system.belief, fault, false), after)
  if (judged.broken !== undefined) return `${slot}: ${judged.broken}`
  const isKill = call._tag === "Change" && call.command === "kill" && isUnhindered(troubles)
  return isKill && box?.id !== undefined ? yield* isGone(world, slot, box.id) : asPromised
})

/** Whatever a kill answered, and whether it is recorded or not: no program runs any more. */
const isGone = Effect.fnUntraced(function* (world: World, slot: Slot, id: SandboxId) {
  const found = (yield* world.census).find((one) => one.id === id)
  return found?.machine === undefined ? asPromised : `${slot}: its machine runs after it was killed`
})

const strike = Effect.fnUntraced(function* (system: System, fault: Fault) {
  const { world } = system
  system.belief = struck(elapse(system.belief, yield* world.now), fault, true)
  yield* world.strike(fault, idOf(system.belief, fault))
  return asPromised
})

const during = (system: System, step: Of<"During">) =>
  call(
    system,
    step.call,
    Effect.fnUntraced(function* (asked) {
      yield* asked.some(step.moment)
      yield* system.world.strike(step.fault, idOf(system.belief, step.fault))
      return undefined
    }),
    step.fault
  )

const givenUp = (system: System, step: Of<"GivenUp">) =>
  call(
    system,
    step.call,
    Effect.fnUntraced(function* (asked) {
      yield* asked.some(step.moment)
      const exit = yield* asked.giveUp(system.world.callMillis)
      return exit !== undefined && Exit.hasInterrupts(exit) ? { _tag: "GivenUp" } : yield* answerOf(exit)
    })
  )

const heal = Effect.fnUntraced(function* (system: System) {
  // What was due by a wrong clock may have happened before it is set right.
  system.belief = elapse(system.belief, yield* system.world.now)
  yield* system.world.heal
  system.belief = healed(system.belief)
  return asPromised
})

// --- looking ---

/** The answer to a question of the audit's own, or why there is none. */
const question = Effect.fnUntraced(function* <A>(
  world: World,
  ask: (sandboxes: Service) => Effect.Effect<A, SandboxError>
): Effect.fn.Return<A, string> {
  const exit = yield* Effect.flatMap(world.ask(ask), (asked) => asked.answer(world.callMillis))
  if (exit === undefined) return yield* Effect.fail("a question was not answered in time")
  return yield* Effect.catchCause(exit, (cause) => Effect.fail(`a question failed: ${Cause.squash(cause)}`))
})

const see = Effect.fnUntraced(function* (world: World, belief: Belief): Effect.fn.Return<Sighting, string> {
  const { sandboxes: listed } = yield* question(world, (sandboxes) => sandboxes.list({ limit: 1000 }))
  const others = new Map<SandboxId, SandboxInfo | undefined>()
  const processes = new Map<SandboxId, ReadonlyArray<ProcessInfo>>()
  for (const box of [belief.boxes.a, belief.boxes.b]) {
    const id = box?.id
    if (id === undefined || listed.some((info) => info.id === id)) continue
    others.set(
      id,
      yield* question(world, (sandboxes) =>
        Effect.catchTag(sandboxes.get(id), "NotFound", () => Effect.succeed(undefined))
      )
    )
  }
  const unanswered: Array<string> = []
  for (const { id, status } of listed) {
    if (status !== "running") continue
    const answer = yield* Effect.result(
      question(world, (sandboxes) => Effect.flatMap(sandboxes.connect(id), (sandbox) => sandbox.process.list))
    )
    if (answer._tag === "Success") processes.set(id, answer.success)
    else unanswered.push(answer.failure)
  }
  return { now: yield* world.now, listed, others, processes, unanswered, found: yield* world.census }
})

/** Looks until all is in order, for as long as that may take. */
const inOrder = Effect.fnUntraced(function* (system: System) {
  const { world } = system
  const began = (yield* world.now).elapsed
  for (let pause = world.orderMillis / 1000; ; pause = Math.min(pause * 2, world.orderMillis / 4)) {
    system.belief = elapse(system.belief, yield* world.now)
    const look = yield* Effect.result(see(world, system.belief))
    if (look._tag === "Success") {
      system.belief = elapse(system.belief, look.success.now)
      const { belief, broken, isForGood } = audit(system.belief, look.success)
      if (broken.length === 0) {
        system.belief = belief
        return asPromised
      }
      if (isForGood || (yield* world.now).elapsed - began > world.orderMillis) return say(broken)
    } else if ((yield* world.now).elapsed - began > world.orderMillis) return look.failure
    yield* world.wait(pause)
  }
})

/** All limits have passed, every file that was written is there, and nothing is left when all sandboxes are killed. */
const end = Effect.fnUntraced(function* (system: System) {
  const { world } = system
  const answers = [yield* heal(system), yield* inOrder(system)]
  yield* world.wait(5 * world.unitMillis)
  answers.push(yield* inOrder(system))
  for (const slot of ["a", "b"] as const) answers.push(...(yield* goodbye(system, slot)))
  answers.push(yield* inOrder(system))
  const left = yield* world.census
  if (left.length > 0) answers.push(`left: ${left.map(({ id }) => id)}`)
  return say(answers.filter((answer) => answer !== asPromised))
})

/** Brings a sandbox to run where that is possible, reads its files, and kills it. */
const goodbye = Effect.fnUntraced(function* (system: System, slot: Slot) {
  const answers: Array<string> = []
  const ask = Effect.fnUntraced(function* (asked: Call) {
    const answer = yield* call(system, asked, () => Effect.succeed(undefined))
    if (answer !== asPromised) answers.push(answer)
  })
  const box = (): Box | undefined => system.belief.boxes[slot]
  const stands = (standing: "stopped" | "failed" | "paused") => {
    const one = box()
    return one !== undefined && only(one, standing)
  }
  if (stands("stopped") || stands("failed")) yield* ask({ _tag: "Change", slot, command: "start" })
  if (stands("paused")) yield* ask({ _tag: "Change", slot, command: "resume" })
  if (!mayLive(box())) return answers
  for (const path of ["f", "g"] as const) yield* ask({ _tag: "Read", slot, path })
  yield* ask({ _tag: "Change", slot, command: "kill" })
  return answers
})

const run = Effect.fnUntraced(function* (system: System, command: Command) {
  const nothing = () => Effect.succeed(undefined)
  const answer = yield* Effect.suspend((): Effect.Effect<string> => {
    switch (command._tag) {
      case "During":
        return during(system, command)
      case "GivenUp":
        return givenUp(system, command)
      case "Heal":
        return heal(system)
      case "Wait":
        return Effect.as(system.world.wait(command.units * system.world.unitMillis), asPromised)
      case "End":
        return end(system)
      case "ServiceKilled":
      case "ServiceEnded":
      case "MachineDies":
      case "WayCut":
      case "AgentHangs":
      case "HelperFails":
      case "StoreFails":
      case "DiskFull":
      case "ClockJumps":
        return strike(system, command)
      default:
        return call(system, command, nothing)
    }
  })
  // While something lasts that is wrong, nothing needs to be in order.
  if (answer !== asPromised || system.belief.troubles.length > 0) return answer
  return yield* inOrder(system)
})

/** All steps that there are. */
export const steps: Arbitrary.Arbitrary<Command> = Arbitrary.schema(Step)

/** What random programs are made of. */
export interface SpecOptions {
  /**
   * The steps, for a world that cannot take all. Map what it cannot take to something else: a step that is filtered out
   * takes the whole program with it that it was drawn for, so that hardly any but the empty one are left. Default: {@link steps}.
   */
  readonly steps?: Arbitrary.Arbitrary<Command> | undefined
}

/** The random programs of a sandbox's life in worlds that `make` gives, one for each program. */
export const spec = <E, R>(
  make: Effect.Effect<World, E, R | Scope.Scope>,
  { steps: command = steps }: SpecOptions = {}
): ModelRunner.Spec<Command, undefined, System, string, E, R> => ({
  command,
  last: { _tag: "End" },
  initial: undefined,
  predict: () => ({ model: undefined, outcome: asPromised }),
  make: Effect.gen(function* () {
    const system: System = { world: yield* make, belief: initial, programs: 0 }
    const first = { _tag: "Create", slot: "a", restarts: false, ttl: null } as const
    yield* call(system, first, () => Effect.succeed(undefined))
    return system
  }),
  run
})
