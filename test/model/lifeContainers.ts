/**
 * The world of real containers for random programs of a sandbox's life: a
 * service that is a process of its own, and what the kernel and the disk show
 * of the sandboxes in it.
 *
 * A world of limits of some hundred milliseconds in real time. What lasts ends
 * by itself after a while here: a call to an agent that never answers would
 * take half a minute.
 */
import { Arbitrary, Context, Effect, Fiber, Layer, Schedule } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import type { SandboxId } from "../../src/domain/Ids.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { LifeSystem } from "../../src/testing.ts"
import { aliceToken } from "../rpc/support.ts"
import { descendants } from "../service/containers.ts"
import type { Ground } from "./lifeGround.ts"
import { agentOf, census, killAll, unlessGone } from "./lifeKernel.ts"

const millisNow = () => performance.now()

/** How long an agent or a helper stands still. */
const hangMillis = 1_000

/** For how long the store is held, for each write that shall meet it: the second is later than a service has patience for. */
const heldMillis = 1_500

/** A fault that this world has for another that it has not: nothing can be cut on the way to a machine, and helpers are killed or stand still. */
const faultFor = (fault: LifeSystem.Fault): LifeSystem.Fault => {
  switch (fault._tag) {
    case "WayCut":
      return { _tag: "AgentHangs", slot: fault.slot }
    case "HelperFails":
      return { ...fault, how: fault.how === "hangs" ? "hangs" : "dies" }
    default:
      return fault
  }
}

/** The steps that this world can take. */
export const steps = Arbitrary.map(LifeSystem.steps, (step): LifeSystem.Command => {
  switch (step._tag) {
    case "During":
      return { ...step, fault: faultFor(step.fault) }
    case "HelperFails":
      // Helpers are met only while they work; of a machine that is left alone there is only itself.
      return { _tag: "MachineDies", slot: step.slot }
    case "WayCut":
      return faultFor(step)
    default:
      return step
  }
})

/** How long a call may take, and how long anything may be out of order, in milliseconds. */
export interface Bounds {
  readonly callMillis: number
  readonly orderMillis: number
}

/** A world on a ground that nothing is on. */
export const make = Effect.fnUntraced(function* (
  ground: Ground,
  { callMillis, orderMillis }: Bounds = { callMillis: 40_000, orderMillis: 20_000 }
) {
  const client = yield* Layer.build(
    SandboxesClient.layer({ url: `http://127.0.0.1:${ground.port}`, token: aliceToken })
  )
  const sandboxes = Context.get(client, Sandboxes)
  const all = () => census(ground.base(), ground.instance())
  const began = millisNow()

  const stopped = new Set<number>()
  const goOn = (pid: number) => {
    if (stopped.delete(pid)) unlessGone(() => process.kill(pid, "SIGCONT"))
  }

  // What a failed program left is removed without asking anybody, so that the next begins with nothing.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => (all().length === 0 ? heal : ground.abandon)).pipe(
      Effect.catchCause(() => ground.abandon)
    )
  )

  const heal = Effect.gen(function* () {
    for (const pid of stopped) goOn(pid)
    yield* Effect.andThen(ground.unlockStore, ground.freeDisk)
    yield* ground.setLater(0)
  })
  /** A machine's death is a thing of the past only when the service has heard of it. */
  const die = (id: SandboxId) =>
    Effect.gen(function* () {
      const before = yield* Effect.option(sandboxes.get(id))
      killAll(ground.instance(), id)
      const heard = Effect.gen(function* () {
        if (before._tag === "None") return true
        const { status, generation } = yield* sandboxes.get(id)
        return (status !== "running" && status !== "paused") || generation !== before.value.generation
      })
      yield* Effect.repeat(heard, { schedule: Schedule.spaced("20 millis"), until: (is) => is })
    }).pipe(Effect.timeout("5 seconds"), Effect.ignore)

  const hang = Effect.fnUntraced(function* (pid: number | undefined) {
    if (pid === undefined || unlessGone(() => process.kill(pid, "SIGSTOP")) === undefined) return
    stopped.add(pid)
    yield* Effect.forkDetach(
      Effect.andThen(
        Effect.sleep(hangMillis),
        Effect.sync(() => goOn(pid))
      )
    )
  })
  const helpers = () =>
    descendants(ground.pid() ?? -1).filter(({ command }) => /^\S*(fiberbox-host|runc) /.test(command))

  const lock = (writes: number | null) =>
    Effect.gen(function* () {
      yield* ground.lockStore
      if (writes === null) return
      yield* Effect.forkDetach(Effect.andThen(Effect.sleep(writes * heldMillis), ground.unlockStore))
    })

  const strike = (fault: LifeSystem.Fault, id: SandboxId | undefined): Effect.Effect<void> => {
    switch (fault._tag) {
      case "ServiceKilled":
        return ground.restart(true)
      case "ServiceEnded":
        return ground.restart(false)
      case "MachineDies":
        return id === undefined ? Effect.void : die(id)
      case "AgentHangs":
        return id === undefined ? Effect.void : hang(agentOf(ground.instance(), id))
      case "HelperFails":
        return Effect.suspend(() =>
          Effect.forEach(
            helpers(),
            ({ pid }) =>
              fault.how === "hangs"
                ? hang(pid)
                : Effect.sync(() => unlessGone(() => process.kill(pid, "SIGKILL"))),
            { discard: true }
          )
        )
      case "ClockJumps":
        return ground.setLater(ground.later() + (fault.to === "an hour on" ? 3_600_000 : -86_400_000))
      case "StoreFails":
        return lock(fault.writes)
      case "DiskFull":
        return ground.fillDisk
      case "WayCut":
        return Effect.void
    }
  }

  const asked = <A, E>(fiber: Fiber.Fiber<A, E>) => {
    const exit = (millis: number) =>
      Effect.map(Effect.timeoutOption(Fiber.await(fiber), millis), (exit) =>
        exit._tag === "Some" ? exit.value : undefined
      )
    return {
      // Close together at first, since most calls are short, and up to what it takes to make a sandbox.
      some: (moment: number) => Effect.sleep((moment * moment) / 15),
      answer: exit,
      giveUp: (millis: number) =>
        Effect.suspend(() => {
          fiber.interruptUnsafe()
          return exit(millis)
        })
    }
  }

  const made: LifeSystem.World = {
    unitMillis: 400,
    callMillis,
    orderMillis,
    ask: (call) => Effect.map(Effect.forkDetach(call(sandboxes)), asked),
    strike,
    heal,
    wait: (millis) => Effect.sleep(millis),
    now: Effect.sync(() => ({ elapsed: millisNow() - began, wall: Date.now() + ground.later() })),
    census: Effect.sync(all)
  }
  return made
})
