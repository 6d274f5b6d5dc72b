/**
 * What `compare.ts` measures of one checkout, in a process of its own: the
 * medians of a few hundred samples, in milliseconds, as JSON on standard output.
 * It is copied into each checkout, so that it runs that one's code.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, References } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { containers, toOutput } from "./Sandboxing.ts"
import { median } from "./Stats.ts"
import { sampled, timed } from "./Timing.ts"

const [directory = ""] = process.argv.slice(2)
const output = ["head", "-c", String(64 * 1024 * 1024), "/dev/zero"] as const

const program = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.create()
  const exec = yield* sampled({ warmUp: 200, runs: 600 }, timed(sandbox.process.run(["true"])))
  const stream = yield* sampled({ warmUp: 2, runs: 8 }, timed(toOutput(sandbox, output)))
  const create = yield* sampled(
    { warmUp: 2, runs: 12 },
    Effect.gen(function* () {
      let fresh: Effect.Success<ReturnType<typeof Sandboxes.createDetached>> | undefined
      const millis = yield* timed(
        Effect.tap(Sandboxes.createDetached(), (made) => Effect.sync(() => (fresh = made)))
      )
      if (fresh !== undefined) yield* fresh.kill
      return millis
    })
  )
  const medians = { exec: median(exec), stream: median(stream), create: median(create) }
  process.stdout.write(`${JSON.stringify(medians)}\n`)
}).pipe(
  Effect.scoped,
  Effect.provide(containers({ directory, runs: undefined })),
  Effect.provideService(References.MinimumLogLevel, "Error")
)

NodeRuntime.runMain(program)
