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
  Effect,
  type Exit,
  Fiber,
  FiberHandle,
  FiberSet,
  Schedule,
  Semaphore,
  Stream
} from "effect"
import {
  BackendFailed,
  GenerationChanged,
  InvalidState,
  NotFound,
  SandboxFailed,
  silenceOf,
  type Timeout
} from "../../domain/Errors.ts"
import { Generation, ProcessId } from "../../domain/Ids.ts"
import { shellArgv } from "../../domain/Process.ts"
import { restartDelay, type SandboxInfo } from "../../domain/Sandbox.ts"
import { type Command, decide, decideExpiry, isTransitional, type Status } from "../../domain/Status.ts"
import { Backend } from "../Backend.ts"
import type { Machine } from "../Machine.ts"
import type { SandboxRecord } from "../SandboxStore.ts"
import { traced } from "../Tracing.ts"
import type { Bounds } from "./Bounds.ts"
import { backoffMillis } from "./backoff.ts"
import type { Become, Journal } from "./Journal.ts"
import { makeKilling } from "./Killing.ts"
import { type MachineSlot, makeMachineSlot } from "./MachineSlot.ts"
import { infoOf, spawnRequest } from "./Requests.ts"
import { makeSupervision, type Supervision } from "./Supervision.ts"
import {
  becauseOf,
  type Changed,
  expired,
  type LifecycleFailure,
  type Passed,
  reasonOf,
  type Transition
} from "./Transition.ts"

/** The life of one sandbox. */
export interface Lifecycle {
  /** Waits until the sandbox has been taken up where its record says it was left: machine adopted, things begun finished. */
  readonly awake: Changed
  /** Carries out a command; one for the status it is in already does nothing. */
  readonly command: (command: Command, graceMillis: number) => Changed
  /** Kills the sandbox as one that was never handed out: its key is free for another. */
  readonly discard: Changed
  /** Kills it with the lease that holds it; see `Release` in `services/Leases.ts`. */
  readonly letGo: (silentMillis: number | undefined) => Changed
  /** Carries out the action of a limit. The record lets go of the limit when it says that this has been done. */
  readonly expire: (limit: Passed, graceMillis: number) => Changed
  /** The running machine, for an operation of this name by a handle of this generation. */
  readonly machine: (
    operation: string,
    generation: Generation | undefined
  ) => Effect.Effect<Machine, NotFound | InvalidState | GenerationChanged | SandboxFailed>
  /** Why this machine was given up, if it was. */
  readonly whyGivenUp: MachineSlot["whyGivenUp"]
  /** See {@link Supervision.unanswered}. */
  readonly unanswered: Supervision["unanswered"]
  /** Fails when the sandbox has been killed. */
  readonly alive: Effect.Effect<void, NotFound>
  /** Waits until the sandbox runs. */
  readonly ready: Effect.Effect<SandboxInfo, NotFound | InvalidState | SandboxFailed>
}

type Ending = Effect.Effect<void, BackendFailed | Timeout>

/** How often in a row the backend is asked to end a machine before that is put off. */
const attempts = 3
/** When something that must be recorded first is tried again. */
const writeAgain = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])
/** How long a transition waits until what it noted is recorded, in milliseconds. */
const recordMillis = 1_000

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
  /** Ends, in the background, a machine that could not be ended when that was due. */
  const ender = yield* FiberHandle.make()
  const slot = yield* makeMachineSlot((machine, exit): Effect.Effect<void> => supervision.died(machine, exit))
  /** The machine that was paused when it was adopted, until it goes on. */
  let adoptedPaused: Machine | undefined
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
  const missing = () => new NotFound({ kind: "sandbox", id, reason: journal.current().reason })
  const invalid = (operation: string) => new InvalidState({ sandboxId: id, status: status(), operation })
  /** Its machine has ended, and what follows from that is not recorded yet. */
  const ended = () =>
    new SandboxFailed({ sandboxId: id, reason: "its machine has ended", outcome: "not-started" })
  const next = () => Generation.make(journal.current().generation + 1)
  const request = () => {
    const { generation, spec, detached, startedAt } = journal.current()
    return { sandboxId: id, generation, spec, detached, hasDisk: startedAt !== undefined, onLoss: tellLoss }
  }
  /** Recorded, if the store can, before the disk forgets it. */
  const tellLoss = (reason: string) =>
    Effect.andThen(
      Effect.logWarning(`${id} goes on without some of its data: ${reason}`),
      Effect.andThen(journal.noteEvents([{ _tag: "DataLost", reason }]), whenRecorded)
    )
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
    yield* begun
  })

  const begun = Effect.gen(function* () {
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
      // It ends with its machine, which has events of its own, and whose way is closed also when we end.
      Effect.catchTags({ Connection: () => Effect.void, SandboxFailed: () => Effect.void }),
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.logWarning(`the start command of ${id} failed: ${reasonOf(cause)}`)
      ),
      Effect.forkIn(actor),
      Effect.asVoid
    )
  })

  /** Ends the machine, be it in the slot or only known to the backend, and keeps the disk. */
  const end: Ending = Effect.suspend(() =>
    slot.empty(traced("Backend: terminate")(slot.machine()?.terminate ?? backend.end(id)))
  ).pipe(
    Effect.retry({
      times: attempts - 1,
      // One that has ended and says what was lost with it would say so only once.
      while: (error) => error._tag === "BackendFailed" && error.outcome !== "completed"
    }),
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
    yield* supervision.giveUp
    yield* journal.become("provisioning", {
      change: { generation: next(), restarts: 0 }
    })
    yield* provision
  })

  const stop = Effect.fnUntraced(function* (graceMillis: number, why: Become) {
    yield* supervision.giveUp
    if (status() === "failed") return yield* Effect.andThen(end, journal.become("stopped", why))
    const machine = status() === "running" ? slot.machine() : undefined
    yield* journal.become("stopping")
    if (machine !== undefined) yield* askToEnd(machine, graceMillis)
    yield* end
    yield* journal.note("stopped", why)
  })

  /** What makes no machine has ended one all the same, with all that ran in it. */
  const restart: Transition = Effect.gen(function* () {
    yield* journal.become("restarting", { change: { generation: next() } })
    yield* end
    yield* Effect.mapError(provision, ({ message }) => {
      const reason = `its machine has ended, and another could not be made: ${message}. Start it when that is over`
      return new SandboxFailed({ sandboxId: id, reason, outcome: "unknown" })
    })
  })

  /** One that fails, or cannot be recorded, is taken back: no machine stands still that is said to run. */
  const pause = Effect.fnUntraced(function* (why: Become) {
    const machine = yield* present("pause")
    const takeBack = Effect.andThen(traced("Backend: resume")(machine.resume), bounds.resume)
    yield* traced("Backend: pause")(machine.pause).pipe(
      Effect.andThen(bounds.suspend),
      Effect.andThen(journal.become("paused", why)),
      Effect.catchIf(
        // A machine that has ended stands still for ever.
        (error) => error._tag !== "SandboxFailed",
        (error) =>
          Effect.matchEffect(takeBack, {
            onSuccess: () => Effect.fail(error),
            onFailure: () => Effect.andThen(journal.note("paused"), Effect.fail(standing(error)))
          })
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

  const fillWithRunning = slot.fill(traced("Backend: adopt")(Effect.suspend(() => backend.adopt(request()))))

  const adopt = Effect.fnUntraced(function* (isPaused: boolean) {
    yield* fillWithRunning
    const machine = yield* present("adopt")
    if (isPaused) {
      // Its agent stands still too: what bounds its programs can be asked when it goes on.
      adoptedPaused = machine
      yield* machine.pause
    } else {
      yield* machine.resume
      yield* bounds.restore(machine)
    }
    if (status() !== "lost") return yield* journal.noteEvents([{ _tag: "Adopted" }])
    yield* journal.note("running", { after: [{ _tag: "Adopted" }] })
    if (isPaused) yield* journal.note("paused")
  })

  // --- how transitions run and end ---

  /** A transition that broke off leaves no status between two others. Of one that was interrupted the rest is for who did that: a kill, or the next actor. */
  const settle = (cause: Cause.Cause<LifecycleFailure>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const left = status()
      if (isClosing || left === "killed" || !isTransitional(left)) return Effect.void
      return Effect.andThen(
        endSomeTime,
        supervision.failed(reasonOf(cause), { restart: left !== "stopping" })
      )
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

  const supervision: Supervision = yield* makeSupervision(journal, slot, {
    transit,
    provision,
    adopt,
    end,
    endSomeTime,
    isOver: () => isClosing || status() === "killed"
  })
  const kill = yield* makeKilling(journal, slot, bounds, {
    giveUp: Effect.andThen(
      Effect.andThen(supervision.giveUp, FiberHandle.clear(ender)),
      FiberSet.clear(transitions)
    ),
    release,
    isClosing: () => isClosing
  })

  // --- taking up a sandbox ---

  /**
   * Makes a machine, or takes over the one that a service before this one made and did not live to record, with its
   * programs. One that has ended since is followed by another generation, as handles on those programs shall tell; a
   * sandbox without any machine in its record is taken for a new one.
   */
  const goOn: Transition = Effect.gen(function* () {
    if (journal.current().startedAt === undefined) return yield* Effect.andThen(provision, restored)
    const isMissing = yield* Effect.as(fillWithRunning, false).pipe(
      Effect.catchTag("NotFound", () => Effect.succeed(true))
    )
    if (isMissing) {
      yield* Effect.retry(
        Effect.suspend(() => journal.write({ generation: next() }, [])),
        writeAgain
      )
      return yield* provision
    }
    yield* Effect.andThen(begun, restored)
  })
  const restored = Effect.flatMap(present("adopt"), bounds.restore)

  const takeUp = (status: Status): Transition => {
    switch (status) {
      case "provisioning":
      case "restarting":
        return goOn
      case "running":
      case "paused":
      case "lost":
        return supervision.takeOver(status === "paused", 0)
      case "stopping":
        return Effect.andThen(end, journal.note("stopped"))
      case "failed":
        return supervision.takeUpFailed
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

  const machine = (operation: string, generation: Generation | undefined): ReturnType<Lifecycle["machine"]> =>
    Effect.suspend((): ReturnType<Lifecycle["machine"]> => {
      const { status, generation: current } = journal.current()
      if (status === "killed") return Effect.fail(missing())
      if (generation !== undefined && generation !== current) {
        return Effect.fail(new GenerationChanged({ sandboxId: id, expected: generation, current }))
      }
      if (status !== "running") return Effect.fail(invalid(operation))
      const held = slot.machine()
      if (held !== undefined) return Effect.succeed(held)
      return isAwake
        ? Effect.fail(ended())
        : Effect.andThen(
            Fiber.await(waking),
            Effect.suspend(() => machine(operation, generation))
          )
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
      command === "kill" ? kill() : Effect.flatMap(transit(carryOut(command, graceMillis)), outcome),
    discard: kill({ change: { idempotencyKey: undefined } }),
    letGo: (silentMillis) => kill(silentMillis === undefined ? {} : { reason: silenceOf(silentMillis) }),
    expire: (limit, graceMillis) => {
      const why = becauseOf(limit)
      const { action } = limit
      if (action === "kill") return kill(why)
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
    whyGivenUp: slot.whyGivenUp,
    unanswered: supervision.unanswered,
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

/** A pause that failed, and could not be taken back either. */
const standing = ({ message }: { readonly message: string }) =>
  new BackendFailed({
    backend: "store",
    operation: "pause a sandbox",
    reason: `${message}; it may stand still all the same, and can be resumed`,
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
