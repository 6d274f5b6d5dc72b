import { spawn } from "node:child_process"
import { connect, createServer, type Socket } from "node:net"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted, Ref, Schedule, type Scope, Stream } from "effect"
import { canRun, temporary } from "../container/support.ts"
import { freePort } from "./containers.ts"
import { end, found, launch } from "./program.ts"
import { sandboxesOf } from "./support.ts"

const promise = <E>(name: string, body: Effect.Effect<void, E, NodeServices.NodeServices | Scope.Scope>) =>
  it.live(name, () => body.pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 120_000)

/** A client that reads endless output until it is stopped by SIGSTOP, which never reads again. */
const stoppedReader = (url: string, token: string) =>
  Effect.acquireRelease(
    Effect.callback<() => void>((resume) => {
      const program = fileURLToPath(new URL("reader.ts", import.meta.url))
      const child = spawn(process.execPath, [program, url, token], { stdio: ["ignore", "pipe", "inherit"] })
      child.stdout.once("data", () => {
        child.kill("SIGSTOP")
        resume(Effect.succeed(() => child.kill("SIGKILL")))
      })
    }),
    (kill) => Effect.sync(kill)
  )

/** A connection that has sent this much and says no more. */
const halfSaid = (url: string, text: string) =>
  Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const socket = connect(Number(new URL(url).port), "127.0.0.1")
      socket.on("error", () => {})
      socket.write(text, () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

describe("the end of a service", () => {
  promise(
    "takes its drain and two seconds at most, whatever clients do: stopped ones, unread answers, unfinished requests",
    Effect.gen(function* () {
      const base = yield* temporary
      const drainMillis = 500
      const running = yield* launch({
        FIBERBOX_BASE_DIR: base,
        FIBERBOX_BACKEND: "memory",
        FIBERBOX_DRAIN: `${drainMillis}ms`
      })
      const { token, url } = yield* found(base, running)
      const head = `Host: ${new URL(url).host}\r\nAuthorization: Bearer ${Redacted.value(token)}\r\n`
      yield* stoppedReader(url, Redacted.value(token))
      yield* halfSaid(
        url,
        `POST /rpc/http HTTP/1.1\r\n${head}Content-Type: application/ndjson\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"_ta\r\n`
      )
      yield* halfSaid(url, `GET /rpc HTTP/1.1\r\n${head}Connection: Upgrade\r\nUpgrade: websocket\r\n`)
      const from = performance.now()
      yield* end(running, "SIGTERM")
      assert.isBelow(performance.now() - from, drainMillis + 2_000)
    })
  )

  promise(
    "frees the port at once, while calls under way are still answered",
    Effect.gen(function* () {
      const base = yield* temporary
      const running = yield* launch({ FIBERBOX_BASE_DIR: base, FIBERBOX_BACKEND: "memory" })
      const service = yield* found(base, running)
      const sandboxes = yield* sandboxesOf(service, Redacted.value(service.token))
      const sandbox = yield* sandboxes.createDetached()
      const command = yield* Effect.forkChild(sandbox.commands.run("sleep 2; echo done"))
      yield* Effect.repeat(sandbox.process.list, { until: (list) => list.length > 0 })
      running.child.kill("SIGTERM")
      const next = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer()
          const listen = () => server.listen(Number(new URL(service.url).port), "127.0.0.1")
          server.on("error", () => setTimeout(listen, 10))
          server.on("listening", () => resume(Effect.succeed(server)))
          listen()
        }),
        (server) => Effect.sync(() => server.close())
      )
      assert.isTrue(next.listening)
      assert.isUndefined(command.pollUnsafe())
      assert.strictEqual((yield* Fiber.join(command)).stdout, "done\n")
      yield* running.ended
    })
  )

  promise(
    "goes on after it was asked for more connections than it has descriptors for",
    Effect.gen(function* () {
      const base = yield* temporary
      const limited = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh"]
      const running = yield* launch({ FIBERBOX_BASE_DIR: base, FIBERBOX_BACKEND: "memory" }, limited)
      const { url } = yield* found(base, running)
      const { port } = new URL(url)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const refused = yield* Effect.forEach(
            Array.from({ length: 120 }),
            () =>
              Effect.acquireRelease(
                Effect.callback<Socket>((resume) => {
                  const socket = connect(Number(port), "127.0.0.1")
                  socket.on("error", () => {})
                  socket.on("connect", () => resume(Effect.succeed(socket)))
                }),
                (socket) => Effect.sync(() => socket.destroy())
              ),
            { concurrency: "unbounded" }
          )
          // Those that were not taken are closed by the service.
          yield* Effect.callback<void>((resume) => {
            for (const socket of refused) socket.on("close", () => resume(Effect.void))
            for (const socket of refused) socket.resume()
          })
        })
      )
      const asked = Effect.tryPromise(() => fetch(`${url}/health`))
      const { status } = yield* Effect.retry(asked, Schedule.spaced("20 millis"))
      assert.strictEqual(status, 200)
      assert.isNull(running.child.exitCode)
    })
  )
})

describe.runIf(canRun)("a planned restart of a service of containers", () => {
  for (const transport of ["websocket", "http"] as const)
    promise(
      `is not noticed by clients with patience over ${transport}: nothing fails, nothing runs twice, and streams go on`,
      Effect.gen(function* () {
        const base = yield* temporary
        const env = {
          FIBERBOX_BASE_DIR: base,
          FIBERBOX_STATE_DIR: `${base}/state`,
          FIBERBOX_PORT: String(yield* freePort)
        }
        let running = yield* launch(env)
        const service = yield* found(base, running)
        const sandboxes = yield* sandboxesOf(service, Redacted.value(service.token), {
          patience: "30 seconds",
          transport
        })
        const sandbox = yield* sandboxes.createDetached({ name: "box" })
        yield* sandbox.process.start(["sh", "-c", "i=0; while sleep 0.01; do echo $i; i=$((i+1)); done"], {
          processId: "counter"
        })
        const counter = yield* sandbox.process.connect("counter")
        const numbers = yield* Ref.make<ReadonlyArray<string>>([])
        yield* counter.events().pipe(
          Stream.filter((event) => event._tag === "Output"),
          Stream.map((event) => event.data),
          Stream.decodeText(),
          Stream.splitLines,
          Stream.runForEach((line) => Ref.update(numbers, (lines) => [...lines, line])),
          Effect.forkChild
        )
        const done = yield* Ref.make(0)
        const worker = (name: number) =>
          Effect.gen(function* () {
            for (let round = 0; ; round++) {
              const line = `${name}-${round}`
              const { stdout } = yield* sandbox.commands.run(`echo ${line} >> runs; echo ${line}`)
              assert.strictEqual(stdout, `${line}\n`)
              yield* Ref.update(done, (count) => count + 1)
            }
          })
        const bytes = 20_000_000
        const reader = Effect.gen(function* () {
          const events = sandbox.process.stream(["head", "-c", String(bytes), "/dev/zero"], {
            maxOutputBytes: "none"
          })
          const read = yield* Stream.runFold(
            events,
            () => 0,
            (sum, event) => sum + (event._tag === "Output" ? event.data.byteLength : 0)
          )
          assert.strictEqual(read, bytes)
        })
        const workers = yield* Effect.forkChild(
          Effect.all([...[1, 2, 3].map(worker), Effect.forever(reader)], {
            concurrency: "unbounded",
            discard: true
          })
        )
        const more = Effect.gen(function* () {
          const before = yield* Ref.get(done)
          yield* Effect.repeat(Ref.get(done), {
            schedule: Schedule.spaced("5 millis"),
            until: (count) => count >= before + 20 || workers.pollUnsafe() !== undefined
          })
        })
        for (let restart = 0; restart < 3; restart++) {
          yield* more
          running.child.kill("SIGTERM")
          // Started before the old one has gone.
          const next = yield* launch(env)
          yield* running.ended
          running = next
          yield* found(base, running)
        }
        yield* more
        assert.isUndefined(workers.pollUnsafe())
        yield* Fiber.interrupt(workers)
        const runs = (yield* sandbox.files.readText("/home/user/runs")).trim().split("\n")
        assert.strictEqual(new Set(runs).size, runs.length)
        const seen = yield* Ref.get(numbers)
        assert.isAbove(seen.length, 50)
        assert.deepStrictEqual(
          seen,
          Array.from({ length: seen.length }, (_, index) => String(index))
        )
        yield* sandbox.kill
      })
    )
})
