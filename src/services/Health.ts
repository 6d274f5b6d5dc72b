/**
 * Whether a service can do its work: for whoever routes requests to it, and
 * for those who watch it.
 */

import { Context, Effect, Fiber, Layer } from "effect"
import { elapsedMillis } from "./Alarms.ts"
import { Backend } from "./Backend.ts"
import { Calls } from "./Calls.ts"
import { SandboxStore } from "./SandboxStore.ts"
import * as ServiceMetrics from "./ServiceMetrics.ts"

/** Writes something to wherever the service keeps its records, changing nothing of them; a store in memory has nothing to try. */
export const StoreProbe = Context.Reference<Effect.Effect<void, { readonly message: string }>>(
  "fiberbox/services/StoreProbe",
  { defaultValue: () => Effect.void }
)

/** One thing that has to work. */
export interface Check {
  readonly name: "accepting" | "store" | "backend"
  readonly ok: boolean
  /** Why it does not; empty when it works. */
  readonly reason: string
}

/** What works and what does not. */
export interface Readiness {
  readonly ready: boolean
  readonly checks: ReadonlyArray<Check>
}

/** The health of one service. It exists when what was left by the last one has been reconciled. */
export class Health extends Context.Service<
  Health,
  {
    /** Whether a sandbox could be made now: tried out at most once a second, and told within {@link checkMillis}. */
    readonly readiness: Effect.Effect<Readiness>
    /** Measures what is not counted as it happens: sandboxes by status, the process's memory, calls under way. */
    readonly measure: Effect.Effect<void>
  }
>()("fiberbox/services/Health") {
  /** The health of the service whose parts are provided. */
  static readonly layer: Layer.Layer<Health, never, Backend | Calls | SandboxStore> = Layer.effect(
    Health,
    Effect.suspend(() => make)
  )
}

/** How long a check may take before it has failed, in milliseconds. */
export const checkMillis = 2_000
const freshMillis = 1_000

type Trial = Effect.Effect<unknown, { readonly message: string }>

const passed = (name: Check["name"]): Check => ({ name, ok: true, reason: "" })
const missed = (name: Check["name"], reason: string): Check => ({ name, ok: false, reason })

/** Tries something, one trial at a time: one that hangs is waited for again and never joined by another. */
const makeCheck = Effect.fnUntraced(function* (name: Check["name"], trial: Trial) {
  const examined = trial.pipe(
    Effect.as(passed(name)),
    Effect.catch(({ message }) => Effect.succeed(missed(name, message))),
    Effect.catchCause((cause) =>
      Effect.as(Effect.logError(`${name} could not be tried`, cause), missed(name, "it could not be tried"))
    )
  )
  let running: Fiber.Fiber<Check> | undefined
  // Told to end, and not waited for: what hangs holds up no end of a service.
  yield* Effect.addFinalizer(() => Effect.sync(() => running?.interruptUnsafe()))
  return Effect.gen(function* () {
    if (running === undefined || running.pollUnsafe() !== undefined) {
      running = yield* Effect.forkDetach(examined, { startImmediately: true })
    }
    return yield* Effect.timeoutOrElse(Fiber.join(running), {
      duration: checkMillis,
      orElse: () => Effect.succeed(missed(name, `no answer within ${checkMillis} ms`))
    })
  })
})

const textOf = (checks: ReadonlyArray<Check>): string =>
  checks
    .filter(({ ok }) => !ok)
    .map(({ name, reason }) => `${name}: ${reason}`)
    .join("; ")

const make = Effect.gen(function* () {
  const backend = yield* Backend
  const store = yield* SandboxStore
  const calls = yield* Calls
  const scope = yield* Effect.scope
  const checks = [
    yield* makeCheck("store", yield* StoreProbe),
    yield* makeCheck("backend", Effect.andThen(backend.ready, backend.list))
  ]
  let last: { readonly at: number; readonly checks: ReadonlyArray<Check> } | undefined
  let told = ""

  /** Says when something begins to fail, and when all works again. */
  const tell = (found: ReadonlyArray<Check>) =>
    Effect.suspend(() => {
      const text = textOf(found)
      if (text === told) return Effect.void
      told = text
      return text === "" ? Effect.logInfo("ready again") : Effect.logWarning(`not ready: ${text}`)
    })

  const examine = Effect.gen(function* () {
    const found = yield* Effect.all(checks, { concurrency: "unbounded" })
    last = { at: yield* elapsedMillis, checks: found }
    yield* tell(found)
    return found
  })
  let examining: Fiber.Fiber<ReadonlyArray<Check>> | undefined

  const present = Effect.gen(function* () {
    if (last !== undefined && (yield* elapsedMillis) - last.at < freshMillis) return last.checks
    // All who ask meanwhile get the same answer, and none of them takes it from the others by going away.
    if (examining === undefined || examining.pollUnsafe() !== undefined) {
      examining = yield* Effect.forkIn(examine, scope, { startImmediately: true })
    }
    return yield* Fiber.join(examining)
  })

  return Health.of({
    readiness: Effect.suspend(() =>
      calls.accepting()
        ? Effect.map(present, (found) => ({
            ready: found.every(({ ok }) => ok),
            checks: [passed("accepting"), ...found]
          }))
        : Effect.succeed({ ready: false, checks: [missed("accepting", "the service is ending")] })
    ),
    measure: Effect.gen(function* () {
      yield* ServiceMetrics.setSandboxes(yield* store.count)
      yield* ServiceMetrics.setMemory
      yield* ServiceMetrics.setCallsRunning(calls.running())
    }).pipe(Effect.catchCause((cause) => Effect.logWarning("could not count the sandboxes", cause)))
  })
})
