/**
 * Clients that mean harm: they are bounded, and hurt nobody else.
 */
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import * as NodeWS from "@effect/platform-node/NodeWS"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { RpcSerialization } from "effect/rpc"
import { SandboxesClient } from "../../src/client.ts"
import { Owner } from "../../src/domain/Ids.ts"
import * as Binary from "../../src/rpc/Binary.ts"
import { Server } from "../../src/server.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { alice, aliceToken, knowing, memory } from "./support.ts"

const mallory = { ...alice, owner: Owner.make("mallory"), name: "mallory" }

const start = Effect.fnUntraced(function* (limits: Server.ServerLimits = {}) {
  const context = yield* Layer.build(
    Server.layer({ port: 0, images: { host: true }, limits }).pipe(
      Layer.provide(
        Layer.merge(
          memory,
          knowing(
            new Map([
              [aliceToken, alice],
              ["mallory", mallory]
            ])
          )
        )
      )
    )
  )
  const { url } = Context.get(context, Server.ServerAddress)
  const as = (token: string, options: Partial<SandboxesClient.Options> = {}) =>
    Effect.map(
      Layer.build(SandboxesClient.layer({ url, token, patience: "2 seconds", ...options })),
      (context) => Context.get(context, Sandboxes)
    )
  return { url, as }
})

/** Somebody else still gets what they ask for. */
const unhurt = Effect.fnUntraced(function* (own: Sandboxes["Service"]) {
  const sandbox = yield* own.createDetached()
  const { stdout } = yield* sandbox.commands.run("echo fine")
  assert.strictEqual(stdout, "fine\n")
  yield* sandbox.kill
})

const tcp = (url: string): Effect.Effect<Socket> =>
  Effect.promise(async () => {
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname)
    socket.on("error", () => {})
    await once(socket, "connect")
    return socket
  })

/** Ends when the connection has, whether it was closed or reset: a caller that still writes may be told either. */
const closed = (socket: Socket) =>
  Effect.callback<void>((resume) => {
    socket.resume()
    if (socket.closed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
  })

const ended = (socket: NodeWS.WebSocket) =>
  Effect.callback<void>((resume) => {
    if (socket.readyState === socket.CLOSED) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
  })

const webSocket = (url: string): Effect.Effect<NodeWS.WebSocket> =>
  Effect.promise(async () => {
    const socket = new NodeWS.WebSocket(`${url.replace("http", "ws")}/rpc`, {
      headers: { authorization: "Bearer mallory" }
    })
    socket.on("error", () => {})
    await once(socket, "open")
    return socket
  })

const handshake = [
  "GET /rpc HTTP/1.1",
  "Host: localhost",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
  "Authorization: Bearer mallory",
  "\r\n"
].join("\r\n")

/** The begin of a WebSocket message of 1 MiB, all but its end. */
const unfinished = (() => {
  const head = Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0])
  return Buffer.concat([head, Buffer.alloc(2 ** 20 - 1)])
})()

/** What is answered first, as text. */
const answer = (socket: Socket) => Effect.promise(async () => String((await once(socket, "data"))[0]))

/** Asks by plain HTTP with a body of so many bytes, of which none is sent. */
const announce = Effect.fnUntraced(function* (url: string, body: string) {
  const socket = yield* tcp(url)
  socket.write(
    `POST /rpc/http HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mallory\r\n${body}\r\n\r\n`
  )
  return socket
})

describe("a hostile client", () => {
  it.live("that announces a frame of 1 GB is cut off at once", () =>
    Effect.gen(function* () {
      const service = yield* start()
      const own = yield* service.as(aliceToken)
      yield* own.list()
      const socket = yield* tcp(service.url)
      socket.write(handshake)
      yield* Effect.promise(() => once(socket, "data"))
      const header = Buffer.alloc(14)
      header[0] = 0x82
      header[1] = 0x80 | 127
      header.writeBigUInt64BE(2n ** 30n, 2)
      socket.write(header)
      yield* closed(socket)
      yield* unhurt(own)
    }).pipe(Effect.scoped)
  )

  it.live("that sends broken frames breaks its own connection at most", () =>
    Effect.gen(function* () {
      const service = yield* start()
      const own = yield* service.as(aliceToken)
      yield* own.list()
      const random = Uint8Array.from({ length: 5000 }, (_, index) => (index * 7919) & 0xff)
      for (const frame of [random, new Uint8Array(100), Buffer.from("text"), new Uint8Array(3 * 2 ** 20)]) {
        const socket = yield* webSocket(service.url)
        for (let times = 0; times < 20; times++) socket.send(frame)
        yield* unhurt(own)
        socket.terminate()
      }
      const raw = yield* tcp(service.url)
      raw.write(handshake)
      raw.write(random)
      yield* closed(raw)
      yield* unhurt(own)
    }).pipe(Effect.scoped)
  )

  it.live("that floods with connections keeps nobody out who has a token", () =>
    Effect.gen(function* () {
      const service = yield* start({ strangers: 50, connections: 200 })
      const own = yield* service.as(aliceToken)
      yield* own.list()
      const sockets = yield* Effect.forEach(Array.from({ length: 150 }), () => tcp(service.url), {
        concurrency: 20
      })
      // The oldest of them had to go.
      yield* Effect.forEach(sockets.slice(0, 50), closed, { concurrency: "unbounded" })
      yield* unhurt(own)
      yield* unhurt(yield* service.as(aliceToken))
      for (const socket of sockets) socket.destroy()
    }).pipe(Effect.scoped)
  )

  it.live("that sends its headers slowly is cut off in time", () =>
    Effect.gen(function* () {
      const service = yield* start({ headers: "200 millis", request: "400 millis" })
      const own = yield* service.as(aliceToken)
      const slow = yield* tcp(service.url)
      slow.write("GET /rpc HTTP/1.1\r\nHost: localhost\r\n")
      const drip = setInterval(() => slow.write("x: y\r\n"), 20)
      const body = yield* tcp(service.url)
      body.write(
        "POST /rpc/http HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer mallory\r\nContent-Length: 1000\r\n\r\n"
      )
      const drop = setInterval(() => body.write("x"), 20)
      yield* Effect.all([closed(slow), closed(body)], { concurrency: "unbounded" })
      clearInterval(drip)
      clearInterval(drop)
      yield* unhurt(own)
    }).pipe(Effect.scoped)
  )

  it.live("has only so many connections, and so many calls on each", () =>
    Effect.gen(function* () {
      const service = yield* start({ connectionsPerCaller: 2, requestsPerConnection: 5 })
      const own = yield* service.as(aliceToken)
      const [first] = [yield* service.as("mallory"), yield* service.as("mallory")]
      const sandbox = yield* first.createDetached()
      yield* (yield* service.as("mallory")).list()
      const third = yield* Effect.flip((yield* service.as("mallory")).list())
      assert.strictEqual(third._tag, "ResourceExhausted")

      const program = yield* sandbox.process.start(["sleep", "1000"])
      for (let count = 0; count < 5; count++) {
        yield* Effect.forkScoped(Effect.ignore(Stream.runDrain(sandbox.events())))
      }
      const waits = Effect.flip(Effect.repeat(sandbox.info, { times: 1000 }))
      assert.strictEqual((yield* waits)._tag, "ResourceExhausted")
      // What ends programs has room of its own.
      yield* program.kill
      yield* unhurt(own)
    }).pipe(Effect.scoped)
  )

  it.live("has only so many calls on all its connections together", () =>
    Effect.gen(function* () {
      const service = yield* start({ requestsPerCaller: 8 })
      const own = yield* service.as(aliceToken)
      const first = yield* service.as("mallory")
      const second = yield* service.as("mallory")
      const sandbox = yield* first.createDetached()
      const other = yield* second.connect(sandbox.id)
      for (let count = 0; count < 4; count++) {
        yield* Effect.forkScoped(Effect.ignore(Stream.runDrain(sandbox.events())))
        yield* Effect.forkScoped(Effect.ignore(Stream.runDrain(other.events())))
      }
      const waits = Effect.flip(Effect.repeat(sandbox.info, { times: 1000 }))
      const error = yield* waits
      assert.containSubset(error, { _tag: "ResourceExhausted", resource: "calls" })
      assert.match(error.message, /of this caller/)
      yield* unhurt(own)
    }).pipe(Effect.scoped)
  )

  it.live.each([
    ["by its connection", { waitingBytes: 64 * 1024 }],
    ["by all its connections", { waitingBytes: 2 ** 40, outputBytesPerCaller: 64 * 1024 }]
  ] as const)("that does not read its answers is not read from, and cut off in the end, %s", ([, limits]) =>
    Effect.gen(function* () {
      const service = yield* start({ ...limits, stalled: "1 second" })
      const own = yield* service.as(aliceToken)
      yield* own.list()
      const serialization = yield* Effect.provide(RpcSerialization.RpcSerialization, Binary.layer(2 ** 20))
      const ping = serialization.makeUnsafe().encode({ _tag: "Ping" })
      if (!(ping instanceof Uint8Array)) return assert.fail("not bytes")
      const pings = Buffer.concat(Array.from({ length: 700 }, () => ping))
      const socket = yield* webSocket(service.url)
      socket.pause()
      // More than all buffers on the way hold: what is left over is not read.
      for (let count = 0; count < 11_000; count++) socket.send(pings)
      yield* unhurt(own)
      assert.isAbove(socket.bufferedAmount, 0)
      yield* ended(socket)
      yield* unhurt(own)
    }).pipe(Effect.scoped)
  )

  it.live("that leaves many messages unfinished has only so many bytes of them held", () =>
    Effect.gen(function* () {
      const service = yield* start({ requestBytesPerCaller: 2.5 * 2 ** 20 })
      const own = yield* service.as(aliceToken)
      yield* own.list()
      const sockets = yield* Effect.forEach([1, 2, 3], () => tcp(service.url))
      for (const socket of sockets) {
        socket.write(handshake)
        yield* answer(socket)
        socket.write(unfinished)
      }
      yield* Effect.raceAll(sockets.map(closed))
      yield* unhurt(own)
      for (const socket of sockets) socket.destroy()
      yield* Effect.forEach(sockets, closed)
      // What was held is given back: there is room for as much again.
      const sandbox = yield* (yield* service.as("mallory")).createDetached()
      yield* Effect.repeat(sandbox.files.write("/tmp/large", new Uint8Array(2 * 2 ** 20)), { times: 3 })
    }).pipe(Effect.scoped)
  )

  it.live("that announces many large bodies is refused those there is no room for", () =>
    Effect.gen(function* () {
      const service = yield* start({ requestBytesPerCaller: 10 * 2 ** 20, requestBytes: 10 * 2 ** 20 })
      const own = yield* service.as(aliceToken)
      const large = `Content-Length: ${7 * 2 ** 20}`
      const patient = `${large}\r\nExpect: 100-continue`
      const held = yield* announce(service.url, patient)
      assert.match(yield* answer(held), /^HTTP\/1.1 100 /)
      for (const body of [large, "Transfer-Encoding: chunked"]) {
        const refused = yield* answer(yield* announce(service.url, body))
        assert.match(refused, /^HTTP\/1.1 429 /)
        assert.include(refused, "ResourceExhausted")
      }
      yield* unhurt(own)
      held.destroy()
      // There is room again as soon as the service has seen that it left.
      const again = Effect.flatMap(announce(service.url, patient), answer)
      yield* Effect.repeat(again, { until: (answered) => answered.startsWith("HTTP/1.1 100 ") })
    }).pipe(Effect.scoped)
  )

  it.live("that does not take its answers over plain HTTP has only so many bytes of them waiting", () =>
    Effect.gen(function* () {
      const service = yield* start({ outputBytesPerCaller: 6 * 2 ** 20 })
      const own = yield* service.as(aliceToken)
      const sandbox = yield* (yield* service.as("mallory")).createDetached()
      const path = `/home/user${"/".concat("d".repeat(240)).repeat(15)}`
      yield* sandbox.files.makeDir(path)
      yield* sandbox.commands.run("i=0; while [ $i -lt 1200 ]; do echo > n$i; i=$((i+1)); done", {
        cwd: path
      })
      const payload = { sandboxId: sandbox.id, path }
      const body = `${JSON.stringify({ _tag: "Request", id: "1", tag: "ListFiles", payload, headers: [] })}\n`
      const ask = Effect.gen(function* () {
        const head = `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}`
        const socket = yield* announce(service.url, head)
        socket.write(body)
        const text = yield* answer(socket)
        socket.pause()
        return { socket, text }
      })
      // What the kernel holds of an answer is sent; the rest waits.
      const asked = yield* Effect.replicateEffect(ask, 8)
      assert.match(asked[0]?.text ?? "", /^HTTP\/1.1 200 /)
      assert.match(asked.at(-1)?.text ?? "", /^HTTP\/1.1 429 /)
      yield* unhurt(own)
      for (const { socket } of asked) socket.destroy()
      // There is room again as soon as the service has seen that they left.
      const again = Effect.map(ask, ({ socket, text }) => {
        socket.destroy()
        return text.startsWith("HTTP/1.1 200 ")
      })
      yield* Effect.repeat(again, { until: (isGiven) => isGiven })
    }).pipe(Effect.scoped)
  )
})
