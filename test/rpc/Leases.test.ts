/**
 * What a client holds ends with it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, type Duration, Effect, Exit, Fiber, Layer, Option, Scope, Stream } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { NotFound, silenceOf } from "../../src/domain/Errors.ts"
import { Server } from "../../src/server.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { makeProxy } from "./proxy.ts"
import { aliceToken, memory, onlyAlice, serving } from "./support.ts"

const start = Effect.fnUntraced(function* (patience: Duration.Input) {
  const context = yield* Layer.build(serving().pipe(Layer.provide(Layer.merge(memory, onlyAlice))))
  const { url } = Context.get(context, Server.ServerAddress)
  const proxy = yield* makeProxy(url)
  const options = { token: aliceToken, leaseTtl: "1 second", patience } as const
  const reach = (url: string) =>
    Effect.map(Layer.build(SandboxesClient.layer({ url, ...options })), (context) =>
      Context.get(context, Sandboxes)
    )
  return { proxy, reach: reach(proxy.url), direct: yield* reach(url) }
})

describe("a client", () => {
  it.live("that lives keeps what it holds, for much longer than its lease", () =>
    Effect.gen(function* () {
      const { reach } = yield* start("200 millis")
      const sandboxes = yield* reach
      const sandbox = yield* sandboxes.create()
      yield* sandbox.commands.run("sleep 2.2")
      assert.strictEqual((yield* sandbox.info).status, "running")
    }).pipe(Effect.scoped)
  )

  it.live("that closes ends what it holds, at once", () =>
    Effect.gen(function* () {
      const { reach, direct } = yield* start("200 millis")
      const scope = yield* Scope.make()
      const sandboxes = yield* Scope.provide(reach, scope)
      yield* Scope.provide(sandboxes.create(), yield* Scope.make())
      const detached = yield* sandboxes.createDetached()
      yield* Scope.close(scope, Exit.void)
      const { sandboxes: left } = yield* direct.list()
      assert.deepStrictEqual(
        left.map((info) => info.id),
        [detached.id]
      )
    }).pipe(Effect.scoped)
  )

  it.live("that is cut off for good loses its scoped sandboxes and its runs, and nothing else", () =>
    Effect.gen(function* () {
      const { proxy, reach, direct } = yield* start("200 millis")
      const sandboxes = yield* reach
      const scoped = yield* sandboxes.create()
      const kept = yield* sandboxes.createDetached()
      const background = yield* kept.process.start(["sleep", "1000"])
      yield* Effect.forkScoped(Effect.ignore(kept.process.run(["sleep", "2000"])))
      const same = yield* direct.connect(kept.id)
      const running = Effect.map(same.process.list, (list) => list.filter((one) => one.exit === undefined))
      yield* Effect.repeat(running, { until: (list) => list.length === 2 })

      yield* proxy.refuse(true)
      const gone = yield* direct.connect(scoped.id)
      yield* gone.events().pipe(
        Stream.takeUntil((event) => event.body._tag === "StatusChanged" && event.body.to === "killed"),
        Stream.runDrain
      )
      const left = yield* Effect.repeat(running, { until: (list) => list.length < 2 })
      assert.deepStrictEqual(
        left.map((one) => one.processId),
        [background.processId]
      )
      assert.strictEqual((yield* same.info).status, "running")

      const reason = silenceOf(1_000)
      const killed = yield* Stream.runCollect(gone.events({ once: true }))
      assert.containSubset(killed.at(-1)?.body, { to: "killed", reason })
      const missing = yield* Effect.flip(gone.commands.run("true"))
      assert.deepStrictEqual(missing, new NotFound({ kind: "sandbox", id: scoped.id, reason }))
    }).pipe(Effect.scoped)
  )

  it.live("that comes back after its lease is told so by its runs", () =>
    Effect.gen(function* () {
      const { proxy, reach, direct } = yield* start("30 seconds")
      const sandboxes = yield* reach
      const sandbox = yield* sandboxes.createDetached()
      const program = ["sh", "-c", "echo begun; exec sleep 2000"] as const
      const run = yield* Effect.forkScoped(Effect.flip(sandbox.process.run(program)))
      const stream = yield* Effect.forkScoped(Stream.runLast(sandbox.process.stream(program)))
      const same = yield* direct.connect(sandbox.id)
      const running = Effect.map(same.process.list, (list) => list.filter((one) => one.exit === undefined))
      const began = Effect.map(running, (list) => list.filter((one) => one.end > 0))
      yield* Effect.repeat(began, { until: (list) => list.length === 2 })

      yield* proxy.refuse(true)
      yield* Effect.repeat(running, { until: (list) => list.length === 0 })
      yield* proxy.refuse(false)
      const error = yield* Fiber.join(run)
      assert.containSubset(error, { _tag: "Timeout", limit: "lease", millis: 1_000, stdout: "begun\n" })
      const last = Option.getOrThrow(yield* Fiber.join(stream))
      assert.containSubset(last, { _tag: "Exited", timedOut: false, lapsedMillis: 1_000 })
    }).pipe(Effect.scoped)
  )
})
