/**
 * Making a store misbehave, on purpose and on command: for tests of what a
 * program does when its sandboxes cannot be recorded.
 */
import { Clock, Context, type Duration, Effect, Layer } from "effect"
import { BackendFailed } from "../domain/Errors.ts"
import type { SandboxId } from "../domain/Ids.ts"
import { type SandboxRecord, SandboxStore } from "../services/SandboxStore.ts"

/** The operations of a store that a fault can be put into. */
export type StoreOperation = keyof SandboxStore["Service"]

/** How an operation misbehaves. */
export type StoreFault =
  /** It fails with `BackendFailed` and nothing of it happens. */
  | { readonly _tag: "Refuse"; readonly reason?: string }
  /** It happens, but the answer is a `BackendFailed` of unknown outcome. */
  | { readonly _tag: "LoseReply"; readonly reason?: string }
  /** It happens that much later. */
  | { readonly _tag: "Delay"; readonly duration: Duration.Input }
  /** It waits, without a limit, until the faults are cleared, and happens then. */
  | { readonly _tag: "Hang" }

/** Which of the operations a fault meets. */
export interface StoreFaultScope {
  /** How many of them; default: 1, `Infinity` is every one. */
  readonly times?: number | undefined
  /** Only those on this sandbox; default: of all. */
  readonly sandboxId?: SandboxId | undefined
  /** Only those that would write a record for which this holds. */
  readonly when?: ((record: SandboxRecord) => boolean) | undefined
}

/** An operation that was asked of the store. */
export interface StoreCall {
  readonly operation: StoreOperation
  /** When, in milliseconds since the epoch. */
  readonly at: number
  /** The record that it would write, if it is one that writes. */
  readonly record: SandboxRecord | undefined
}

/** The control handle. */
export class StoreFaults extends Context.Service<
  StoreFaults,
  {
    /** Puts a fault into an operation. Faults of one operation are met in the order in which they were put in. */
    readonly inject: (
      operation: StoreOperation,
      fault: StoreFault,
      scope?: StoreFaultScope
    ) => Effect.Effect<void>
    /** Takes out the faults not yet met, and lets go on what hangs. */
    readonly clear: Effect.Effect<void>
    /** What was asked of the store so far, in order. */
    readonly calls: Effect.Effect<ReadonlyArray<StoreCall>>
  }
>()("fiberbox/testing/StoreFaults") {}

interface Injected extends StoreFaultScope {
  readonly operation: StoreOperation
  readonly fault: StoreFault
  left: number
}

const failed = (operation: string, reason: string, outcome: BackendFailed["outcome"]) =>
  new BackendFailed({ backend: "store", operation, reason, outcome })

const make = (store: SandboxStore["Service"]) => {
  let injected: Array<Injected> = []
  let waiting: Array<() => void> = []
  const calls: Array<StoreCall> = []

  const take = (operation: StoreOperation, id: SandboxId | undefined, record: SandboxRecord | undefined) => {
    const met = injected.find(
      (one) =>
        one.operation === operation &&
        (one.sandboxId === undefined || one.sandboxId === id) &&
        (one.when === undefined || (record !== undefined && one.when(record)))
    )
    if (met === undefined) return undefined
    met.left--
    if (met.left <= 0) injected = injected.filter((one) => one !== met)
    return met.fault
  }

  const cleared = Effect.callback<void>((resume) => {
    waiting.push(() => resume(Effect.void))
  })

  const faulty = <A, E>(
    operation: StoreOperation,
    about: { readonly id?: SandboxId; readonly record?: SandboxRecord },
    run: Effect.Effect<A, E>
  ): Effect.Effect<A, E | BackendFailed> =>
    Effect.flatMap(Clock.currentTimeMillis, (at) => {
      calls.push({ operation, at, record: about.record })
      const fault = take(operation, about.record?.id ?? about.id, about.record)
      switch (fault?._tag) {
        case undefined:
          return run
        case "Refuse":
          return Effect.fail(failed(operation, fault.reason ?? "refused", "not-started"))
        case "LoseReply":
          return Effect.andThen(
            run,
            Effect.fail(failed(operation, fault.reason ?? "the reply was lost", "unknown"))
          )
        case "Delay":
          return Effect.andThen(Effect.sleep(fault.duration), run)
        case "Hang":
          return Effect.andThen(cleared, run)
      }
    })

  const wrapped = SandboxStore.of({
    create: (record, admission) => faulty("create", { record }, store.create(record, admission)),
    get: (id) => faulty("get", { id }, store.get(id)),
    byKey: (owner, key) => faulty("byKey", {}, store.byKey(owner, key)),
    find: (owner, idOrName) => faulty("find", {}, store.find(owner, idOrName)),
    list: (owner, request) => faulty("list", {}, store.list(owner, request)),
    alive: faulty("alive", {}, store.alive),
    save: (record, events) => faulty("save", { record }, store.save(record, events)),
    events: (id, after, limit) => faulty("events", { id }, store.events(id, after, limit)),
    count: faulty("count", {}, store.count),
    known: (ids) => faulty("known", {}, store.known(ids)),
    purge: (killedBefore, except) => faulty("purge", {}, store.purge(killedBefore, except))
  })

  const control = StoreFaults.of({
    inject: (operation, fault, scope = {}) =>
      Effect.sync(() => {
        injected.push({ ...scope, operation, fault, left: scope.times ?? 1 })
      }),
    clear: Effect.sync(() => {
      injected = []
      const free = waiting
      waiting = []
      for (const go of free) go()
    }),
    calls: Effect.sync(() => [...calls])
  })

  return Context.make(SandboxStore, wrapped).pipe(Context.add(StoreFaults, control))
}

/** A store that does what it does until a fault is put into it, and the handle that does so. */
export const layer = <E, R>(
  store: Layer.Layer<SandboxStore, E, R>
): Layer.Layer<SandboxStore | StoreFaults, E, R> =>
  Layer.effectContext(Effect.map(SandboxStore, make)).pipe(Layer.provide(store))
