import { createServer, type Server } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Context, Effect, Exit, Layer, Schema, Scope } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import type { ServiceSettings } from "../../src/service.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun } from "../container/support.ts"
import { start } from "../service/support.ts"
import { chainFrom, recorder, times } from "./support.ts"

const promise = <E>(name: string, body: Effect.Effect<void, E, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body))

/** The spans of one exec of a program at a service that traces, from the outermost inwards. */
const traceOf = Effect.fnUntraced(function* (settings: ServiceSettings, transport: "websocket" | "http") {
  const { layer, spans } = recorder()
  const service = yield* Effect.provide(start(settings), layer)
  const client = SandboxesClient.layer({ url: service.url, token: service.token, transport })
  const sandboxes = Context.get(yield* Layer.build(Layer.fresh(client)), Sandboxes)
  const sandbox = yield* sandboxes.create({
    limits: { memoryBytes: 64 * 1024 * 1024, diskBytes: 16 * 1024 * 1024 }
  })
  yield* sandbox.process.run(["true"]).pipe(Effect.withSpan("program"), Effect.provide(layer))
  const root = spans.find(({ name }) => name === "program")
  const chain = root === undefined ? [] : chainFrom(spans, root)
  for (const [index, inner] of chain.entries()) {
    const outer = chain[index - 1]
    if (outer === undefined) continue
    // What encloses a span at the other end of a connection may hear of its end a moment before it is noted.
    assert.isTrue(times(outer)[0] <= times(inner)[0] && times(inner)[0] < times(inner)[1], inner.name)
  }
  assert.strictEqual(new Set(chain.map(({ traceId }) => traceId)).size, 1)
  return chain.map(({ kind, name }) => `${name} (${kind})`)
})

const expected = (transport: "websocket" | "http") => [
  "program (internal)",
  "Sandbox.process.run (internal)",
  "ExecProcess (client)",
  ...(transport === "http" ? ["POST (client)", "POST (server)"] : []),
  "ExecProcess (server)",
  "Sandbox.client.ExecProcess (client)",
  "Sandbox.ExecProcess (server)",
  "Backend: run a process (internal)"
]

describe("a trace of one exec at a service", () => {
  for (const transport of ["websocket", "http"] as const) {
    promise(
      `goes from the client over ${transport} to the actor and the backend`,
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* traceOf({}, transport), expected(transport))
      })
    )
  }

  if (canRun) {
    promise(
      "goes to the agent of a container",
      Effect.gen(function* () {
        const chain = yield* traceOf({ backend: "container" }, "websocket")
        assert.deepStrictEqual(chain, [...expected("websocket"), "Agent: Spawn (client)"])
      })
    )
  }
})

const Traces = Schema.fromJsonString(
  Schema.Struct({
    resourceSpans: Schema.Array(
      Schema.Struct({
        scopeSpans: Schema.Array(
          Schema.Struct({
            spans: Schema.Array(Schema.Struct({ name: Schema.String, traceId: Schema.String }))
          })
        )
      })
    )
  })
)

describe("a service with a collector", () => {
  promise(
    "sends it traces, metrics and logs, and what is left of them when it ends",
    Effect.gen(function* () {
      const got = new Map<string, Array<string>>()
      const collector = yield* Effect.acquireRelease(
        Effect.callback<Server>((resume) => {
          const server = createServer((request, response) => {
            let body = ""
            request.on("data", (data) => {
              body += data
            })
            request.on("end", () => {
              const path = request.url ?? ""
              got.set(path, [...(got.get(path) ?? []), body])
              response.end("{}")
            })
          })
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = collector.address()
      const port = typeof address === "object" ? address?.port : undefined
      const env = {
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json"
      }
      const scope = yield* Scope.make()
      const service = yield* start().pipe(
        Scope.provide(scope),
        Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env }))
      )
      yield* Effect.gen(function* () {
        const sandbox = yield* Sandboxes.createDetached()
        yield* sandbox.process.run(["true"])
      }).pipe(Effect.provide(SandboxesClient.layer(service)))
      yield* Scope.close(scope, Exit.void)
      const names = (got.get("/v1/traces") ?? []).flatMap((body) =>
        Schema.decodeUnknownSync(Traces)(body).resourceSpans.flatMap(({ scopeSpans }) =>
          scopeSpans.flatMap(({ spans }) => spans.map(({ name }) => name))
        )
      )
      assert.includeMembers(names, [
        "ExecProcess",
        "Sandbox.ExecProcess",
        "Backend: run a process",
        "CreateSandbox"
      ])
      assert.include((got.get("/v1/metrics") ?? []).join(), "fiberbox_creates_total")
      assert.include((got.get("/v1/logs") ?? []).join(), "serving")
    })
  )
})
