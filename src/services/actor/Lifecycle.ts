/**
 * The life of one sandbox: the only place that changes its status.
 *
 * Transitions run one at a time in the actor's own scope, so a caller that goes
 * away leaves none half done. `kill` waits for nothing: it interrupts whatever
 * transition is under way.
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
  Semaphore,
  Stream
} from "effect"
import {
  type BackendFailed,
  type Conflict,
  type Connection,
  GenerationChanged,
  InvalidState,
  NotFound,
  SandboxFailed
} from "../../domain/Errors.ts"
import { Generation, ProcessId } from "../../domain/Ids.ts"
import { shellArgv } from "../../domain/Process.ts"
import { restartDelay, type SandboxInfo } from "../../domain/Sandbox.ts"
import { type Command, decide, type Status } from "../../domain/Status.ts"
import { Backend, type ProvisionError } from "../Backend.ts"
import type { Machine, MachineExit } from "../Machine.ts"
import type { SandboxRecord } from "../SandboxStore.ts"
import * as ServiceMetrics from "../ServiceMetrics.ts"
import { traced } from "../Tracing.ts"
import type { Bounds } from "./Bounds.ts"
import type { Journal } from "./Journal.ts"
import { makeMachineSlot } from "./MachineSlot.ts"
import { infoOf, spawnRequest } from "./Requests.ts"

/** How a command on a sandbox's life can fail. */
export type LifecycleFailure = ProvisionError | InvalidState | Connection | Conflict

/** The life of one sandbox. */
export interface Lifecycle {
  /** Waits until the sandbox has been taken up where its record says it was left: machine adopted, things begun finished. */
  readonly awake: Effect.Effect<SandboxInfo, LifecycleFailure>
  /** Carries out a command; one for the status it is in already does nothing. */
  readonly command: (command: Command, graceMillis: number) => Effect.Effect<SandboxInfo, LifecycleFailure>
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

/** How often removing a killed sandbox is tried before it is left to the reconciler. */
const removalAttempts = 3

/** The life of the sandbox that a journal records. Takes it up at once. */
export const makeLifecycle = Effect.fnUntraced(function* (
  journal: Journal,
  bounds: Pick<Bounds, "restore" | "suspend" | "resume" | "clear">
) {
  const backend = yield* Backend
  const actor = yield* Effect.scope
  const lock = yield* Semaphore.make(1)
  const transitions = yield* FiberSet.make<SandboxInfo, LifecycleFailure>()
  const restarts = yield* FiberHandle.make()
  const slot = yield* makeMachineSlot((machine, exit) => died(machine, exit))
  /** The machine that was paused when it was adopted, until it goes on. */
  let adoptedPaused: Machine | undefined
  let removal: Deferred.Deferred<SandboxInfo, LifecycleFailure> | undefined
  let isAwake = false

  const { id } = journal.current()
  const info = () => infoOf(journal.current())
  const missing = () => new NotFound({ kind: "sandbox", id })
  const invalid = (operation: string) =>
    new InvalidState({ sandboxId: id, status: journal.current().status, operation })
  const next = () => Generation.make(journal.current().generation + 1)
  const request = () => {
    const { generation, spec, detached } = journal.current()
    return { sandboxId: id, generation, spec, detached }
  }
  const present = (operation: string) =>
    Effect.suspend(() => {
      const machine = slot.machine()
      return machine === undefined ? Effect.fail(invalid(operation)) : Effect.succeed(machine)
    })

  // --- the parts of transitions ---

  /** From `provisioning` or `restarting` to `running`, or to `failed`. */
  const provision: Transition = Effect.gen(function* () {
    yield* slot.fill(traced("Backend: provision")(Effect.suspend(() => backend.provision(request()))))
    yield* journal.become("running", { change: { startedAt: yield* Clock.currentTimeMillis } })
    yield* runStartCommand
  }).pipe(Effect.tapError((error) => journal.become("failed", { reason: error.message })))

  const runStartCommand = Effect.suspend(() => {
    const { spec, generation } = journal.current()
    const machine = slot.machine()
    if (spec.startCommand === undefined || machine === undefined) return Effect.void
    const processId = ProcessId.make(`start-${generation}`)
    return machine.processes.run(spawnRequest(spec, { processId, argv: shellArgv(spec.startCommand) })).pipe(
      Stream.runForEach((event) =>
        event._tag === "Exited"
          ? journal.write({}, [{ _tag: "StartCommandExited", status: event.status }])
          : Effect.void
      ),
      Effect.catchCause((cause) => Effect.logWarning("the start command failed", cause)),
      Effect.forkIn(actor),
      Effect.asVoid
    )
  })

  /** Ends the machine and keeps the disk. */
  const end: Transition = Effect.suspend(() =>
    slot.empty(traced("Backend: terminate")(slot.machine()?.terminate ?? Effect.void))
  ).pipe(
    Effect.tapError((error) => journal.become("failed", { reason: error.message })),
    Effect.ensuring(bounds.clear)
  )

  // --- commands ---

  const start: Transition = Effect.gen(function* () {
    yield* FiberHandle.clear(restarts)
    yield* journal.become("provisioning", { change: { generation: next(), restarts: 0 } })
    yield* provision
  })

  const stop = Effect.fnUntraced(function* (graceMillis: number) {
    const machine = journal.current().status === "running" ? slot.machine() : undefined
    yield* journal.become("stopping")
    if (machine !== undefined) yield* askToEnd(machine, graceMillis)
    yield* end
    yield* journal.become("stopped")
  })

  const restart: Transition = Effect.gen(function* () {
    yield* journal.become("restarting", { change: { generation: next() } })
    yield* end
    yield* provision
  })

  const pause: Transition = Effect.gen(function* () {
    yield* traced("Backend: pause")((yield* present("pause")).pause)
    yield* bounds.suspend
    yield* journal.become("paused")
  })

  const resume: Transition = Effect.gen(function* () {
    const machine = yield* present("resume")
    yield* traced("Backend: resume")(machine.resume)
    yield* adoptedPaused === machine ? bounds.restore(machine) : bounds.resume
    adoptedPaused = undefined
    yield* journal.become("running")
  })

  const carryOut = (command: Exclude<Command, "kill">, graceMillis: number): Transition =>
    Effect.suspend((): Transition => {
      const { status } = journal.current()
      if (status === "killed") return Effect.fail(missing())
      switch (decide(command, status)) {
        case "done":
          return Effect.void
        case "refused":
          return Effect.fail(invalid(command))
        case "proceed":
          return { start, stop: stop(graceMillis), restart, pause, resume }[command]
      }
    })

  /** Runs a transition in the actor's scope, after those before it; the caller only waits. */
  const transit = (body: Transition) => FiberSet.run(transitions, Effect.map(lock.withPermit(body), info))

  const outcome = (fiber: Fiber.Fiber<SandboxInfo, LifecycleFailure>) =>
    Effect.flatMap(
      Fiber.await(fiber),
      (exit): Exit.Exit<SandboxInfo, LifecycleFailure> | Effect.Effect<never, NotFound> =>
        exit._tag === "Failure" && removal !== undefined && Cause.hasInterruptsOnly(exit.cause)
          ? Effect.fail(missing())
          : exit
    )

  const kill = Effect.gen(function* () {
    yield* FiberHandle.clear(restarts)
    yield* FiberSet.clear(transitions)
    yield* journal.become("killed")
    // The way to the machine is closed last, so that calls under way hear that it has ended.
    yield* slot.empty(
      traced("Backend: remove")(Effect.retry(backend.remove(id), { times: removalAttempts - 1 }))
    )
    yield* bounds.clear
    return info()
  })

  const killOnce = Effect.gen(function* () {
    if (removal !== undefined) return yield* Deferred.await(removal)
    if (journal.current().status === "killed") return info()
    const done = yield* Deferred.make<SandboxInfo, LifecycleFailure>()
    removal = done
    yield* Effect.forkIn(Deferred.into(kill, done), actor)
    return yield* Deferred.await(done)
  })

  // --- supervision ---

  const died = (machine: Machine, exit: MachineExit): Effect.Effect<void> =>
    Effect.gen(function* () {
      if (slot.machine() !== machine || removal !== undefined) return
      yield* slot.empty(Effect.ignore(machine.terminate))
      yield* Metric.update(ServiceMetrics.machineDeaths, 1)
      yield* fail(exit.reason)
    }).pipe(
      lock.withPermit,
      Effect.catchCause((cause) => Effect.logError("could not record a machine's death", cause))
    )

  const fail = (reason: string): Effect.Effect<void, BackendFailed> =>
    bounds.clear.pipe(
      // By the table a paused sandbox has to be lost before it can have failed.
      Effect.andThen(
        Effect.suspend(() =>
          journal.current().status === "paused" ? journal.become("lost", { reason }) : Effect.void
        )
      ),
      Effect.andThen(journal.become("failed", { reason, also: [{ _tag: "MachineDied", reason }] })),
      Effect.andThen(scheduleRestart)
    )

  const scheduleRestart: Effect.Effect<void, BackendFailed> = Effect.gen(function* () {
    const { spec, restarts: before, startedAt } = journal.current()
    const policy = spec.restartPolicy
    if (policy._tag === "Never") return
    const ranFor = (yield* Clock.currentTimeMillis) - (startedAt ?? 0)
    const attempt = (ranFor >= policy.maxMillis ? 0 : before) + 1
    const delayMillis = restartDelay(policy, attempt)
    if (delayMillis === undefined) return
    yield* journal.write({ restarts: attempt }, [{ _tag: "RestartScheduled", attempt, delayMillis }])
    yield* Metric.update(ServiceMetrics.restarts, 1)
    yield* FiberHandle.run(restarts, Effect.delay(again, delayMillis))
  })

  const again = Effect.suspend(() =>
    transit(
      Effect.gen(function* () {
        if (journal.current().status !== "failed") return
        yield* journal.become("provisioning", { change: { generation: next() } })
        yield* Effect.tapError(provision, () => scheduleRestart)
      })
    )
  )

  // --- taking up a sandbox ---

  const adopt = Effect.gen(function* () {
    yield* slot.fill(traced("Backend: adopt")(Effect.suspend(() => backend.adopt(request()))))
    const machine = yield* present("adopt")
    if (journal.current().status === "paused") {
      // Its agent stands still too: what bounds its programs can be asked when it goes on.
      adoptedPaused = machine
      yield* machine.pause
    } else {
      yield* machine.resume
      yield* bounds.restore(machine)
    }
    yield* journal.write({}, [{ _tag: "Adopted" }])
  }).pipe(
    Effect.catch((error) =>
      slot.empty(
        fail(error._tag === "NotFound" ? "the machine ended while the service was away" : error.message)
      )
    )
  )

  const finishStop: Transition = slot.fill(Effect.suspend(() => backend.adopt(request()))).pipe(
    Effect.catchTag("NotFound", () => Effect.void),
    Effect.andThen(end),
    Effect.andThen(journal.become("stopped"))
  )

  const takeUp = (status: Status): Transition => {
    switch (status) {
      case "provisioning":
      case "restarting":
        return provision
      case "running":
      case "paused":
      case "lost":
        return adopt
      case "stopping":
        return finishStop
      case "failed":
        return scheduleRestart
      case "stopped":
      case "killed":
        return Effect.void
    }
  }

  const waking = yield* transit(
    Effect.ensuring(
      Effect.suspend(() => takeUp(journal.current().status)),
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
      command === "kill" ? killOnce : Effect.flatMap(transit(carryOut(command, graceMillis)), outcome),
    machine,
    alive: Effect.suspend(() =>
      journal.current().status === "killed" ? Effect.fail(missing()) : Effect.void
    ),
    ready: journal.changes.pipe(
      Stream.mapEffect(readiness),
      Stream.filter((info) => info !== undefined),
      Stream.runHead,
      Effect.flatMap((head) => (head._tag === "Some" ? Effect.succeed(head.value) : Effect.fail(missing())))
    )
  }
  return lifecycle
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
