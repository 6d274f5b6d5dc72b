import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted, Scope, Stream } from "effect"
import { find } from "../../src/service.ts"
import { adminOf, get, sandboxesOf, start, temporary } from "./support.ts"

const promise = <E>(name: string, body: Effect.Effect<void, E, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body))

const located = (baseDir: string) => Effect.provide(find(baseDir), NodeServices.layer)

describe("a service", () => {
  promise(
    "serves sandboxes to whoever has its token, and is found with it",
    Effect.gen(function* () {
      const service = yield* start()
      const found = yield* located(service.baseDir)
      assert.strictEqual(found?.url, service.url)
      assert.strictEqual(found && Redacted.value(found.token), service.token)
      const sandboxes = yield* sandboxesOf(service, service.token)
      const sandbox = yield* sandboxes.create()
      assert.strictEqual((yield* sandbox.commands.run("echo hello")).stdout, "hello\n")
      const stranger = yield* sandboxesOf(service, "nobody")
      assert.strictEqual((yield* Effect.flip(stranger.list()))._tag, "Authentication")
    })
  )

  promise(
    "keeps its token and its keys for the next one in the same place",
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const { key, token } = yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* start({ baseDir })
          const admin = yield* adminOf(first, first.token)
          return { key: yield* admin.mintKey({ owner: "alice", scope: "exec" }), token: first.token }
        })
      )
      assert.isUndefined(yield* located(baseDir))
      const second = yield* start({ baseDir })
      assert.strictEqual(second.token, token)
      const alice = yield* sandboxesOf(second, Redacted.value(key.token))
      assert.deepStrictEqual((yield* alice.list()).sandboxes, [])
    })
  )

  promise(
    "shares its place with no other",
    Effect.gen(function* () {
      const { baseDir } = yield* start()
      const error = yield* Effect.flip(start({ baseDir }))
      assert.deepInclude(error, { _tag: "Conflict", kind: "instance" })
    })
  )

  promise(
    "does not start with a secret that is too short, or on a port that is taken",
    Effect.gen(function* () {
      const secret = yield* Effect.flip(start({ jwt: { secret: Redacted.make("short") } }))
      assert.deepInclude(secret, { _tag: "InvalidArgument", field: "JWT_SECRET" })
      const { url } = yield* start()
      const port = yield* Effect.flip(start({ port: Number(new URL(url).port) }))
      assert.deepInclude(port, { _tag: "BackendFailed", operation: "listen" })
    })
  )

  promise(
    "offers the machine's own programs, and directories, only when its operator says so",
    Effect.gen(function* () {
      const service = yield* start({ hostImage: false, imageRoots: ["/srv/images"] })
      const sandboxes = yield* sandboxesOf(service, service.token)
      for (const image of ["host", "dir:/", "dir:/srv", "dir:/srv/images/../../etc", "dir:/srv/images-not"]) {
        const error = yield* Effect.flip(sandboxes.createDetached({ image }))
        assert.deepInclude(error, { _tag: "PolicyDenied", policy: "images" }, image)
      }
    })
  )

  promise(
    "holds everybody to the quotas it is given",
    Effect.gen(function* () {
      const service = yield* start({ perOwner: { sandboxes: 1 } })
      const sandboxes = yield* sandboxesOf(service, service.token)
      yield* sandboxes.createDetached()
      assert.strictEqual((yield* Effect.flip(sandboxes.createDetached()))._tag, "ResourceExhausted")
    })
  )

  promise(
    "says that it lives, that it is ready, and to whom it trusts, how it is",
    Effect.gen(function* () {
      const service = yield* start()
      const sandboxes = yield* sandboxesOf(service, service.token)
      const sandbox = yield* sandboxes.createDetached()
      yield* sandbox.commands.run("echo 0123456789")
      yield* Effect.ignore(sandbox.files.readText("/no/such/file"))
      assert.strictEqual((yield* get(service, "/health")).status, 200)
      assert.strictEqual((yield* get(service, "/ready")).status, 200)
      assert.strictEqual((yield* get(service, "/metrics")).status, 401)
      const { body, status } = yield* get(service, "/metrics", service.token)
      assert.strictEqual(status, 200)
      for (const line of [
        'fiberbox_sandboxes{status="running"} 1',
        'fiberbox_sandboxes{status="failed"} 0',
        "fiberbox_creates_total 1",
        "fiberbox_execs_total 1",
        "fiberbox_output_bytes_total 11",
        'fiberbox_calls_total{operation="ExecProcess"} 1',
        'fiberbox_call_errors_total{error="FileFailed"} 2',
        'fiberbox_call_seconds_count{operation="CreateSandbox"} 1',
        "fiberbox_refused_tokens_total 1"
      ]) {
        assert.include(body.split("\n"), line)
      }
      assert.match(body, /fiberbox_process_memory_bytes\{kind="rss"\} \d{6,}/)
    })
  )

  promise(
    "tells its metrics to anybody where its operator wants that",
    Effect.gen(function* () {
      const service = yield* start({ publicMetrics: true })
      assert.strictEqual((yield* get(service, "/metrics")).status, 200)
    })
  )

  promise(
    "counts for itself alone, though another one is in the same program",
    Effect.gen(function* () {
      const one = yield* start()
      const other = yield* start()
      const sandboxes = yield* sandboxesOf(one, one.token)
      yield* sandboxes.createDetached()
      assert.include((yield* get(one, "/metrics", one.token)).body, "fiberbox_creates_total 1")
      assert.notInclude((yield* get(other, "/metrics", other.token)).body, "fiberbox_creates_total")
    })
  )
})

describe("a service that ends", () => {
  const running = Effect.fnUntraced(function* (settings: Parameters<typeof start>[0]) {
    const scope = yield* Scope.make()
    const service = yield* Scope.provide(start(settings), scope)
    const sandboxes = yield* sandboxesOf(service, service.token)
    return { service, sandboxes, end: Scope.close(scope, Exit.void) }
  })

  promise(
    "waits for calls under way, takes no new ones, and is neither found nor reached any more",
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const { end, sandboxes, service } = yield* running({ baseDir, drainMillis: 10_000 })
      const sandbox = yield* sandboxes.createDetached()
      const command = yield* Effect.forkChild(sandbox.commands.run("sleep 1; echo done"))
      yield* Stream.runHead(
        Stream.filter(
          Stream.tick("5 millis").pipe(Stream.mapEffect(() => sandbox.process.list)),
          (list) => list.length > 0
        )
      )
      const ending = yield* Effect.forkChild(end)
      const refusal = yield* Effect.flip(
        Effect.forever(Effect.andThen(Effect.sleep(10), sandbox.files.write("/tmp/x", "y")))
      )
      assert.deepInclude(refusal, { _tag: "Connection", outcome: "not-started" })
      assert.isUndefined(yield* located(baseDir))
      const refused = yield* Effect.flip(Effect.tryPromise(() => fetch(`${service.url}/health`)))
      assert.match(String(refused.cause), /fetch failed/)
      assert.strictEqual((yield* Fiber.join(command)).stdout, "done\n")
      yield* Fiber.join(ending)
    })
  )

  promise(
    "waits no longer than it was told, and for no reader of events at all",
    Effect.gen(function* () {
      const { end, sandboxes } = yield* running({ drainMillis: 200 })
      const sandbox = yield* sandboxes.createDetached()
      const command = yield* Effect.forkChild(Effect.flip(sandbox.commands.run("sleep 1000")))
      const from = performance.now()
      yield* Stream.runDrain(Stream.take(sandbox.events(), 1))
      yield* end
      assert.isBelow(performance.now() - from, 5_000)
      assert.strictEqual((yield* Fiber.join(command))._tag, "Connection")
    })
  )
})
