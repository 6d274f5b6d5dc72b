/**
 * A place that runs sandboxes, opened and closed by hand.
 */
import { Context, Effect, Exit, Layer, Logger, ManagedRuntime, References, Schema, Scope } from "effect"
import type { Options as ServiceOptions } from "../client.ts"
import type { Options as ContainerOptions } from "../container.ts"
import type { Options as MemoryOptions } from "../memory.ts"
import { decodeInput, optionsObject } from "../services/Input.ts"
import type { Sandbox as FacadeSandbox } from "../services/Sandbox.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { closeAtEnd, holdProcess, layerIdle } from "./Alive.ts"
import { makeCalls } from "./Calls.ts"
import { type Lifted, lift } from "./Lifted.ts"
import type { CallOptions } from "./Source.ts"

/**
 * Sandboxes in this process, as containers on this computer (the default) or
 * simulated in memory; or those of a service.
 */
export type FiberboxOptions =
  | ({ readonly backend?: "container" | undefined; readonly url?: undefined } & ContainerOptions)
  | ({ readonly backend: "memory"; readonly url?: undefined } & MemoryOptions)
  | ({ readonly backend?: undefined } & ServiceOptions)

/**
 * A place that runs sandboxes: creates them, finds them, ends them. Sandboxes
 * that were made by `create` are killed when it is closed.
 */
export interface Fiberbox extends Lifted<Sandboxes["Service"]>, AsyncDisposable {
  /** Gives up the calls that are pending, kills what `create` made, and ends what runs in this process. */
  readonly close: () => Promise<void>
}

/** Where sandboxes of this process run. */
export const BackendName = Schema.Literals(["container", "memory"])

const decodePlace = decodeInput(
  Schema.Struct({
    backend: Schema.optional(BackendName),
    stateDir: Schema.optional(Schema.NonEmptyString),
    baseDir: Schema.optional(Schema.NonEmptyString)
  }),
  ""
)

/** What is not asked for is not loaded. */
const layerOf = (options: FiberboxOptions): Layer.Layer<Sandboxes, unknown> => {
  const load = async (): Promise<Layer.Layer<Sandboxes, unknown>> => {
    if (options.url !== undefined) return (await import("../client.ts")).layer(options)
    if (options.backend === "memory") return (await import("../memory.ts")).layer(options)
    return (await import("../container.ts")).layer(options)
  }
  return Layer.unwrap(Effect.andThen(decodePlace(options), Effect.promise(load)))
}

/** The standard output of a program is its own; what it should know of goes to standard error. */
const quiet = Layer.merge(
  Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
  Layer.succeed(References.MinimumLogLevel, "Warn")
)

/** The facade whose handles can be let go. */
class Holder extends Context.Service<Holder, Sandboxes["Service"]>()("fiberbox/promise/Holder") {
  static readonly layer = Layer.effect(
    Holder,
    Effect.gen(function* () {
      const sandboxes = yield* Sandboxes
      const scope = yield* Effect.scope
      return {
        ...sandboxes,
        create: (options) => createIn(scope, sandboxes, options),
        createDetached: (options) => Effect.map(sandboxes.createDetached(options), kept),
        getOrCreate: (name, options) => Effect.map(sandboxes.getOrCreate(name, options), kept),
        connect: (idOrName) => Effect.map(sandboxes.connect(idOrName), kept)
      }
    })
  )
}

type Releasable = FacadeSandbox & { readonly [Symbol.asyncDispose]: Effect.Effect<void> }

const kept = (sandbox: FacadeSandbox): Releasable => ({ ...sandbox, [Symbol.asyncDispose]: Effect.void })

/** A sandbox in a scope of its own, which ends with the sandbox, and with `parent` at the latest. */
const createIn = Effect.fnUntraced(function* (
  parent: Scope.Scope,
  sandboxes: Sandboxes["Service"],
  options: Parameters<Sandboxes["Service"]["create"]>[0]
) {
  const scope = yield* Scope.fork(parent)
  const close = Scope.close(scope, Exit.void)
  return yield* sandboxes.create(options).pipe(
    Scope.provide(scope),
    Effect.map(
      (sandbox): Releasable => ({
        ...sandbox,
        kill: Effect.andThen(sandbox.kill, close),
        [Symbol.asyncDispose]: close
      })
    ),
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
  )
})

/** Opens one; `onClose` is called when closing begins. */
export const openUntil = async (
  options: FiberboxOptions & CallOptions,
  onClose: () => void
): Promise<Fiberbox> => {
  const { signal, ...place } = await Effect.runPromise(optionsObject(options))
  const runtime = ManagedRuntime.make(
    Holder.layer.pipe(Layer.provide(layerOf(place)), Layer.provideMerge(Layer.merge(layerIdle, quiet)))
  )
  let closing: Promise<void> | undefined
  const calls = makeCalls(runtime, () => closing !== undefined)
  const close = (): Promise<void> => {
    if (closing !== undefined) return closing
    onClose()
    closing = holdProcess(() => runtime.dispose()).finally(forget)
    return closing
  }
  const forget = closeAtEnd(close)
  try {
    const sandboxes = await calls.run(Effect.map(runtime.contextEffect, Context.get(Holder)), signal)
    return { ...lift(calls, sandboxes), close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Opens places that run sandboxes. */
export const Fiberbox = {
  /**
   * Opens a place that runs sandboxes; rejects with why it cannot be had, such as
   * `BackendFailed` or `Conflict`. Without options it is containers on this computer.
   *
   * It does not keep the program running, but while a call is pending. When the
   * program has nothing left to do, it is closed by itself.
   *
   * ```ts
   * await using fiberbox = await Fiberbox.open({ backend: "container", stateDir: "/var/lib/my-service" })
   * await using sandbox = await fiberbox.create({ image: "host" })
   * ```
   */
  open: (options: FiberboxOptions & CallOptions = {}): Promise<Fiberbox> => openUntil(options, () => {})
}
