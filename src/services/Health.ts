/**
 * Whether a service can do its work: for whoever routes requests to it, and
 * for those who watch it.
 */
import { Clock, Context, Effect, Layer } from "effect"
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
    /** Tries everything out, at most once a second. Why something fails is in the log. */
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

/** How long a check may take before it has failed. */
const checkTime = "5 seconds"
const freshMillis = 1_000

const make = Effect.gen(function* () {
  const backend = yield* Backend
  const store = yield* SandboxStore
  const calls = yield* Calls
  const probe = yield* StoreProbe
  let last: { readonly at: number; readonly readiness: Readiness } | undefined

  const check = (name: Check["name"], trial: Effect.Effect<unknown, { readonly message: string }>) =>
    Effect.timeout(trial, checkTime).pipe(
      Effect.as({ name, ok: true }),
      Effect.catchCause((cause) =>
        Effect.as(Effect.logWarning(`not ready: ${name}`, cause), { name, ok: false })
      )
    )

  const examine = Effect.gen(function* () {
    const checks: ReadonlyArray<Check> = [
      { name: "accepting", ok: calls.accepting() },
      yield* check("store", probe),
      yield* check("backend", backend.list)
    ]
    return { ready: checks.every(({ ok }) => ok), checks }
  })

  return Health.of({
    readiness: Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (
        last !== undefined &&
        now - last.at < freshMillis &&
        calls.accepting() === last.readiness.checks[0]?.ok
      ) {
        return last.readiness
      }
      const readiness = yield* examine
      last = { at: now, readiness }
      return readiness
    }),
    measure: Effect.gen(function* () {
      const found = new Map<string, number>()
      for (const { status } of yield* store.alive) found.set(status, (found.get(status) ?? 0) + 1)
      yield* ServiceMetrics.setSandboxes(found)
      yield* ServiceMetrics.setMemory
      yield* ServiceMetrics.setCallsRunning(calls.running())
    }).pipe(Effect.catchCause((cause) => Effect.logWarning("could not count the sandboxes", cause)))
  })
})
