import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { FrameDecoder, headerBytes, magic, maxPayloadBytes } from "../../../src/layers/agent/Frame.ts"
import type { Message } from "../../../src/layers/agent/Message.ts"
import { decodeReply, Output, replies, requests } from "../../../src/layers/agent/Protocol.ts"

const byte = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
const cuts = Arbitrary.array(
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 })))
)

/** A byte stream in pieces of the given lengths, the rest as one. */
const cut = (bytes: Uint8Array, lengths: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  let at = 0
  for (const length of lengths) {
    pieces.push(bytes.slice(at, at + length))
    at += length
  }
  return [...pieces, bytes.slice(at)]
}

interface Frame {
  readonly type: number
  readonly channel: number
  readonly payload: ReadonlyArray<number>
}

const decodeAll = (pieces: ReadonlyArray<Uint8Array>) => {
  const decoder = new FrameDecoder()
  const frames: Array<Frame> = []
  let failure: string | undefined
  for (const piece of pieces) {
    failure = decoder.push(piece, (type, channel, payload) => {
      frames.push({ type, channel, payload: [...payload] })
    })
  }
  return { frames, failure }
}

/** One test per message kind: what is encoded is decoded to the same. */
const roundTrips = <Tag extends string, A extends object>(kind: Message<Tag, A>) =>
  it.prop(`${kind.tag} survives encoding`, [kind.schema], ([value]) => {
    const frame = kind.encode(7, value)
    assert.strictEqual(frame.readUInt32LE(0), frame.length - headerBytes)
    assert.deepStrictEqual(kind.decode(frame.subarray(headerBytes)), { ...value, _tag: kind.tag })
  })

describe("messages", () => {
  for (const kind of requests) roundTrips<string, object>(kind)
  for (const kind of replies) roundTrips<string, object>(kind)

  it("have one type each, per direction", () => {
    assert.strictEqual(new Set(requests.map(({ type }) => type)).size, requests.length)
    assert.strictEqual(new Set(replies.map(({ type }) => type)).size, replies.length)
  })

  it.prop(
    "are refused, not thrown over, when they are garbage",
    [byte, Schema.Array(byte)],
    ([type, payload]) => {
      const reply = decodeReply(type, Buffer.from(payload))
      if (reply !== undefined)
        assert.include(
          replies.map(({ tag }) => tag),
          reply._tag
        )
    }
  )

  it.prop("that are cut short or too long are refused", [Schema.Array(byte)], ([data]) => {
    const payload = Output.encode(1, { cursor: 1, stream: 1, at: 2, data: new Uint8Array(data) }).subarray(
      headerBytes
    )
    assert.isUndefined(decodeReply(Output.type, payload.subarray(0, 16)))
    assert.isUndefined(decodeReply(70, payload.subarray(0, 20)))
    assert.isUndefined(decodeReply(64, Buffer.from([1])))
  })
})

describe("frames", () => {
  const frame = Schema.Struct({
    type: byte,
    channel: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffffffff })),
    payload: Schema.Array(byte)
  })
  const encode = ({ type, channel, payload }: Frame): Buffer => {
    const header = Buffer.alloc(headerBytes)
    header.writeUInt32LE(payload.length, 0)
    header.writeUInt8(type, 4)
    header.writeUInt32LE(channel, 5)
    return Buffer.concat([header, Buffer.from(payload)])
  }

  it.prop(
    "come out as they went in, in whatever pieces they arrive",
    [Schema.Array(frame), cuts],
    ([frames, lengths]) => {
      const bytes = Buffer.concat([magic, ...frames.map(encode)])
      assert.deepStrictEqual(decodeAll(cut(bytes, lengths)), { frames: [...frames], failure: undefined })
    }
  )

  it.prop(
    "are found behind anything that comes before the magic",
    [Schema.Array(Schema.Literals([0, 0xf1, 0x66, 0x62, 0x6f])), frame, cuts],
    ([noise, sent, lengths]) => {
      const bytes = Buffer.concat([Uint8Array.from(noise), magic, encode(sent)])
      assert.deepStrictEqual(decodeAll(cut(bytes, lengths)).frames, [sent])
    }
  )

  it.prop(
    "of garbage never throw, and never claim more than arrived",
    [Schema.Array(byte), cuts],
    ([noise, lengths]) => {
      const { frames } = decodeAll(cut(Buffer.concat([magic, Uint8Array.from(noise)]), lengths))
      const total = frames.reduce((sum, { payload }) => sum + headerBytes + payload.length, 0)
      assert.isAtMost(total, noise.length)
    }
  )

  it("longer than the limit break the stream for good", () => {
    const header = Buffer.alloc(headerBytes)
    header.writeUInt32LE(maxPayloadBytes + 1, 0)
    const good = encode({ type: 64, channel: 1, payload: [] })
    const { frames, failure } = decodeAll([magic, good, header, good])
    assert.strictEqual(frames.length, 1)
    assert.strictEqual(failure, `a frame of ${maxPayloadBytes + 1} bytes`)
  })
})
