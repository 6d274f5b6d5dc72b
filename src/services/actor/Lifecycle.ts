/**
 * The life of one sandbox: the only place that changes its status.
 *
 * Transitions run one at a time in the actor's own scope, so a caller that goes
 * away leaves none half done, and whichever way one ends, it leaves a status that is
 * so. `kill` waits for nothing: it interrupts whatever transition is under way.
 */
import {
  Cause,
  Clock,
  Deferred,
  Effect,
  type Exit,
  Fiber,
  FiberHandle,
  FiberSet,
  Metric,
  Result,
  Semaphore,
  Stream
} from "effect"
import {
  BackendFailed,
  type Conflict,
  type Connection,
  GenerationChanged,
  InvalidState,
  NotFound,
  SandboxFailed,
  type Timeout
} from "../../domain/Errors.ts"
import type { EventBody } from "../../domain/Event.ts"
import { Generation, ProcessId } from "../../domain/Ids.ts"
import { shellArgv } from "../../domain/Process.ts"
import { type ExpiryAction, restartDelay, type SandboxInfo } from "../../domain/Sandbox.ts"
import { type Command, decide, decideExpiry, isTransitional, type Status } from "../../domain/Status.ts"
import { Backend, type ProvisionError } from "../Backend.ts"
import type { Machine, MachineExit } from "../Machine.ts"
import type { SandboxRecord } from "../SandboxStore.ts"
import * as ServiceMetrics from "../ServiceMetrics.ts"
import { traced } from "../Tracing.ts"
import type { Bounds } from "./Bounds.ts"
import { backoffMillis } from "./backoff.ts"
import type { Become, Journal } from "./Journal.ts"
import { makeMachineSlot } from "./MachineSlot.ts"
import { infoOf, spawnRequest } from "./Requests.ts"

/** How a command on a sandbox's life can fail. */
export type LifecycleFailure = ProvisionError | InvalidState | Connection | Conflict

/** A time limit that has passed. */
export type Passed =
  | { readonly what: "ttl"; readonly action: ExpiryAction; readonly expiresAt: number }
  | { readonly what: "idle"; readonly action: ExpiryAction }

/** The life of one sandbox. */
export interface Lifecycle {
  /** Waits until the sandbox has been taken up where its record says it was left: machine adopted, things begun finished. */
  readonly awake: Effect.Effect<SandboxInfo, LifecycleFailure>
  /** Carries out a command; one for the status it is in already does nothing. */
  readonly command: (command: Command, graceMillis: number) => Effect.Effect<SandboxInfo, LifecycleFailure>
  /** Kills the sandbox as one that was never handed out: its key is free for another. */
  readonly discard: Effect.Effect<SandboxInfo, LifecycleFailure>
  /** Carries out the action of a limit. The record lets go of the limit when it says that this has been done. */
  readonly expire: (limit: Passed, graceMillis: number) => Effect.Effect<SandboxInfo, LifecycleFailure>
  /** The running machine, for an operation of this name by a handle of this generation. */
  readonly machine: (
    operation: string,
    generation: Generation | undefined
  ) => Effect.Effect<Machine, NotFound | InvalidState | GenerationChanged>
  /** Fails when the sandbox has been killed. */
  readonly alive: Effect.Effect<void, NotFound>
  /** Waits until the sandbox runs. */
  readonly ready: Effect.Effect<SandboxInfo, NotFound | InvalidState | SandboxFailed>
}

type Transition = Effect.Effect<void, LifecycleFailure>
type Ending = Effect.Effect<void, BackendFailed | Timeout>

/** How often the backend is asked in a row to end a machine, or to remove a killed sandbox, before that is put off. */
const attempts = 3
/** How often a machine that may be there is tried to be adopted before it is ended. */
const adoptions = 5
/** How long a transition waits until what it noted is recorded, and a kill before it goes on without that, in milliseconds. */
const recordMillis = 1_000
/** How long a kill that has done everything else waits to be recorded, in milliseconds. */
const killRecordMillis = 5_000

/** The life of the sandbox that a journal records. Takes it up at once. `release` is run when the sandbox was killed and nothing of it is left. */
export const makeLifecycle = Effect.fnUntraced(function* (
  journal: Journal,
  bounds: Pick<Bounds, "restore" | "suspend" | "resume" | "clear">,
  release: Effect.Effect<void>
) {
  const backend = yield* Backend
  const actor = yield* Effect.scope
  const lock = yield* Semaphore.make(1)
  const transitions = yield* FiberSet.make<SandboxInfo, LifecycleFailure>()
  /** What will be tried after a while: a restart, an adoption. */
  const later = yield* FiberHandle.make()
  /** Ends, in the background, a machine that could not be ended when that was due. */
  const ender = yield* FiberHandle.make()
  const killer = yield* FiberHandle.make()
  const slot = yield* makeMachineSlot((machine, exit) => died(machine, exit))
  /** The machine that was paused when it was adopted, until it goes on. */
  let adoptedPaused: Machine | undefined
  let killing: Deferred.Deferred<SandboxInfo, LifecycleFailure> | undefined
  let isGone = journal.current().status === "killed"
  let isAwake = false
  let isClosing = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isClosing = true
    })
  )

  const { id } = journal.current()
  const status = () => journal.current().status
  const info = () => infoOf(journal.current())
  const missing = () => new NotFound({ kind: "sandbox", id })
  const invalid = (operation: string) => new InvalidState({ sandboxId: id, status: status(), operation })
  const next = () => Generation.make(journal.current().generation + 1)
  const request = () => {
    const { generation, spec, detached, startedAt } = journal.current()
    return { sandboxId: id, generation, spec, detached, hasDisk: startedAt !== undefined }
  }
  const present = (operation: string) =>
    Effect.suspend(() => {
      const machine = slot.machine()
      return machine === undefined ? Effect.fail(invalid(operation)) : Effect.succeed(machine)
    })

  // --- the parts of transitions ---

  /** From `provisioning` or `restarting` to `running`. */
  const provision: Transition = Effect.gen(function* () {
    // A machine that was not ended yet is ended for the new one.
    yield* FiberHandle.clear(ender)
    yield* slot.fill(traced("Backend: provision")(Effect.suspend(() => backend.provision(request()))))
    yield* journal.note("running", { change: { startedAt: yield* Clock.currentTimeMillis } })
    yield* runStartCommand
  })

  const runStartCommand = Effect.suspend(() => {
    const { spec, generation } = journal.current()
    const machine = slot.machine()
    if (spec.startCommand === undefined || machine === undefined) return Effect.void
    const processId = ProcessId.make(`start-${generation}`)
    return machine.processes.run(spawnRequest(spec, { processId, argv: shellArgv(spec.startCommand) })).pipe(
      Stream.runForEach((event) =>
        event._tag === "Exited"
          ? journal.noteEvents([{ _tag: "StartCommandExited", status: event.status }])
          : Effect.void
      ),
      Effect.catchCause((cause) => Effect.logWarning("the start command failed", cause)),
      Effect.forkIn(actor),
      Effect.asVoid
    )
  })

  /** Ends the machine, be it in the slot or only known to the backend, and keeps the disk. */
  const end: Ending = Effect.suspend(() =>
    slot.empty(traced("Backend: terminate")(slot.machine()?.terminate ?? backend.end(id)))
  ).pipe(
    Effect.retry({ times: attempts - 1, while: (error) => error._tag === "BackendFailed" }),
    Effect.ensuring(bounds.clear)
  )

  /** Ends the machine, now or as soon as that is possible. */
  const endSomeTime: Effect.Effect<void> = Effect.catchCause(end, (cause) => {
    const again = (failures: number): Effect.Effect<void> =>
      Effect.delay(
        Effect.catchCause(backend.end(id), () => again(failures + 1)),
        backoffMillis(failures)
      )
    return Effect.andThen(
      Effect.logWarning(`the machine of ${id} could not be ended; trying again`, cause),
      FiberHandle.run(ender, again(1))
    )
  })

  // --- commands ---

  const start: Transition = Effect.gen(function* () {
    yield* FiberHandle.clear(later)
    yield* journal.become("provisioning", {
      change: { generation: next(), restarts: 0 }
    })
    yield* provision
  })

  const stop = Effect.fnUntraced(function* (graceMillis: number, why: Become) {
    yield* FiberHandle.clear(later)
    if (status() === "failed") return yield* Effect.andThen(end, journal.become("stopped", why))
    const machine = status() === "running" ? slot.machine() : undefined
    yield* journal.become("stopping")
    if (machine !== undefined) yield* askToEnd(machine, graceMillis)
    yield* end
    yield* journal.note("stopped", why)
  })

  const restart: Transition = Effect.gen(function* () {
    yield* journal.become("restarting", { change: { generation: next() } })
    yield* end
    yield* provision
  })

  /** One that fails, or cannot be recorded, is taken back: no machine stands still that is said to run. */
  const pause = Effect.fnUntraced(function* (why: Become) {
    const machine = yield* present("pause")
    const takeBack = Effect.andThen(traced("Backend: resume")(machine.resume), bounds.resume)
    yield* traced("Backend: pause")(machine.pause).pipe(
      Effect.andThen(bounds.suspend),
      Effect.andThen(journal.become("paused", why)),
      Effect.onError(() =>
        isClosing || status() === "killed"
          ? Effect.void
          : Effect.catchCause(takeBack, () => journal.note("paused", { reason: "it could not be resumed" }))
      )
    )
  })

  const resume: Transition = Effect.gen(function* () {
    const machine = yield* present("resume")
    // Recorded first, so that one acknowledged does not stand still after a crash.
    yield* journal.become("running")
    yield* traced("Backend: resume")(machine.resume).pipe(
      Effect.onError(() => (status() === "running" && !isClosing ? journal.note("paused") : Effect.void))
    )
    yield* adoptedPaused === machine ? bounds.restore(machine) : bounds.resume
    adoptedPaused = undefined
  })

  const carryOut = (command: Exclude<Command, "kill">, graceMillis: number, why: Become = {}): Transition =>
    Effect.suspend((): Transition => {
      if (status() === "killed") return Effect.fail(missing())
      switch (decide(command, status())) {
        case "done":
          return Effect.void
        case "refused":
          return Effect.fail(invalid(command))
        case "proceed":
          return { start, stop: stop(graceMillis, why), restart, pause: pause(why), resume }[command]
      }
    })

  // --- how transitions run and end ---

  /** A transition that broke off leaves no status between two others. Of one that was interrupted the rest is for who did that: a kill, or the next actor. */
  const settle = (cause: Cause.Cause<LifecycleFailure>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const left = status()
      if (isClosing || left === "killed" || !isTransitional(left)) return Effect.void
      return Effect.andThen(endSomeTime, failed(reasonOf(cause), { restart: left !== "stopping" }))
    })

  const typed = <E>(cause: Cause.Cause<E>): Effect.Effect<never, E | BackendFailed> => {
    if (!Cause.hasDies(cause)) return Effect.failCause(cause)
    const failure = new BackendFailed({
      backend: backend.name,
      operation: "change a sandbox's status",
      reason: reasonOf(cause),
      outcome: "unknown"
    })
    return Effect.andThen(Effect.logError(`a defect in the life of ${id}`, cause), Effect.fail(failure))
  }

  /** Waits a moment until what was noted is recorded, for those who look into the store. */
  const whenRecorded = Effect.ignore(Effect.timeoutOption(journal.recorded, recordMillis))

  /** Runs a transition in the actor's scope, after those before it; the caller only waits. */
  const transit = (body: Transition) =>
    FiberSet.run(
      transitions,
      body.pipe(
        Effect.onError(settle),
        Effect.catchCause(typed),
        lock.withPermit,
        Effect.exit,
        Effect.tap(whenRecorded),
        Effect.flatten,
        Effect.map(info)
      )
    )

  const outcome = (fiber: Fiber.Fiber<SandboxInfo, LifecycleFailure>) =>
    Effect.flatMap(
      Fiber.await(fiber),
      (exit): Exit.Exit<SandboxInfo, LifecycleFailure> | Effect.Effect<never, NotFound> =>
        exit._tag === "Failure" && status() === "killed" && Cause.hasInterruptsOnly(exit.cause)
          ? Effect.fail(missing())
          : exit
    )

  // --- the end ---

  /**
   * Ends the sandbox for good. It is killed from the first moment; whatever cannot be done
   * now, recording it or removing what it holds, keeps nothing else from being done.
   */
  const kill = (why: Become) =>
    Effect.gen(function* () {
      if (status() !== "killed") yield* journal.note("killed", why)
      yield* FiberHandle.clear(later)
      yield* FiberHandle.clear(ender)
      const recording = yield* Effect.forkIn(journal.recorded, actor, { startImmediately: true })
      yield* FiberSet.clear(transitions)
      // Its disk outlives the record only if the store is in trouble.
      yield* Effect.ignore(Effect.timeoutOption(Fiber.await(recording), recordMillis))
      // The way to the machine is closed last, so that calls under way hear that it has ended.
      yield* slot.empty(
        traced("Backend: remove")(
          Effect.retry(backend.remove(id), {
            times: attempts - 1,
            while: (error) => error._tag === "BackendFailed"
          })
        )
      )
      yield* bounds.clear
      yield* journal.recorded.pipe(
        Effect.timeoutOrElse({
          duration: killRecordMillis,
          orElse: () => Effect.fail({ message: "the store does not answer" })
        }),
        Effect.mapError(unrecorded)
      )
      return info()
    }).pipe(Effect.catchCause(typed))

  const killOnce = (why: Become = {}): Effect.Effect<SandboxInfo, LifecycleFailure> =>
    Effect.suspend(() => {
      if (isGone) return Effect.succeed(info())
      if (killing !== undefined) return Deferred.await(killing)
      const done = Deferred.makeUnsafe<SandboxInfo, LifecycleFailure>()
      killing = done
      return Effect.andThen(
        Effect.forkIn(Deferred.into(Effect.onExit(kill(why), killed), done), actor),
        Deferred.await(done)
      )
    })

  let killFailures = 0
  /** What could not be done is tried again, by whoever kills it again and by itself. */
  const killed = (exit: Exit.Exit<SandboxInfo, LifecycleFailure>): Effect.Effect<void> =>
    Effect.suspend(() => {
      killing = undefined
      if (exit._tag === "Success") {
        isGone = true
        return release
      }
      if (isClosing) return Effect.void
      killFailures++
      const again = FiberHandle.run(
        killer,
        Effect.delay(Effect.ignore(killOnce()), backoffMillis(killFailures, 1_000))
      )
      return killFailures === 1
        ? Effect.andThen(
            Effect.logWarning(`the end of ${id} is not complete; trying again`, exit.cause),
            again
          )
        : Effect.asVoid(again)
    })

  // --- supervision ---

  const died = (machine: Machine, exit: MachineExit): Effect.Effect<void> =>
    Effect.asVoid(
      transit(
        Effect.suspend(() => {
          if (slot.machine() !== machine) return Effect.void
          const ranFor = slot.heldMillis()
          return Effect.andThen(endSomeTime, machineDied(exit.reason, ranFor))
        })
      )
    )

  /** `ranFor` is how long it is known to have run, in milliseconds. */
  const machineDied = (reason: string, ranFor: number) =>
    Effect.andThen(
      failed(reason, { restart: true, ranFor, before: [{ _tag: "MachineDied", reason }] }),
      Metric.update(ServiceMetrics.machineDeaths, 1)
    )

  /** Notes that the sandbox has failed, and when its policy starts it again. */
  const failed = (
    reason: string,
    options: {
      readonly restart: boolean
      readonly ranFor?: number
      readonly before?: ReadonlyArray<EventBody>
    }
  ): Effect.Effect<void> =>
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
    Effect.asVoid(FiberHandle.run(later, Effect.delay(again(failures), delayMillis)))

  /** The next attempt of the policy. One that cannot be recorded has not been made. */
  const again = (failures: number) =>
    transit(
      Effect.gen(function* () {
        if (status() !== "failed") return
        const { restarts } = journal.current()
        const begun = yield* Effect.result(
          journal.become("provisioning", {
            change: { generation: next(), restarts: restarts + 1 }
          })
        )
        if (Result.isFailure(begun)) return yield* restartIn(backoffMillis(failures + 1, 1_000), failures + 1)
        yield* Metric.update(ServiceMetrics.restarts, 1)
        yield* provision
      })
    )

  // --- taking up a sandbox ---

  const adopt = Effect.gen(function* () {
    const isPaused = status() === "paused"
    yield* slot.fill(traced("Backend: adopt")(Effect.suspend(() => backend.adopt(request()))))
    const machine = yield* present("adopt")
    if (isPaused) {
      // Its agent stands still too: what bounds its programs can be asked when it goes on.
      adoptedPaused = machine
      yield* machine.pause
    } else {
      yield* machine.resume
      yield* bounds.restore(machine)
    }
    if (status() === "lost") yield* journal.note("running", { after: [{ _tag: "Adopted" }] })
    else yield* journal.noteEvents([{ _tag: "Adopted" }])
  })

  /** Adopts the machine. One that ended has failed; one that cannot be reached is lost, and ended when that does not pass. */
  const takeOver = (failures: number): Transition =>
    Effect.catchCause(adopt, (cause) =>
      Effect.gen(function* () {
        if (isClosing || status() === "killed" || Cause.hasInterruptsOnly(cause)) return
        yield* slot.empty(Effect.void)
        const error = Cause.findErrorOption(cause)
        const reason = reasonOf(cause)
        if (error._tag === "Some" && error.value._tag === "NotFound") {
          yield* endSomeTime
          return yield* machineDied("the machine ended while the service was away", 0)
        }
        if (failures + 1 >= adoptions) {
          const ended = yield* Effect.exit(end)
          if (ended._tag === "Success") return yield* machineDied(reason, 0)
        }
        if (failures === 0) {
          yield* Effect.logWarning(`${id} cannot be taken over; trying again`, cause)
          yield* journal.note("lost", { reason })
        }
        const readopt = transit(
          Effect.suspend(() => (status() === "lost" ? takeOver(failures + 1) : Effect.void))
        )
        yield* FiberHandle.run(later, Effect.delay(readopt, backoffMillis(failures + 1, 1_000)))
      })
    )

  /** Its policy goes on where it was: an attempt that was waited for is still to be made. */
  const takeUpFailed = Effect.gen(function* () {
    yield* endSomeTime
    const { spec, restarts } = journal.current()
    const delayMillis = restartDelay(spec.restartPolicy, restarts + 1)
    if (delayMillis === undefined) return
    yield* journal.noteEvents([scheduled(restarts + 1, delayMillis)])
    yield* restartIn(delayMillis)
  })

  const takeUp = (status: Status): Transition => {
    switch (status) {
      case "provisioning":
      case "restarting":
        return provision
      case "running":
      case "paused":
        return takeOver(0)
      case "lost":
        return takeOver(1)
      case "stopping":
        return Effect.andThen(end, journal.note("stopped"))
      case "failed":
        return takeUpFailed
      case "stopped":
      case "killed":
        return Effect.void
    }
  }

  const waking = yield* transit(
    Effect.ensuring(
      Effect.suspend(() => takeUp(status())),
      Effect.sync(() => {
        isAwake = true
      })
    )
  )

  const machine = (
    operation: string,
    generation: Generation | undefined
  ): Effect.Effect<Machine, NotFound | InvalidState | GenerationChanged> =>
    Effect.suspend((): ReturnType<Lifecycle["machine"]> => {
      const { status, generation: current } = journal.current()
      if (status === "killed") return Effect.fail(missing())
      if (generation !== undefined && generation !== current) {
        return Effect.fail(new GenerationChanged({ sandboxId: id, expected: generation, current }))
      }
      const machine = slot.machine()
      if (status === "running" && machine !== undefined) return Effect.succeed(machine)
      return status === "running" && !isAwake
        ? Effect.andThen(Fiber.await(waking), present(operation))
        : Effect.fail(invalid(operation))
    })

  /** The sandbox if it runs, undefined if that may still come, otherwise why not. */
  const readiness = Effect.fnUntraced(function* (record: SandboxRecord) {
    const { status, spec, reason = status, restarts } = record
    if (status === "running") return infoOf(record)
    if (status === "killed") return yield* missing()
    if (status === "stopped" || status === "paused") return yield* invalid("wait until it runs")
    if (status === "failed" && restartDelay(spec.restartPolicy, restarts + 1) === undefined) {
      return yield* new SandboxFailed({ sandboxId: id, reason, outcome: "completed" })
    }
    return undefined
  })

  const lifecycle: Lifecycle = {
    awake: outcome(waking),
    command: (command, graceMillis) =>
      command === "kill" ? killOnce() : Effect.flatMap(transit(carryOut(command, graceMillis)), outcome),
    discard: killOnce({ change: { idempotencyKey: undefined } }),
    expire: (limit, graceMillis) => {
      const why = becauseOf(limit)
      const { action } = limit
      if (action === "kill") return killOnce(why)
      return Effect.flatMap(
        transit(
          Effect.suspend((): Transition => {
            const { expiresAt } = journal.current()
            // It was set anew in the meantime.
            if (limit.what === "ttl" && limit.expiresAt !== expiresAt) return Effect.void
            switch (decideExpiry(action, status())) {
              case "later":
                return Effect.fail(invalid(action))
              case "done":
                return journal.write({ expiresAt: undefined }, [expired(limit)])
              case "proceed":
                return carryOut(action, graceMillis, why)
            }
          })
        ),
        outcome
      )
    },
    machine,
    alive: Effect.suspend(() => (status() === "killed" ? Effect.fail(missing()) : Effect.void)),
    ready: journal.changes.pipe(
      Stream.mapEffect(readiness),
      Stream.filter((info) => info !== undefined),
      Stream.runHead,
      Effect.flatMap((head) => (head._tag === "Some" ? Effect.succeed(head.value) : Effect.fail(missing())))
    )
  }
  return lifecycle
})

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

const scheduled = (attempt: number, delayMillis: number): EventBody => ({
  _tag: "RestartScheduled",
  attempt,
  delayMillis
})

const expired = ({ what }: Passed): EventBody => ({ _tag: "Expired", what })

/** What is written together with the effect of a limit. One that was set anew in the meantime stays. */
const becauseOf = (limit: Passed): Become => ({
  before: [expired(limit)],
  change: (record) =>
    limit.what === "ttl" && record.expiresAt === limit.expiresAt ? { expiresAt: undefined } : {}
})

/** The sandbox has ended, but the next service may not know. */
const unrecorded = ({ message }: { readonly message: string }) =>
  new BackendFailed({
    backend: "store",
    operation: "record that the sandbox was killed",
    reason: `${message}; its programs have ended, and this is tried again until it is recorded`,
    outcome: "unknown"
  })

/** Asks every program to end, and waits until all have or the time is up. */
const askToEnd = (machine: Machine, graceMillis: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const processes = yield* machine.processes.list
    yield* Effect.forEach(
      processes.filter((process) => process.exit === undefined),
      ({ processId, end }) =>
        Effect.andThen(
          machine.processes.signal(processId, "SIGTERM"),
          Stream.runDrain(machine.processes.attach(processId, end))
        ),
      { concurrency: "unbounded", discard: true }
    )
  }).pipe(Effect.timeoutOption(graceMillis), Effect.ignore)
