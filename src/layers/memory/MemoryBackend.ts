/**
 * The memory backend: deterministic machines inside the program itself, on
 * Effect's clock and random, for tests of programs that use sandboxes.
 *
 * It isolates nothing and says so. What a program in it can do is what
 * `Programs.ts` knows, plus the commands its options define; what its service can
 * do with it is what a Linux container offers, with the same answers.
 */
import { Clock, Context, Duration, Effect, Layer, Random, Scheduler } from "effect"
import { Capability } from "../../domain/Capability.ts"
import { NotFound } from "../../domain/Errors.ts"
import type { SandboxId } from "../../domain/Ids.ts"
import type { SandboxSpec } from "../../domain/Sandbox.ts"
import { Backend, type MachineRequest } from "../../services/Backend.ts"
import { makeDisk, makeImage } from "./Image.ts"
import { Kernel } from "./Kernel.ts"
import { type FaultPoint, FaultTable, MemoryFaults, memoryFailed, withFault } from "./MemoryFaults.ts"
import { type MachineSize, backendName as name, refusal } from "./MemoryLimits.ts"
import { makeMachine } from "./MemoryMachine.ts"
import { MemoryWorld } from "./MemoryWorld.ts"
import type { Connection } from "./Network.ts"
import { programs as knownPrograms } from "./Programs.ts"
import { RunningMachine } from "./RunningMachine.ts"
import { type MemoryCommand, toProgram } from "./UserCommand.ts"
import { makeSchedule } from "./Wakeup.ts"

/** How the simulated place is equipped. */
export interface MemoryOptions {
  /** Programs of the caller's own, by name: found in PATH, and before the known ones of that name. */
  readonly commands?: { readonly [name: string]: MemoryCommand } | undefined
  /** What listens on a port of every machine, without a program. */
  readonly ports?: { readonly [port: number]: (connection: Connection) => Effect.Effect<void> } | undefined
  /** Images that exist besides `host`; all hold the same programs. */
  readonly images?: ReadonlyArray<string> | undefined
  /** How large the simulated computer is: larger limits are refused. Default: 64 GiB of memory, 16 processors, 4 million processes, 1 TiB of disk. */
  readonly size?: Partial<MachineSize> | undefined
  /** The most time a call to a machine takes; default 30 seconds. */
  readonly transportTimeout?: Duration.Input | undefined
  /** The most time making a machine takes; default 60 seconds. */
  readonly provisionTimeout?: Duration.Input | undefined
  /** How long a machine that is not detached lives on when its service is gone; default 30 seconds. */
  readonly lease?: Duration.Input | undefined
}

const capabilities: ReadonlySet<Capability> = new Set(
  Capability.literals.filter((one) => one !== "snapshot" && one !== "network-allow" && one !== "network-full")
)

/** The backend on a world that is given, so that the world can outlive it. */
export const layerOn = (
  options: MemoryOptions = {}
): Layer.Layer<Backend | MemoryFaults, never, MemoryWorld> => Layer.effectContext(make(options))

/** The backend with a world of its own, which ends with it. */
export const layer = (options: MemoryOptions = {}): Layer.Layer<Backend | MemoryFaults | MemoryWorld> =>
  Layer.provideMerge(layerOn(options), MemoryWorld.layer)

const make = Effect.fnUntraced(function* (options: MemoryOptions) {
  const { state } = yield* MemoryWorld
  const epoch = state.epoch
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const scheduler = yield* Scheduler.Scheduler
  const dispatcher = scheduler.makeDispatcher()
  const schedule = makeSchedule((turn) => dispatcher.scheduleTask(turn, 0))
  const context = Context.empty().pipe(
    Context.add(Clock.Clock, clock),
    Context.add(Random.Random, random),
    Context.add(Scheduler.Scheduler, scheduler)
  )
  const programs = new Map([
    ...knownPrograms,
    ...Object.entries(options.commands ?? {}).map(([command, run]) => [command, toProgram(run)] as const)
  ])
  const image = makeImage(programs.keys())
  const faults = new FaultTable()
  const limits = {
    transportMillis: Duration.toMillis(options.transportTimeout ?? Duration.seconds(30)),
    provisionMillis: Duration.toMillis(options.provisionTimeout ?? Duration.seconds(60))
  }
  const leaseMillis = Duration.toMillis(options.lease ?? Duration.seconds(30))
  const isDead = () => state.epoch !== epoch

  /** An operation of the backend itself: with the faults put into it, and nothing once the service was killed. */
  const operation = <A, E, R>(
    point: FaultPoint,
    sandboxId: SandboxId | undefined,
    run: Effect.Effect<A, E, R>
  ) =>
    Effect.suspend(() => {
      if (isDead()) return Effect.fail(memoryFailed(point, "the service was killed", "not-started"))
      const fault = faults.take(point, sandboxId)
      if (fault === undefined) return run
      const isProvision = point === "provision"
      const limit = isProvision
        ? ({ limit: "provision", millis: limits.provisionMillis, outcome: "not-started" } as const)
        : ({ limit: "transport", millis: limits.transportMillis, outcome: "unknown" } as const)
      const outcome = isProvision ? "not-started" : "unknown"
      return withFault(fault, point, limit, (reason) => memoryFailed(point, reason, outcome), run)
    })

  const boot = ({ sandboxId, generation, spec, detached }: MachineRequest): RunningMachine => {
    const home = state.homes.get(sandboxId)
    const disk =
      home?.disk ??
      makeDisk(image, { bytes: spec.limits.diskBytes, inodes: spec.limits.inodes }, () =>
        clock.currentTimeMillisUnsafe()
      )
    const kernel = new Kernel({
      generation,
      tree: disk,
      limits: spec.limits,
      programs,
      clock,
      random,
      schedule,
      context
    })
    for (const [port, serve] of Object.entries(options.ports ?? {})) {
      kernel.listeners.set(Number(port), {
        owner: undefined,
        accept: (connection) => kernel.fork(Effect.ensuring(serve(connection), connection.end))
      })
    }
    const machine = new RunningMachine(sandboxId, kernel, detached ? undefined : leaseMillis)
    state.homes.set(sandboxId, { disk, running: machine })
    return machine
  }

  /** A service's hold on a machine, until the scope closes. */
  const hold = (machine: RunningMachine) =>
    Effect.as(
      Effect.acquireRelease(
        Effect.sync(() => machine.hold()),
        () =>
          Effect.sync(() => {
            if (isDead()) return
            machine.disconnect("closed here")
            machine.release()
          })
      ),
      makeMachine({ machine, faults, limits, isDead })
    )

  const validate = (spec: SandboxSpec) => {
    const problem = refusal(spec, options.size ?? {}, options.images ?? [])
    return problem === undefined ? Effect.void : Effect.fail(problem)
  }

  const provision = Effect.fnUntraced(function* (request: MachineRequest) {
    yield* validate(request.spec)
    const existed = state.homes.has(request.sandboxId)
    if (request.hasDisk && !existed) return yield* new NotFound({ kind: "disk", id: request.sandboxId })
    const running = state.running(request.sandboxId)
    if (running?.generation === request.generation)
      return yield* operation("provision", request.sandboxId, hold(running))
    if (running !== undefined && running.generation > request.generation) {
      return yield* memoryFailed("provision", `generation ${running.generation} runs already`, "not-started")
    }
    running?.end({ reason: "a later generation takes its place", outOfMemory: false })
    const undo = Effect.sync(() => {
      state.running(request.sandboxId)?.end({ reason: "it was not wanted any more", outOfMemory: false })
      if (!existed) state.homes.delete(request.sandboxId)
    })
    return yield* operation(
      "provision",
      request.sandboxId,
      Effect.suspend(() => hold(boot(request)))
    ).pipe(Effect.onError(() => (isDead() ? Effect.void : undo)))
  })

  const adopt = (request: MachineRequest) =>
    operation(
      "adopt",
      request.sandboxId,
      Effect.suspend(() => {
        const running = state.running(request.sandboxId)
        return running?.generation === request.generation
          ? hold(running)
          : Effect.fail(new NotFound({ kind: "sandbox", id: request.sandboxId }))
      })
    )

  const backend = Backend.of({
    name,
    isolation: "none",
    capabilities,
    validate,
    provision,
    adopt,
    end: (sandboxId) =>
      operation(
        "terminate",
        sandboxId,
        Effect.sync(() =>
          state.running(sandboxId)?.end({ reason: "the machine was terminated", outOfMemory: false })
        )
      ),
    remove: (sandboxId) =>
      operation(
        "remove",
        sandboxId,
        Effect.sync(() => {
          state.running(sandboxId)?.end({ reason: "the sandbox was removed", outOfMemory: false })
          state.homes.delete(sandboxId)
        })
      ),
    ready: operation("ready", undefined, Effect.void).pipe(
      Effect.catchTag("Timeout", (timeout) =>
        Effect.fail(memoryFailed("ready", timeout.message, "not-started"))
      )
    ),
    list: operation(
      "list",
      undefined,
      Effect.sync(() =>
        [...state.homes.keys()].map((sandboxId) => ({
          sandboxId,
          generation: state.running(sandboxId)?.generation
        }))
      )
    ).pipe(
      Effect.catchTag("Timeout", (timeout) => Effect.fail(memoryFailed("list", timeout.message, "unknown")))
    )
  })

  const onRunning = (sandboxId: SandboxId, act: (machine: RunningMachine) => void) =>
    Effect.suspend(() => {
      const machine = state.running(sandboxId)
      return machine === undefined
        ? Effect.fail(new NotFound({ kind: "sandbox", id: sandboxId }))
        : Effect.sync(() => act(machine))
    })

  const control = MemoryFaults.of({
    inject: (point, fault, scope) => Effect.sync(() => faults.inject(point, fault, scope)),
    clear: Effect.sync(() => faults.clear()),
    killMachine: (sandboxId, exit) =>
      onRunning(sandboxId, (machine) =>
        machine.end({ reason: exit?.reason ?? "the machine died", outOfMemory: exit?.outOfMemory ?? false })
      ),
    disconnect: (sandboxId) =>
      onRunning(sandboxId, (machine) => machine.disconnect("the connection was dropped"))
  })

  return Context.make(Backend, backend).pipe(Context.add(MemoryFaults, control))
})
