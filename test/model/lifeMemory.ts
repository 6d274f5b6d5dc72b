/**
 * Worlds in memory for random programs of a sandbox's life: a simulated
 * computer, on which a service is a program that can be killed between two steps.
 */
import { createHash } from "node:crypto"
import { Context, Effect, Exit, type Fiber, Layer, Random, Scope, Stream } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { Connection } from "../../src/domain/Errors.ts"
import type { SandboxId } from "../../src/domain/Ids.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import { type Fault, type FaultPoint, MemoryFaults } from "../../src/layers/memory/MemoryFaults.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { SandboxStore } from "../../src/services/SandboxStore.ts"
import { selfContained } from "../../src/services/selfContained.ts"
import { FaultyStore, type LifeSystem, type SimulatedProcess, Simulation } from "../../src/testing.ts"
import type { Flaws } from "./lifeFlaws.ts"

type Store = SandboxStore["Service"]

/** Node's own digests, since in a simulation nothing may wait for anything real. */
const digests = Layer.succeed(Digest.Digest, {
  digest: (algorithm, data) => Effect.sync(() => createHash(algorithm.name).update(data).digest()),
  digestHex: (algorithm, data) => Effect.sync(() => createHash(algorithm.name).update(data).digest("hex"))
})

const random = Layer.effect(
  SecureRandom.SecureRandom,
  Effect.map(Effect.service(Random.Random), (numbers) =>
    SecureRandom.make((size) =>
      Uint8Array.from({ length: size }, () => Math.floor(numbers.nextDoubleUnsafe() * 256))
    )
  )
)

/** The store as one service sees it: every operation takes a step to get there and one to come back, and after its death none arrives. */
const distant = (store: Store, service: SimulatedProcess): Store => {
  const there = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.andThen(
      Effect.yieldNow,
      Effect.suspend(() => (service.isDead() ? Effect.never : Effect.tap(effect, () => Effect.yieldNow)))
    )
  return {
    create: (record, admission) => there(store.create(record, admission)),
    get: (id) => there(store.get(id)),
    byKey: (owner, key) => there(store.byKey(owner, key)),
    find: (owner, idOrName) => there(store.find(owner, idOrName)),
    list: (owner, request) => there(store.list(owner, request)),
    alive: there(store.alive),
    count: there(store.count),
    known: (ids) => there(store.known(ids)),
    save: (record, events) => there(store.save(record, events)),
    events: (id, after, limit) => there(store.events(id, after, limit)),
    purge: (killedBefore, except) => there(store.purge(killedBefore, except))
  }
}

/** As many steps as there and back again take. */
const far = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.yieldNow.pipe(
    Effect.andThen(Effect.yieldNow),
    Effect.andThen(effect),
    Effect.tap(() => Effect.andThen(Effect.yieldNow, Effect.yieldNow))
  )

/** The backend, with steps on the way to it and back in which something may go wrong. */
const farBackend = (backend: Backend["Service"]): Backend["Service"] => {
  const farMachine = (machine: Machine): Machine => ({
    ...machine,
    pause: far(machine.pause),
    resume: far(machine.resume),
    terminate: far(machine.terminate),
    processes: {
      ...machine.processes,
      run: (request) => Stream.unwrap(far(Effect.sync(() => machine.processes.run(request)))),
      start: (request) => far(machine.processes.start(request)),
      list: far(machine.processes.list),
      kill: (processId) => far(machine.processes.kill(processId))
    },
    files: {
      ...machine.files,
      write: (path, data, options) => far(machine.files.write(path, data, options))
    }
  })
  return {
    ...backend,
    provision: (request) => Effect.map(far(backend.provision(request)), farMachine),
    adopt: (request) => Effect.map(far(backend.adopt(request)), farMachine),
    end: (id) => far(backend.end(id)),
    remove: (id) => far(backend.remove(id)),
    list: far(backend.list)
  }
}

/** A service that runs. */
interface Running {
  readonly process: SimulatedProcess
  readonly sandboxes: Sandboxes["Service"]
  readonly scope: Scope.Closeable
}

/** Where a hanging agent does not answer. */
const agentPoints: ReadonlyArray<FaultPoint> = [
  "spawn",
  "attach",
  "processes",
  "signal",
  "kill",
  "cancel",
  "limit",
  "stdin",
  "resize",
  "files",
  "watch",
  "dial"
]

const helperFaults: { readonly [how: string]: Fault } = {
  dies: { _tag: "Refuse" },
  hangs: { _tag: "Hang" },
  "loses its answer": { _tag: "LoseReply" }
}

/** The longest that starting or ending a service may take, in milliseconds. */
const serviceMillis = 300_000

/** A fresh world. */
export const make = Effect.fnUntraced(function* (flaws: Flaws = {}) {
  const simulation = new Simulation()
  const base = yield* Effect.context<never>()
  const ground = simulation.process("the computer", base)
  let starts = 0

  /** Runs something in a program of the simulation to its end. */
  const complete = <A, E>(process: SimulatedProcess, effect: Effect.Effect<A, E>, millis: number) =>
    Effect.sync(() => {
      const fiber = simulation.fork(process, effect)
      simulation.advanceUntil(() => fiber.pollUnsafe() !== undefined, millis)
      return fiber.pollUnsafe()
    })
  const completed = <A, E>(process: SimulatedProcess, effect: Effect.Effect<A, E>) =>
    Effect.flatMap(
      complete(process, effect, serviceMillis),
      (exit): Effect.Effect<A> =>
        exit === undefined
          ? Effect.die(new Error(`the service did not start or end in ${serviceMillis} ms`))
          : Effect.orDie(exit)
    )

  const outer = yield* Scope.make()
  yield* Effect.addFinalizer(() => completed(ground, Scope.close(outer, Exit.void)))
  const build = <A, E>(process: SimulatedProcess, layer: Layer.Layer<A, E>, scope: Scope.Scope) =>
    completed(process, Layer.buildWithScope(Layer.fresh(layer), scope))

  const kept = yield* build(
    ground,
    Layer.mergeAll(
      MemoryWorld.layer,
      FaultyStore.layer(
        Layer.effect(
          SandboxStore,
          Effect.map(SandboxStore, (store) => flaws.store?.(store) ?? store)
        ).pipe(Layer.provide(MemorySandboxStore.layer))
      )
    ),
    outer
  )
  const world = Context.get(kept, MemoryWorld)
  const storeFaults = Context.get(kept, FaultyStore.StoreFaults)
  // What machines run on is the computer's, and lives on without the service that made them.
  const backendOf = Effect.suspend(() =>
    build(ground, MemoryBackend.layerOn().pipe(Layer.provide(Layer.succeedContext(kept))), outer)
  )

  let backend = yield* backendOf
  const start = Effect.gen(function* () {
    const process = simulation.process(`service ${++starts}`, base)
    const scope = yield* Scope.make()
    backend = yield* backendOf
    const store = distant(Context.get(kept, SandboxStore), process)
    const place = farBackend(Context.get(backend, Backend))
    const layer = InProcess.layer({ onClose: "leave" }).pipe(
      Layer.provide([
        Layer.succeed(SandboxStore, store),
        Layer.succeed(Backend, flaws.backend?.(place) ?? place),
        random,
        digests
      ]),
      selfContained,
      Layer.orDie
    )
    const context = yield* build(process, layer, scope)
    const running: Running = { process, scope, sandboxes: Context.get(context, Sandboxes) }
    return running
  })

  let service = yield* start
  const restart = Effect.fnUntraced(function* (isKilled: boolean) {
    if (isKilled) {
      service.process.kill()
      yield* world.crash
    } else {
      yield* completed(service.process, Scope.close(service.scope, Exit.void))
      service.process.kill()
    }
    service = yield* start
  })

  const faults = () => Context.get(backend, MemoryFaults)
  const strike = (fault: LifeSystem.Fault, id: SandboxId | undefined): Effect.Effect<void> => {
    switch (fault._tag) {
      case "ServiceKilled":
        return restart(true)
      case "ServiceEnded":
        return restart(false)
      case "MachineDies":
        return id === undefined ? Effect.void : Effect.ignore(faults().killMachine(id))
      case "WayCut":
        return id === undefined ? Effect.void : Effect.ignore(faults().disconnect(id))
      case "AgentHangs":
        return Effect.forEach(
          id === undefined ? [] : agentPoints,
          (point) =>
            faults().inject(point, { _tag: "Hang" }, { sandboxId: id, times: Number.POSITIVE_INFINITY }),
          { discard: true }
        )
      case "HelperFails":
        return faults().inject(fault.at, helperFaults[fault.how] ?? { _tag: "Hang" }, { sandboxId: id })
      case "StoreFails":
        return Effect.andThen(
          fault.skip === 0 ? Effect.void : storeFaults.inject("save", { _tag: "Delay", duration: 1 }),
          storeFaults.inject("save", { _tag: "Refuse" }, { times: fault.writes ?? Number.POSITIVE_INFINITY })
        )
      case "DiskFull":
        return storeFaults.inject("save", { _tag: "Refuse" }, { times: Number.POSITIVE_INFINITY })
      case "ClockJumps":
        return Effect.sync(() => simulation.jump(fault.to === "an hour on" ? 3_600_000 : -86_400_000))
    }
  }

  const asked = <A, E>(fiber: Fiber.Fiber<A, E>, process: SimulatedProcess) => {
    const lost = new Connection({ reason: "the service was killed", outcome: "unknown" })
    const isOver = () => fiber.pollUnsafe() !== undefined || process.isDead()
    return {
      some: (moment: number) => Effect.sync(() => void simulation.step(moment)),
      answer: (millis: number) =>
        Effect.sync(() => {
          simulation.advanceUntil(isOver, millis)
          const exit = fiber.pollUnsafe()
          const isLost = exit === undefined || Exit.hasInterrupts(exit)
          return isLost && process.isDead() ? Exit.fail(lost) : exit
        }),
      giveUp: (millis: number) =>
        Effect.sync(() => {
          fiber.interruptUnsafe()
          simulation.advanceUntil(isOver, millis)
          return fiber.pollUnsafe()
        })
    }
  }

  const made: LifeSystem.World = {
    unitMillis: 10_000,
    callMillis: 240_000,
    orderMillis: 300_000,
    ask: (call) =>
      Effect.sync(() => {
        const { process, sandboxes } = service
        return asked(simulation.fork(process, call(sandboxes)), process)
      }),
    strike,
    heal: Effect.gen(function* () {
      yield* Effect.andThen(faults().clear, storeFaults.clear)
      simulation.setRight()
    }),
    wait: (millis) => Effect.sync(() => simulation.advance(millis)),
    now: Effect.sync(() => ({ elapsed: simulation.elapsed, wall: simulation.wall })),
    census: Effect.sync(() =>
      [...world.state.homes.keys()].map((id) => {
        const kernel = world.state.running(id)?.kernel
        if (kernel === undefined) return { id, machine: undefined }
        const programs = [...kernel.processes.values()].map(({ argv }) => argv.join(" "))
        return { id, machine: { generation: kernel.generation, isPaused: kernel.paused, programs } }
      })
    )
  }
  return made
})
