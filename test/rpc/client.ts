/**
 * A program that holds a sandbox of a service, and a run in another; the tests kill it.
 */
import { Console, Effect } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"

const [url = "", token = ""] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const scoped = yield* Sandboxes.create()
  const kept = yield* Sandboxes.createDetached()
  yield* Effect.forkScoped(kept.process.run(["sleep", "1000"], { timeoutMillis: "none" }))
  yield* Effect.repeat(kept.process.list, { until: (list) => list.length > 0 })
  yield* Console.log(JSON.stringify({ scoped: scoped.id, kept: kept.id }))
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(SandboxesClient.layer({ url, token, leaseTtl: "1 second" })))

await Effect.runPromise(program)
