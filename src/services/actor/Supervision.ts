/**
 * What becomes of a sandbox whose machine is no more, could not be made or
 * cannot be reached: its restart policy decides, one attempt after the other.
 */
import { Cause, Effect, Fiber, FiberHandle, Metric, Option, Result } from "effect"
import type { EventBody } from "../../domain/Event.ts"
import { Generation } from "../../domain/Ids.ts"
import { restartDelay } from "../../domain/Sandbox.ts"
import type { Machine, MachineError, MachineExit } from "../Machine.ts"
import * as ServiceMetrics from "../ServiceMetrics.ts"
import { backoffMillis } from "./backoff.ts"
import type { Journal } from "./Journal.ts"
import type { MachineSlot } from "./MachineSlot.ts"
import { reasonOf, type Transition } from "./Transition.ts"

/** How often a machine that may be there is tried to be adopted before it is ended. */
const adoptions = 5

/** How long a machine that has not answered in time has to answer anything at all, in milliseconds. */
const lookMillis = 5_000

/** The parts of a sandbox's life that supervision puts together. */
export interface Parts {
  /** Runs a transition after those before it. */
  readonly transit: (body: Transition) => Effect.Effect<Fiber.Fiber<unknown, unknown>>
  /** From `provisioning` to `running`. */
  readonly provision: Transition
  /** Takes over the running machine, and lets it stand still if it did. */
  readonly adopt: (isPaused: boolean) => Transition
  /** Ends the machine, wherever it is known. */
  readonly end: Transition
  /** Ends the machine, now or as soon as that is possible. */
  readonly endSomeTime: Effect.Effect<void>
  /** Whether what is interrupted now goes on elsewhere, or not at all. */
  readonly isOver: () => boolean
}

/** The supervision of one sandbox. */
export interface Supervision {
  /** This machine of the sandbox has ended. */
  readonly died: (machine: Machine, exit: MachineExit) => Effect.Effect<void>
  /**
   * The running machine did not answer something, with which so many milliseconds were spent. It is looked at, and when it
   * answers nothing at all, or `cannotEnd` a program, it is of no use to anybody: it is ended from outside, and the policy
   * acts. Tells whether the machine has ended; one that stands still because it is paused has not.
   */
  readonly unanswered: (millis: number, cannotEnd?: boolean) => Effect.Effect<boolean>
  /** Notes that the sandbox has failed, and when its policy, if it may, starts it again. */
  readonly failed: (reason: string, options: Failure) => Effect.Effect<void>
  /** Adopts the machine. One that ended has failed; one that cannot be reached is lost, and ended when that does not pass. `failures` of it came before. */
  readonly takeOver: (isPaused: boolean, failures: number) => Transition
  /** Goes on with the policy of a sandbox that has failed where it was: an attempt that was waited for is still to be made. */
  readonly takeUpFailed: Effect.Effect<void>
  /** Tries nothing more by itself. */
  readonly giveUp: Effect.Effect<void>
}

/** How a sandbox has failed. */
export interface Failure {
  /** Whether the policy may act. */
  readonly restart: boolean
  /** How long its machine is known to have run, in milliseconds. */
  readonly ranFor?: number
  /** Events before that of the status. */
  readonly before?: ReadonlyArray<EventBody>
}

/** Supervises the sandbox of a journal. */
export const makeSupervision = Effect.fnUntraced(function* (
  journal: Journal,
  slot: MachineSlot,
  { adopt, end, endSomeTime, isOver, provision, transit }: Parts
) {
  /** What is tried after a while: a restart, an adoption. */
  const later = yield* FiberHandle.make()
  const status = () => journal.current().status

  const died: Supervision["died"] = (machine, exit) =>
    Effect.asVoid(
      transit(
        Effect.suspend(() => {
          if (slot.machine() !== machine) return Effect.void
          const ranFor = slot.heldMillis()
          return Effect.andThen(endSomeTime, machineDied(exit.reason, ranFor))
        })
      )
    )

  const unanswered: Supervision["unanswered"] = Effect.fnUntraced(function* (millis, cannotEnd = false) {
    const machine = slot.machine()
    if (machine === undefined) return false
    // In turn, so that it is not paused meanwhile.
    const looked = yield* transit(
      Effect.suspend(() =>
        slot.machine() === machine && status() === "running"
          ? lookAt(machine, millis, cannotEnd)
          : Effect.void
      )
    )
    yield* Fiber.await(looked)
    return slot.machine() !== machine
  })

  const lookAt = Effect.fnUntraced(function* (machine: Machine, millis: number, cannotEnd: boolean) {
    const answer = yield* Effect.timeoutOption(Effect.result(machine.processes.list), lookMillis)
    const isMute =
      Option.isNone(answer) || (Result.isFailure(answer.value) && isTimeout(answer.value.failure))
    if (!isMute && !cannotEnd) return
    const reason = isMute
      ? `the machine did not answer within ${millis} ms`
      : "the machine could not end a program"
    const ranFor = slot.heldMillis()
    yield* slot.giveUp(reason)
    yield* Effect.andThen(endSomeTime, machineDied(reason, ranFor))
  })

  const machineDied = (reason: string, ranFor: number) =>
    Effect.andThen(
      failed(reason, { restart: true, ranFor, before: [{ _tag: "MachineDied", reason }] }),
      Metric.update(ServiceMetrics.machineDeaths, 1)
    )

  const failed: Supervision["failed"] = (reason, options) =>
    Effect.suspend(() => {
      const { spec, restarts } = journal.current()
      const policy = spec.restartPolicy
      const ranWell = policy._tag !== "Never" && (options.ranFor ?? 0) >= policy.maxMillis
      const made = ranWell ? 0 : restarts
      const delayMillis = options.restart ? restartDelay(policy, made + 1) : undefined
      const noted = journal.note("failed", {
        reason,
        change: { restarts: made },
        before: options.before,
        after: delayMillis === undefined ? [] : [scheduled(made + 1, delayMillis)]
      })
      return delayMillis === undefined ? noted : Effect.andThen(noted, restartIn(delayMillis))
    })

  const restartIn = (delayMillis: number, failures = 0): Effect.Effect<void> =>
    Effect.asVoid(FiberHandle.run(later, Effect.delay(transit(again(failures)), delayMillis)))

  /** The next attempt of the policy. One that cannot be recorded has not been made. */
  const again = (failures: number): Transition =>
    Effect.gen(function* () {
      if (status() !== "failed") return
      const { generation, restarts } = journal.current()
      const change = { generation: Generation.make(generation + 1), restarts: restarts + 1 }
      const begun = yield* Effect.result(journal.become("provisioning", { change }))
      if (Result.isFailure(begun)) return yield* restartIn(backoffMillis(failures + 1, 1_000), failures + 1)
      yield* Metric.update(ServiceMetrics.restarts, 1)
      yield* provision
    })

  const takeOver: Supervision["takeOver"] = (isPaused, failures) =>
    Effect.catchCause(adopt(isPaused), (cause) =>
      Effect.gen(function* () {
        if (isOver()) return
        yield* slot.empty(Effect.void)
        const error = Option.getOrUndefined(Cause.findErrorOption(cause))
        if (error?._tag === "NotFound") {
          yield* endSomeTime
          return yield* machineDied("the machine ended while the service was away", 0)
        }
        const reason = reasonOf(cause)
        if (failures + 1 >= adoptions) {
          const ended = yield* Effect.exit(end)
          if (ended._tag === "Success") return yield* machineDied(reason, 0)
        }
        if (failures === 0) {
          const { id } = journal.current()
          yield* Effect.logWarning(`${id} cannot be taken over; trying again`, cause)
        }
        if (status() !== "lost") yield* journal.note("lost", { reason })
        const once = Effect.suspend(() =>
          status() === "lost" ? takeOver(isPaused, failures + 1) : Effect.void
        )
        yield* FiberHandle.run(later, Effect.delay(transit(once), backoffMillis(failures + 1, 1_000)))
      })
    )

  const takeUpFailed: Supervision["takeUpFailed"] = Effect.gen(function* () {
    yield* endSomeTime
    const { spec, restarts } = journal.current()
    const delayMillis = restartDelay(spec.restartPolicy, restarts + 1)
    if (delayMillis === undefined) return
    yield* journal.noteEvents([scheduled(restarts + 1, delayMillis)])
    yield* restartIn(delayMillis)
  })

  const supervision: Supervision = {
    died,
    unanswered,
    failed,
    takeOver,
    takeUpFailed,
    giveUp: FiberHandle.clear(later)
  }
  return supervision
})

const isTimeout = ({ _tag }: MachineError) => _tag === "Timeout"

const scheduled = (attempt: number, delayMillis: number): EventBody => ({
  _tag: "RestartScheduled",
  attempt,
  delayMillis
})
