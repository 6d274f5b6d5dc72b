/**
 * Requests that would take long to decode are refused unread, or wait for their turn.
 */
import { once } from "node:events"
import * as NodeWS from "@effect/platform-node/NodeWS"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Latch, Layer } from "effect"
import { RpcSerialization } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Owner } from "../../src/domain/Ids.ts"
import * as Binary from "../../src/rpc/Binary.ts"
import { wholeFrames } from "../../src/rpc/server/Frames.ts"
import { makeTurns } from "../../src/rpc/server/Turns.ts"
import { Server } from "../../src/server.ts"
import { alice, aliceToken, knowing, memory } from "./support.ts"

const bob = { owner: Owner.make("bob"), scope: "read", name: "bob" } as const
const sandboxId = "sb_x_aaaaaaaaaaaaaaaaaaaaaaaaaa"

const start = Effect.map(
  Layer.build(
    Server.layer({ port: 0 }).pipe(
      Layer.provide(
        Layer.merge(
          memory,
          knowing(
            new Map([
              [aliceToken, alice],
              ["bob", bob]
            ])
          )
        )
      )
    )
  ),
  (context) => Context.get(context, Server.ServerAddress).url
)

const posted = (url: string, token: string, body: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/rpc/http`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      body
    })
    return { status: response.status, body: await response.text() }
  })

/** A request without its end: whoever decoded it would say that it is no JSON. */
const cut = (tag: string, payload: string) => `{"_tag":"Request","id":"1","tag":"${tag}","payload":${payload}`

const many = (length: number, item: (index: number) => string) =>
  Array.from({ length }, (_, i) => item(i)).join()

describe("a large request over plain HTTP", () => {
  it.live("is refused before it is decoded when it holds more than any operation can take", () =>
    Effect.gen(function* () {
      const url = yield* start
      const program = `{"sandboxId":"${sandboxId}","process":{"processId":"p-1"`
      const names = many(300_000, (index) => `"a${index}":""`)
      for (const [request, limit] of [
        [cut("StartProcess", `${program},"argv":["a"],"env":{${names}`), "named values"],
        [cut("GetInfo", "[".repeat(100_000)), "deep"],
        [cut("ListSandboxes", `{"labels":{${names.slice(0, 100_000)}`), "named values"],
        [cut("ExecProcess", `${program},"argv":[${many(900_000, () => `"a"`)}`), "values"]
      ] as const) {
        const { status, body } = yield* posted(url, aliceToken, request)
        assert.strictEqual(status, 413, body)
        const error = JSON.parse(body)
        assert.strictEqual(error._tag, "InvalidArgument")
        assert.include(error.reason, limit)
      }
    }).pipe(Effect.scoped)
  )

  it.live("is refused by its size and by its caller's scope", () =>
    Effect.gen(function* () {
      const url = yield* start
      const long = yield* posted(url, aliceToken, cut("GetInfo", `"${"x".repeat(200_000)}"`))
      assert.strictEqual(JSON.parse(long.body)._tag, "InvalidArgument")
      const denied = yield* posted(url, "bob", cut("StartProcess", `"${"x".repeat(20_000)}"`))
      assert.strictEqual(denied.status, 403)
      assert.strictEqual(JSON.parse(denied.body)._tag, "PolicyDenied")
      const huge = yield* posted(url, "bob", cut("StartProcess", `"${"x".repeat(300_000)}"`))
      assert.strictEqual(huge.status, 413)
    }).pipe(Effect.scoped)
  )
})

describe("a large request over WebSocket", () => {
  const parser = Effect.map(
    Effect.provide(RpcSerialization.RpcSerialization, Binary.layer(8 * 2 ** 20)),
    (serialization) => wholeFrames(serialization).makeUnsafe()
  )
  const request = (more: object) => ({ _tag: "Request", id: "1", tag: "GetInfo", headers: [], ...more })

  it.effect("is decoded when it is large by what it carries", () =>
    Effect.gen(function* () {
      const { decode, encode } = yield* parser
      for (const more of [
        {},
        { spanId: "0123456789abcdef", traceId: "t".repeat(32), sampled: true },
        { id: 7 }
      ]) {
        const data = encode(request({ payload: new Uint8Array(2 ** 20), ...more }))
        if (data === undefined) return assert.fail("nothing")
        assert.strictEqual(decode(data).length, 1)
      }
    })
  )

  it.effect("is refused when it is large by anything else, or not whole", () =>
    Effect.gen(function* () {
      const { decode, encode } = yield* parser
      const bytes = (message: object) => {
        const data = encode(message)
        return data instanceof Uint8Array ? data.slice() : assert.fail("no bytes")
      }
      const payload = new Uint8Array(10)
      const ping = bytes({ _tag: "Ping" })
      for (const data of [
        bytes(request({ payload, headers: new Array(10_000).fill(["", ""]) })),
        bytes(request({ payload, tag: "x".repeat(20_000) })),
        Buffer.concat(new Array<Uint8Array>(10_000).fill(ping)),
        ping.subarray(0, 5)
      ]) {
        assert.throws(() => decode(data), /maximum size/)
      }
    })
  )

  it.live("that an operation cannot take is answered with the limit, unread", () =>
    Effect.gen(function* () {
      const url = yield* start
      const { decode, encode } = yield* parser
      const socket = new NodeWS.WebSocket(`${url.replace("http", "ws")}/rpc`, {
        headers: { authorization: `Bearer ${aliceToken}` }
      })
      yield* Effect.promise(() => once(socket, "open"))
      const data = encode(request({ payload: new Uint8Array(100_000) }))
      if (data === undefined) return assert.fail("nothing")
      socket.send(data)
      const [answer] = yield* Effect.promise(() => once(socket, "message"))
      const [exit] = decode(new Uint8Array(answer))
      assert.include(
        JSON.stringify(exit, (_, value) =>
          value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : value
        ),
        "at most 65536 are possible"
      )
      socket.terminate()
    }).pipe(Effect.scoped)
  )
})

describe("turns", () => {
  it.effect("go round the callers, however many each of them waits for", () =>
    Effect.gen(function* () {
      const turns = yield* makeTurns
      const order: Array<string> = []
      const gate = yield* Latch.make(false)
      const take = (owner: string) =>
        Effect.forkChild(
          turns.during(Owner.make(owner), () =>
            Effect.andThen(
              gate.await,
              Effect.sync(() => {
                order.push(owner)
              })
            )
          ),
          { startImmediately: true }
        )
      const greedy = yield* Effect.forEach(Array.from({ length: 4 }), () => take("greedy"))
      const left = yield* take("left")
      const other = yield* take("other")
      yield* Fiber.interrupt(left)
      yield* gate.open
      yield* Effect.forkChild(Effect.forever(Effect.andThen(TestClock.adjust(10), Effect.yieldNow)))
      yield* Effect.forEach([...greedy, other], Fiber.join)
      assert.deepStrictEqual(order, ["greedy", "greedy", "other", "greedy", "greedy"])
    }).pipe(Effect.scoped)
  )

  it.effect(
    "that are for what is done at once end with that round of the event loop, also when nobody wants them",
    () =>
      Effect.gen(function* () {
        const turns = yield* makeTurns
        const order: Array<string> = []
        const take = (owner: string) =>
          Effect.forkChild(
            Effect.map(turns.take(Owner.make(owner)), () => {
              order.push(owner)
            }),
            { startImmediately: true }
          )
        const greedy = yield* Effect.forEach(Array.from({ length: 3 }), () => take("greedy"))
        const left = yield* take("left")
        const other = yield* take("other")
        yield* Fiber.interrupt(left)
        assert.deepStrictEqual(order, ["greedy"])
        yield* Effect.forkChild(Effect.forever(Effect.andThen(TestClock.adjust(10), Effect.yieldNow)))
        yield* Effect.forEach([...greedy, other], Fiber.join)
        assert.deepStrictEqual(order, ["greedy", "greedy", "other", "greedy"])
      }).pipe(Effect.scoped)
  )
})
