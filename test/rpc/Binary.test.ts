import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, type Layer, Schema } from "effect"
import { RpcSerialization } from "effect/rpc"
import * as Binary from "../../src/rpc/Binary.ts"

type Serialization = RpcSerialization.RpcSerialization["Service"]

const maxFrameSize = 4 * 1024 * 1024
const take = (layer: Layer.Layer<RpcSerialization.RpcSerialization>): Effect.Effect<Serialization> =>
  Effect.provide(RpcSerialization.RpcSerialization, layer)

const both = Effect.all({
  effect: take(RpcSerialization.layerSchemaBinary({ maxFrameSize })),
  own: take(Binary.layer(maxFrameSize))
})

const bytes = (encoded: Uint8Array | string | undefined): Uint8Array => {
  if (!(encoded instanceof Uint8Array)) throw new Error("not bytes")
  return new Uint8Array(encoded)
}

const Size = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20_000 }))
const RequestId = Schema.Union([Schema.Natural, Schema.String.check(Schema.isPattern(/^[a-z0-9]{1,9}$/))])
const Conversation = Schema.NonEmptyArray(
  Schema.Union([
    Schema.TaggedStruct("Chunk", { requestId: RequestId, size: Size }),
    Schema.TaggedStruct("Exit", { requestId: RequestId, size: Size }),
    Schema.TaggedStruct("Ack", { requestId: RequestId }),
    Schema.TaggedStruct("Ping", {})
  ])
)
const conversations = Arbitrary.schema(
  Schema.Struct({ messages: Conversation, cuts: Schema.Array(Schema.Natural) })
)

const filled = (size: number) => Uint8Array.from({ length: size }, (_, index) => (index * 31 + size) & 0xff)

const toMessage = (one: (typeof Conversation.Type)[number]) => {
  switch (one._tag) {
    case "Chunk":
      return { _tag: one._tag, requestId: one.requestId, values: filled(one.size) }
    case "Exit":
      return { _tag: one._tag, requestId: one.requestId, exit: filled(one.size) }
    default:
      return one
  }
}

const sum = (data: Uint8Array) => data.reduce((sum, byte) => (sum * 31 + byte) >>> 0, data.byteLength)

/** A message in short, so that two can be compared. */
const plain = (message: unknown) =>
  typeof message === "object" && message !== null
    ? Object.entries(message)
        .map(([name, value]) => `${name} ${value instanceof Uint8Array ? sum(value) : String(value)}`)
        .sort()
    : message

describe("the binary serialization", () => {
  it.effect("writes exactly the bytes that Effect's own writes", () =>
    Effect.flatMap(both, ({ effect, own }) =>
      Arbitrary.checkEffect(conversations, ({ messages }) =>
        Effect.sync(() => {
          const theirs = effect.makeUnsafe()
          const ours = own.makeUnsafe()
          for (const message of messages.map(toMessage)) {
            assert.isTrue(Buffer.from(bytes(ours.encode(message))).equals(bytes(theirs.encode(message))))
          }
          return true
        })
      )
    )
  )

  it.effect("reads what Effect's own reads, whole or cut anywhere", () =>
    Effect.flatMap(both, ({ effect, own }) =>
      Arbitrary.checkEffect(conversations, ({ messages, cuts }) =>
        Effect.sync(() => {
          const sent = messages.map(toMessage)
          const theirs = effect.makeUnsafe()
          const whole = sent.map((message) => bytes(theirs.encode(message)))
          const expected = sent.map(plain)
          // Twice: what is known of a stream's first chunk serves its later ones.
          const ours = own.makeUnsafe()
          assert.deepStrictEqual(whole.flatMap(ours.decode).map(plain), expected)
          assert.deepStrictEqual(whole.flatMap(ours.decode).map(plain), expected)

          const all = Buffer.concat(whole)
          const places = [0, ...cuts.map((cut) => cut % all.length), all.length].sort((a, b) => a - b)
          const pieces = places.slice(1).map((end, index) => all.subarray(places[index], end))
          assert.deepStrictEqual(pieces.flatMap(own.makeUnsafe().decode).map(plain), expected)
          return true
        })
      )
    )
  )

  it.effect("refuses a frame above the limit", () =>
    Effect.map(both, ({ own }) => {
      const large = { _tag: "Chunk", requestId: 1, values: new Uint8Array(maxFrameSize + 1) }
      const encoded = bytes(own.makeUnsafe().encode(large))
      assert.throws(() => own.makeUnsafe().decode(encoded))
    })
  )
})
