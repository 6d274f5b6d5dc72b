/**
 * Worlds in memory for random programs: machines and records that outlive the
 * service, and a service that can be ended, broken and started again.
 */
import { Effect, Exit, Layer, Ref, Scope } from "effect"
import * as Context from "effect/Context"
import { Digest, SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { BackendFailed } from "../../src/domain/Errors.ts"
import type { SandboxId } from "../../src/domain/Ids.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "../../src/layers/memory/MemoryFaults.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { SandboxStore } from "../../src/services/SandboxStore.ts"
import { selfContained } from "../../src/services/selfContained.ts"
import type { ModelSystem } from "../../src/testing.ts"

type Store = SandboxStore["Service"]

/** Random bytes that are the same in every world. */
const makeRandom = () => {
  let state = 1
  const next = () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
    return (state >>> 16) & 0xff
  }
  return SecureRandom.make((size) => Uint8Array.from({ length: size }, next))
}

/** A backend whose next file operation on a machine dies when its sandbox is among the broken. */
export const breakable = (broken: Set<string>) =>
  Layer.effect(
    Backend,
    Effect.map(Backend, (backend) => {
      const wrap = (id: SandboxId) => (machine: Machine) => ({
        ...machine,
        files: {
          ...machine.files,
          stat: (...args: Parameters<Machine["files"]["stat"]>) =>
            Effect.suspend(() =>
              broken.delete(id) ? Effect.die(new Error("a defect on purpose")) : machine.files.stat(...args)
            )
        }
      })
      return {
        ...backend,
        provision: (request) => Effect.map(backend.provision(request), wrap(request.sandboxId)),
        adopt: (request) => Effect.map(backend.adopt(request), wrap(request.sandboxId))
      } satisfies Backend["Service"]
    })
  )

/** The store as one service sees it: once that service was killed, it writes and reads nothing any more. */
const fenced = (store: Store, isDead: () => boolean): Store => {
  const dead = new BackendFailed({
    backend: "store",
    operation: "reach it",
    reason: "the service was killed",
    outcome: "not-started"
  })
  const guard = <A, E>(effect: Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | BackendFailed> => (isDead() ? Effect.fail(dead) : effect))
  return {
    create: (record) => guard(store.create(record)),
    get: (id) => guard(store.get(id)),
    byKey: (owner, key) => guard(store.byKey(owner, key)),
    find: (owner, idOrName) => guard(store.find(owner, idOrName)),
    list: (owner, request) => guard(store.list(owner, request)),
    alive: guard(store.alive),
    save: (record, events) => guard(store.save(record, events)),
    events: (id, after, limit) => guard(store.events(id, after, limit)),
    count: guard(store.count),
    known: (ids) => guard(store.known(ids)),
    purge: (before, except) => guard(store.purge(before, except))
  }
}

/** What may be wrong with a world, to see whether it is found. */
export interface Flaws {
  readonly store?: (store: Store) => Store
  readonly backend?: Layer.Layer<Backend, never, Backend>
}

/** A fresh world, on the test clock. */
export const make = Effect.fnUntraced(function* (flaws: Flaws = {}) {
  const world = Context.get(yield* Layer.build(Layer.fresh(MemoryWorld.layer)), MemoryWorld)
  const kept = Context.get(yield* Layer.build(Layer.fresh(MemorySandboxStore.layer)), SandboxStore)
  const store = flaws.store === undefined ? kept : flaws.store(kept)
  const broken = new Set<string>()
  const random = Layer.succeed(SecureRandom.SecureRandom, makeRandom())
  const outer = yield* Effect.scope

  const start = Effect.gen(function* () {
    const scope = yield* Scope.fork(outer)
    let dead = false
    const layer = InProcess.layer({ onClose: "leave" }).pipe(
      Layer.provide(flaws.backend ?? Layer.effect(Backend, Backend)),
      Layer.provide(breakable(broken)),
      Layer.provideMerge(MemoryBackend.layerOn()),
      Layer.provide([random, Digest.layerWebCrypto]),
      Layer.provide(
        Layer.succeed(
          SandboxStore,
          fenced(store, () => dead)
        )
      ),
      Layer.provide(Layer.succeed(MemoryWorld, world)),
      selfContained,
      Layer.orDie
    )
    const context = yield* Layer.buildWithScope(layer, scope)
    return {
      sandboxes: Context.get(context, Sandboxes),
      faults: Context.get(context, MemoryFaults),
      end: (crash: boolean) =>
        Effect.suspend(() => {
          dead = crash
          return Effect.andThen(crash ? world.crash : Effect.void, Scope.close(scope, Exit.void))
        })
    }
  })

  const service = yield* Ref.make(yield* start)
  const made: ModelSystem.World = {
    sandboxes: Effect.map(Ref.get(service), ({ sandboxes }) => sandboxes),
    die: (id) => Effect.flatMap(Ref.get(service), ({ faults }) => Effect.orDie(faults.killMachine(id))),
    breakNext: (id) => Effect.sync(() => broken.add(id)),
    restartService: (crash) =>
      Ref.get(service).pipe(
        Effect.flatMap(({ end }) => end(crash)),
        Effect.andThen(start),
        Effect.flatMap((next) => Ref.set(service, next))
      ),
    wait: (millis) => TestClock.adjust(millis)
  }
  return made
})
