/**
 * Makes one measurement in this process and writes it to standard output as
 * JSON. Started by `run.ts`: a process of its own, so that no measurement sees
 * the heap, the threads or the garbage of another.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Effect, Logger, References, Schema } from "effect"
import { isMeasurementId, measurements } from "./measurements.ts"
import { Row } from "./shared/Measurement.ts"

const [id = "", directory = "", runs] = process.argv.slice(2)
const toJson = Schema.encodeEffect(
  Schema.fromJsonString(
    Schema.Struct({ title: Schema.String, about: Schema.String, rows: Schema.Array(Row) })
  )
)

const program = Effect.gen(function* () {
  if (!isMeasurementId(id)) return yield* Effect.die(new Error(`there is no measurement "${id}"`))
  const load = measurements[id]
  const { title, about, measure } = (yield* Effect.promise(() => load())).measurement
  const rows = yield* measure({ directory, runs: runs === undefined ? undefined : Number(runs) })
  process.stdout.write(yield* toJson({ title, about, rows }))
})

program.pipe(
  // Standard output is for the figures alone.
  Effect.tapCause((cause) => Effect.sync(() => process.stderr.write(Cause.pretty(cause)))),
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  NodeRuntime.runMain({ disableErrorReporting: true })
)
