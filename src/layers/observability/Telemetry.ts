/**
 * Traces, metrics and logs to whatever collects them, by the OpenTelemetry
 * protocol over HTTP and the variables that its specification names
 * (https://opentelemetry.io/docs/specs/otel/protocol/exporter/): nothing is sent unless
 * `OTEL_EXPORTER_OTLP_ENDPOINT` (or that of one signal) is set.
 */
import { Config, ConfigProvider, Effect, Layer, References } from "effect"
import { FetchHttpClient } from "effect/http"
import { Otlp, OtlpSerialization } from "effect/observability"
import { isTraced } from "../../services/Tracing.ts"

/** Protobuf unless `OTEL_EXPORTER_OTLP_PROTOCOL` says `http/json`; gRPC is not spoken. */
const serialization = Layer.unwrap(
  Effect.map(
    Effect.orElseSucceed(
      Config.withDefault(
        Config.Literals(["http/protobuf", "http/json"], "OTEL_EXPORTER_OTLP_PROTOCOL"),
        "http/protobuf"
      ),
      () => "http/protobuf" as const
    ),
    (protocol) => (protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf)
  )
)

/** All three signals are exported unless one is named otherwise: the specification's default. */
const defaults = ConfigProvider.fromEnv({
  env: { OTEL_TRACES_EXPORTER: "otlp", OTEL_METRICS_EXPORTER: "otlp", OTEL_LOGS_EXPORTER: "otlp" }
})
const withDefaults = Layer.effect(
  ConfigProvider.ConfigProvider,
  Effect.map(ConfigProvider.ConfigProvider, (given) => ConfigProvider.orElse(given, defaults))
)

const exporters = (version: string) =>
  Otlp.layerFromConfig({
    resource: { serviceName: "fiberbox", serviceVersion: version },
    loggerMergeWithExisting: true
  }).pipe(Layer.provide([FetchHttpClient.layer, serialization, withDefaults]))

/** Nobody would see them: then no span is made at all. */
const withoutSpans = Layer.unwrap(
  Effect.withFiber((fiber) =>
    Effect.succeed(isTraced(fiber) ? Layer.empty : Layer.succeed(References.TracerEnabled, false))
  )
)

/** The exporters that the environment asks for, for what is built on this layer. `version` is the service's own. */
export const layer = (version: string) => Layer.provideMerge(withoutSpans, exporters(version))
