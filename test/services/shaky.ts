/**
 * Services in memory whose store, machines and backend fail on command, that can be
 * killed and started again, and whose wall clock can be set.
 */
import { Clock, Context, Effect, Exit, Layer, Logger, Scope, Stream } from "effect"
import { Sharding } from "effect/cluster"
import { Digest, SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import type { EventBody } from "../../src/domain/Event.ts"
import type { SandboxId } from "../../src/domain/Ids.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "../../src/layers/memory/MemoryFaults.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { FaultyStore } from "../../src/testing.ts"

type Provision = Backend["Service"]["provision"]

/** What a test may do to a backend, between it and the service. */
export interface Tampering {
  /** How often each operation was asked for. */
  readonly asked: { provision: number; adopt: number; remove: number }
  /** Takes the place of the next answers of `provision`. */
  readonly provisions: Array<(provision: ReturnType<Provision>) => ReturnType<Provision>>
}

const tampered = (tampering: Tampering) =>
  Layer.effect(
    Backend,
    Effect.map(Backend, (backend) => {
      const { asked, provisions } = tampering
      return {
        ...backend,
        provision: (request) =>
          Effect.suspend(() => {
            asked.provision++
            const change = provisions.shift()
            const made = backend.provision(request)
            return change === undefined ? made : change(made)
          }),
        adopt: (request) =>
          Effect.suspend(() => {
            asked.adopt++
            return backend.adopt(request)
          }),
        remove: (id) =>
          Effect.suspend(() => {
            asked.remove++
            return backend.remove(id)
          })
      } satisfies Backend["Service"]
    })
  )

/** One service of a {@link Place}. */
export interface Service {
  readonly sandboxes: Sandboxes["Service"]
  readonly client: SandboxClient["Service"]
  /** What goes wrong with its machines. */
  readonly faults: MemoryFaults["Service"]
  /** How many actors live. */
  readonly actors: Effect.Effect<number>
  /** Ends it. */
  readonly close: Effect.Effect<void>
}

const make = Effect.gen(function* () {
  const scope = yield* Effect.scope
  const ground = yield* Layer.build(
    Layer.merge(FaultyStore.layer(MemorySandboxStore.layer), MemoryWorld.layer)
  )
  const logs: Array<string> = []
  const tampering: Tampering = { asked: { provision: 0, adopt: 0, remove: 0 }, provisions: [] }
  const clock = yield* Clock.Clock
  let shiftMillis = 0
  const settable: Clock.Clock = {
    ...clock,
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + shiftMillis,
    currentTimeMillis: Effect.sync(() => clock.currentTimeMillisUnsafe() + shiftMillis),
    currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + BigInt(shiftMillis) * 1_000_000n
  }
  const log = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn" || logLevel === "Error") logs.push(`${logLevel} ${String(message)}`)
  })

  const services: Array<Service> = []
  const world = Context.get(ground, MemoryWorld)

  /** Starts a service. */
  const service = Effect.gen(function* () {
    const own = yield* Scope.fork(scope)
    const parts = yield* InProcess.actors({ onClose: "leave" }).pipe(
      (actors) => Layer.provideMerge(Layer.provideMerge(Sandboxes.layer, InProcess.client), actors),
      Layer.provideMerge(Layer.provideMerge(tampered(tampering), MemoryBackend.layerOn())),
      Layer.provideMerge(Layer.succeedContext(ground)),
      Layer.provide(Layer.merge(SecureRandom.layerWebCrypto, Digest.layerWebCrypto)),
      Layer.fresh,
      Layer.buildWithScope(own),
      Effect.provide(Logger.layer([log]))
    )
    const started: Service = {
      sandboxes: Context.get(parts, Sandboxes),
      client: Context.get(parts, SandboxClient),
      faults: Context.get(parts, MemoryFaults),
      actors: Context.get(parts, Sharding.Sharding).activeEntityCount,
      close: Scope.close(own, Exit.void)
    }
    services.push(started)
    return started
  })

  return {
    service,
    clock: settable,
    tampering,
    /** Warnings and errors in the log. */
    logs,
    store: Context.get(ground, FaultyStore.StoreFaults),
    world,
    /** Kills every service. What its end does reaches no machine any more; only detached sandboxes are left as they are. */
    crash: Effect.gen(function* () {
      yield* world.crash
      yield* Effect.forEach(services.splice(0), ({ close }) => Effect.forkIn(close, scope))
      yield* TestClock.adjust(0)
    }),
    /** Whether a machine of the sandbox runs, and whether it stands still. */
    machine: (id: SandboxId) => {
      const running = world.state.running(id)
      return running === undefined ? "none" : running.kernel.paused ? "frozen" : "running"
    },
    /** Sets the wall clock so much further than it is, or back; no time passes by that. */
    shift: (millis: number) =>
      Effect.sync(() => {
        shiftMillis += millis
      })
  }
})

/** Where machines and records are kept, while services come and go. */
export type Place = Effect.Success<typeof make>

/** A test in a place of its own, on the test clock. */
export const inPlace = <E, R extends Scope.Scope>(body: (place: Place) => Effect.Effect<void, E, R>) =>
  Effect.scoped(Effect.flatMap(make, (place) => Effect.provideService(body(place), Clock.Clock, place.clock)))

/** Lets time pass in small steps, so that what wakes up gets to do what it does before the next. */
export const pass = (millis: number, stepMillis = 100) =>
  Effect.gen(function* () {
    for (let left = millis; left > 0; left -= stepMillis) {
      yield* TestClock.adjust(Math.min(left, stepMillis))
    }
  })

/** What has happened to a sandbox. */
export const history = (sandbox: { readonly events: Sandbox["events"] }) =>
  Effect.map(Stream.runCollect(sandbox.events({ once: true })), (events) => events.map(({ body }) => body))

/** The events of one kind. */
export const only = <Tag extends EventBody["_tag"]>(events: ReadonlyArray<EventBody>, tag: Tag) =>
  events.filter((body): body is Extract<EventBody, { readonly _tag: Tag }> => body._tag === tag)

/** How the machine of a service's sandbox fails to be made. */
export const refuseProvision = (service: Service, times: number) =>
  service.faults.inject("provision", { _tag: "Refuse" }, { times })

type Sandbox = Effect.Success<ReturnType<Sandboxes["Service"]["createDetached"]>>

export type { Machine, Sandbox }
