import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { type AgentClient, connectAgent, firstWindowBytes } from "../../../src/layers/agent/AgentClient.ts"
import { AgentLost, type TransportEvents } from "../../../src/layers/agent/AgentSession.ts"
import { headerBytes, magic } from "../../../src/layers/agent/Frame.ts"
import * as P from "../../../src/layers/agent/Protocol.ts"
import { program } from "./support.ts"

/** The agent's end of the wire, played by the test. */
class FakeAgent {
  events: TransportEvents | undefined
  readonly sent: Array<{ readonly type: number; readonly channel: number; readonly payload: Buffer }> = []
  greets = true

  readonly receive = (bytes: Uint8Array): void => {
    const frame = Buffer.from(bytes)
    const hello = frame.subarray(0, magic.length).equals(magic)
    const at = hello ? magic.length : 0
    const payload = frame.subarray(at + headerBytes)
    this.sent.push({ type: frame.readUInt8(at + 4), channel: frame.readUInt32LE(at + 5), payload })
    if (!hello || !this.greets) return
    const greeting = P.HostHello.decode(payload)
    const answer = {
      version: P.protocolVersion,
      epoch: "00000000000000aa",
      nonce: greeting?.nonce ?? ""
    }
    this.say(Buffer.concat([Buffer.from("noise"), magic, P.AgentHello.encode(0, answer)]))
  }

  say(bytes: Uint8Array): void {
    this.events?.onData(bytes)
  }

  /** The channel of the last request. */
  get channel(): number {
    return this.sent.at(-1)?.channel ?? 0
  }

  readonly client = connectAgent(
    (events) =>
      Effect.sync(() => {
        this.events = events
        return { write: this.receive }
      }),
    { leaseMillis: 0 }
  ).pipe(
    Effect.tap((client) => client.greeted(1000)),
    Effect.provide(SecureRandom.layerWebCrypto)
  )
}

const withFake = <A, E, R>(body: (client: AgentClient, agent: FakeAgent) => Effect.Effect<A, E, R>) =>
  Effect.scoped(
    Effect.suspend(() => {
      const agent = new FakeAgent()
      return Effect.flatMap(agent.client, (client) => body(client, agent))
    })
  )

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })
const byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))

describe("a session", () => {
  it.effect("finds the greeting behind noise and learns the incarnation", () =>
    withFake((client) =>
      Effect.map(client.greeted(0), (epoch) => assert.strictEqual(epoch, "00000000000000aa"))
    )
  )

  it.effect("gives up on an agent that does not greet", () =>
    Effect.gen(function* () {
      const agent = new FakeAgent()
      agent.greets = false
      const fiber = yield* fork(Effect.flip(Effect.scoped(agent.client)))
      yield* TestClock.adjust(1000)
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "AgentTimeout")
    })
  )

  it.effect("ends a call at its deadline, and ignores the answer that comes too late", () =>
    withFake((client, agent) =>
      Effect.gen(function* () {
        const late = yield* fork(Effect.flip(client.ping(50)))
        const { channel } = agent
        yield* TestClock.adjust(50)
        assert.deepInclude(yield* Fiber.join(late), { _tag: "AgentTimeout", millis: 50 })
        agent.say(P.Ok.encode(channel, {}))
        const next = yield* fork(client.ping(50))
        assert.notStrictEqual(agent.channel, channel)
        agent.say(P.Ok.encode(agent.channel, {}))
        yield* Fiber.join(next)
      })
    )
  )

  it.effect("tells the agent when a caller is interrupted", () =>
    withFake((client, agent) =>
      Effect.gen(function* () {
        const fiber = yield* fork(client.ping(1000))
        const { channel } = agent
        yield* Fiber.interrupt(fiber)
        assert.deepInclude(agent.sent.at(-1), { type: P.Close.type, channel })
      })
    )
  )

  it.effect("fails everything pending, and everything later, when the connection is lost", () =>
    withFake((client, agent) =>
      Effect.gen(function* () {
        const call = yield* fork(Effect.flip(client.ping(1000)))
        const stream = yield* fork(Effect.flip(Stream.runDrain(client.attach("p", 0, 1000))))
        agent.events?.onClose("it broke")
        const lost = new AgentLost({ reason: "it broke" })
        assert.deepStrictEqual(yield* Fiber.join(call), lost)
        assert.deepStrictEqual(yield* Fiber.join(stream), lost)
        assert.deepStrictEqual(yield* Effect.flip(client.ping(1000)), lost)
        assert.deepStrictEqual(yield* client.closed, lost)
      })
    )
  )

  it.effect("is ended by an answer that does not fit the question", () =>
    withFake((client, agent) =>
      Effect.gen(function* () {
        const call = yield* fork(Effect.flip(client.ping(1000)))
        agent.say(P.Killed.encode(agent.channel, { treeGone: true, met: 0 }))
        assert.deepInclude(yield* Fiber.join(call), { _tag: "AgentLost" })
        assert.strictEqual(
          (yield* client.closed).reason,
          "the agent broke the protocol: an unexpected Killed"
        )
      })
    )
  )

  it.effect.prop(
    "survives any garbage: a call then fails as lost or at its deadline",
    [Schema.Array(byte)],
    ([noise]) =>
      withFake((client, agent) =>
        Effect.gen(function* () {
          const call = yield* fork(Effect.flip(client.ping(50)))
          agent.say(Uint8Array.from([...noise, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0]))
          yield* TestClock.adjust(50)
          assert.include(["AgentLost", "AgentTimeout", "AgentFailed"], (yield* Fiber.join(call))._tag)
        })
      )
  )

  it.effect(
    "renews credit only for what the reader has come back from, and doubles the window when it does",
    () =>
      withFake((client, agent) =>
        Effect.gen(function* () {
          const gate = yield* Deferred.make<void>()
          let taken = 0
          const reader = yield* fork(
            Stream.runForEach(client.run(program(["x"]), 1000), (message) => {
              if (message._tag !== "Output") return Effect.void
              taken += message.data.length
              return Deferred.await(gate)
            })
          )
          const { channel } = agent
          const output = (cursor: number) =>
            P.Output.encode(channel, { cursor, stream: 1, at: 0, data: new Uint8Array(100_000) })
          const granted = () =>
            agent.sent
              .filter(({ type }) => type === P.Credit.type)
              .reduce((sum, { payload }) => sum + (P.Credit.decode(payload)?.bytes ?? 0), 0)
          agent.say(P.Spawned.encode(channel, { pid: 1, startedAt: 1, existed: false, supervisor: 0 }))
          for (let i = 0; i < 4; i++) agent.say(output(i * 100_000))
          yield* Effect.yieldNow
          assert.deepStrictEqual([taken, granted()], [100_000, 0])
          yield* Deferred.succeed(gate, undefined)
          while (taken < 400_000) yield* Effect.yieldNow
          yield* Effect.yieldNow
          // It came back twice: for the first output, and for the three behind it.
          assert.strictEqual(granted(), 400_000 + firstWindowBytes + 2 * firstWindowBytes)
          agent.say(
            P.Exit.encode(channel, {
              signalled: false,
              value: 0,
              cursor: 400_000,
              at: 0,
              timedOut: false,
              treeAlive: false
            })
          )
          yield* Fiber.join(reader)
        })
      )
  )
})
