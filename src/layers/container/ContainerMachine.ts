/**
 * A running container as a machine: programs and files by its agent, and from
 * outside, by the kernel, everything that the sandbox must have no say in.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type BackendFailed, SandboxFailed } from "../../domain/Errors.ts"
import type { ProcessId } from "../../domain/Ids.ts"
import type { MachineRequest } from "../../services/Backend.ts"
import type { Machine, MachineExit } from "../../services/Machine.ts"
import type { AgentMachine } from "../agent/AgentMachine.ts"
import { Cgroups } from "./Cgroup.ts"
import { type Container, ContainerFiles } from "./ContainerFiles.ts"
import { checkDisk, type Sync, syncDisk } from "./Disk.ts"
import { endMachine, isRunning } from "./Ending.ts"
import { fromPlatform } from "./Failures.ts"
import { IdRanges } from "./IdRanges.ts"
import { runProgram, setUrgent } from "./Kernel.ts"
import { ContainerSettings } from "./Settings.ts"

/** How often a machine whose connection was lost is looked at. */
const lookAgain = Schedule.min([Schedule.exponential("5 millis"), Schedule.spaced("100 millis")])

/** How long after a lost connection a machine may take to end. */
const deathMillis = 1000

/**
 * Programs are ended by the agent, which shares the sandbox's processor time with them: with hundreds that fork it gets
 * nearly none, least of all when they have used that of the next seconds in advance. After so long it is helped, so often:
 * with a fifth of a processor and 256 programs that fork, an end then takes half a second instead of 30. An agent that
 * two seconds of help do not bring to an answer does not want for time.
 */
const helpAfterMillis = 150
const help = { schedule: Schedule.spaced("5 millis"), times: 400 }

/**
 * After so long, and so often, what came of a program is killed from outside while the whole sandbox stands still: thousands that
 * fork, and take the place of each that is killed, the agent alone does not bring to an end.
 */
const cutAfterMillis = 400
const cuts = 3

const hungUp: MachineExit = { reason: "the machine's agent hung up", outOfMemory: false }

/** A block of stat(2), whatever the file system's own size. */
const statBlockBytes = 512n

/** The machine of a container whose agent is connected. Closing the scope ends the watching, not the machine. */
export const makeMachine: (
  container: Container,
  request: MachineRequest,
  agent: AgentMachine
) => Effect.Effect<
  Machine,
  never,
  Cgroups | ContainerFiles | ContainerSettings | FileSystem.FileSystem | IdRanges | Scope.Scope
> = Effect.fnUntraced(function* (container: Container, request: MachineRequest, agent: AgentMachine) {
  const fs = yield* FileSystem.FileSystem
  const cgroups = yield* Cgroups
  const files = yield* ContainerFiles
  const { helper } = yield* ContainerSettings
  const parts = Context.pick(
    Cgroups,
    ContainerFiles,
    IdRanges
  )(yield* Effect.context<Cgroups | ContainerFiles | IdRanges>())
  const exit = yield* Deferred.make<MachineExit>()
  const { group } = container

  const gone = () =>
    new SandboxFailed({
      sandboxId: request.sandboxId,
      reason: "the machine has ended",
      outcome: "not-started"
    })
  const whileRunning = <A, E>(
    effect: Effect.Effect<A, E>
  ): Effect.Effect<A, E | BackendFailed | SandboxFailed> =>
    isRunning(container).pipe(
      Effect.provideContext(parts),
      Effect.filterOrFail((running) => running, gone),
      Effect.andThen(effect)
    )

  const oneAtATime = yield* Semaphore.make(1)
  const helped = Effect.flatMap(files.pid(container), (agent) =>
    agent === undefined
      ? Effect.void
      : Effect.andThen(setUrgent(agent, true), cgroups.forgiveCpu(group)).pipe(
          Effect.repeat(help),
          Effect.ensuring(setUrgent(agent, false))
        )
  ).pipe(oneAtATime.withPermit, Effect.ignore)

  /** Does what the agent has to do soon, however busy the sandbox is. */
  const urgently = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.raceFirst(effect, helped.pipe(Effect.delay(helpAfterMillis), Effect.andThen(Effect.never)))

  /** Pauses and cuts come one after the other: none ends the standing still of another. */
  const standing = yield* Semaphore.make(1)
  let isPaused = false

  /** Kills all that is below a program's supervisor, of which nothing can fork meanwhile. */
  const cut = Effect.fnUntraced(function* (processId: ProcessId) {
    const agentPid = yield* files.pid(container)
    const supervisor = agent.supervisorOf(processId)
    const members = cgroups.processList(group)
    if (isPaused || agentPid === undefined || supervisor === undefined || members === undefined) return
    const words = ["kill", String(agentPid), String(supervisor), members]
    yield* Effect.andThen(cgroups.freeze(group), runProgram(helper, words)).pipe(
      Effect.ensuring(Effect.ignore(cgroups.thaw(group)))
    )
  })

  /** Ends a program, in the end from outside. */
  const surely = <A, E>(processId: ProcessId, ending: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.raceFirst(
      urgently(ending),
      standing
        .withPermit(cut(processId))
        .pipe(
          Effect.ignore({ log: "Debug", message: "a program could not be ended from outside" }),
          Effect.delay(cutAfterMillis),
          Effect.repeat({ times: cuts - 1 }),
          Effect.andThen(Effect.never)
        )
    )

  const describeExit = cgroups.memoryKills(group).pipe(
    Effect.orElseSucceed(() => 0),
    Effect.map(
      (kills): MachineExit =>
        kills > 0
          ? { reason: "the machine ran out of memory", outOfMemory: true }
          : { reason: "the machine's agent ended", outOfMemory: false }
    )
  )

  const ended = isRunning(container).pipe(
    Effect.provideContext(parts),
    Effect.orElseSucceed(() => false),
    Effect.repeat({ schedule: lookAgain, until: (running) => !running }),
    Effect.timeoutOption(deathMillis)
  )
  // An agent that hangs up and lives on is of no use to anybody either.
  const watch = agent.closed.pipe(
    Effect.andThen(ended),
    Effect.flatMap((seen) => (Option.isSome(seen) ? describeExit : Effect.succeed(hungUp))),
    Effect.flatMap((reason) => Deferred.succeed(exit, reason))
  )
  yield* Effect.forkScoped(watch)

  const terminate = Effect.gen(function* () {
    const ran = yield* isRunning(container)
    yield* endMachine(container)
    yield* Deferred.succeed(exit, { reason: "the machine was terminated", outOfMemory: false })
    // Told once, and now: the kernel writes a disk out when it is unmounted.
    if (ran) yield* checkDisk(container, "stop a container")
  }).pipe(Effect.provideContext(parts), Effect.uninterruptible)

  const syncFor = (sync: Sync) =>
    Effect.flatMap(files.pid(container), (agent) =>
      agent === undefined ? Effect.void : syncDisk(helper, agent, sync)
    )

  /** Stands still, with all that it has written on the disk; otherwise it goes on. */
  const pause = Effect.andThen(
    cgroups.freeze(group),
    syncFor({ operation: "pause a container", outcome: "not-started" })
  ).pipe(
    Effect.tap(() =>
      Effect.sync(() => {
        isPaused = true
      })
    ),
    Effect.onError(() =>
      Effect.ignore(cgroups.thaw(group), {
        log: "Warn",
        message: `${request.sandboxId} could not be paused, and may stand still all the same`
      })
    ),
    standing.withPermit
  )
  const thaw = Effect.suspend(() => {
    isPaused = false
    return cgroups.thaw(group)
  }).pipe(standing.withPermit)

  const metrics = Effect.gen(function* () {
    const usage = yield* cgroups.usage(group)
    const disk = yield* Effect.mapError(fs.stat(container.files.disk), fromPlatform("measure a disk"))
    return {
      ...usage,
      at: yield* Clock.currentTimeMillis,
      memoryLimitBytes: request.spec.limits.memoryBytes,
      diskBytes: Number(Option.getOrElse(disk.blocks, () => 0n) * statBlockBytes)
    }
  })

  const machine: Machine = {
    generation: request.generation,
    isolation: "container",
    processes: {
      ...agent.processes,
      list: urgently(agent.processes.list),
      cancel: (start, cause) => surely(start.processId, agent.processes.cancel(start, cause)),
      kill: (processId) => surely(processId, agent.processes.kill(processId))
    },
    files: agent.files,
    dial: agent.dial,
    pause: whileRunning(pause),
    // The agent of a machine that was paused when we connected has yet to hear of us.
    resume: whileRunning(Effect.andThen(thaw, agent.greeted)),
    metrics: whileRunning(metrics),
    sync: whileRunning(syncFor({ operation: "bring files to the disk", outcome: "completed" })),
    terminate,
    exited: Deferred.await(exit)
  }
  return machine
})
