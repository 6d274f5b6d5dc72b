/**
 * The service's metrics as Prometheus text, at `/metrics`.
 */
import { Effect } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { Health } from "../../services/Health.ts"

/** Where the metrics are. */
export const metricsPath = "/metrics"

/** The present values of the metric registry that is present where this effect is made. */
export const metricsAnswer = Effect.gen(function* () {
  const health = yield* Health
  const context = yield* Effect.context<never>()
  return health.measure.pipe(
    Effect.andThen(
      Effect.sync(() =>
        HttpServerResponse.text(PrometheusMetrics.formatUnsafe(context), {
          contentType: "text/plain; version=0.0.4; charset=utf-8"
        })
      )
    ),
    Effect.provideContext(context)
  )
})

/** The metrics for anybody who asks. */
export const publicRoute = HttpRouter.use((router) =>
  Effect.flatMap(metricsAnswer, (answer) => router.add("GET", metricsPath, answer))
)
