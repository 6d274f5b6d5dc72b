/**
 * Effect's binary serialization of calls, byte for byte, with one thing made
 * cheap: the envelope around a stream's chunk. Effect's encoder writes a chunk
 * into a buffer that grows and then copies it out, and its parser copies it out
 * again; here it is copied once, and looked at where it is.
 *
 * The shape of the envelope is taken from what Effect's own encoder writes, and
 * is used only if it reproduces that exactly; otherwise all goes Effect's way.
 */
import { Effect, Layer } from "effect"
import { RpcSerialization } from "effect/rpc"

type Serialization = RpcSerialization.RpcSerialization["Service"]
type RequestId = string | number

/** What surrounds the bytes of a chunk: length, `head`, their number, the bytes, and a tail that names the request. */
interface Shape {
  readonly head: Uint8Array
  readonly tail: (requestId: RequestId) => Uint8Array
}

interface Chunk {
  readonly _tag: "Chunk"
  readonly requestId: RequestId
  readonly values: Uint8Array
}

/** Smaller chunks go Effect's way: there is little to copy. */
const leastBytes = 4096

const sizeOf = (value: number): number => (value < 0x80 ? 1 : 1 + sizeOf(Math.floor(value / 0x80)))

/** Writes an unsigned LEB128 number and returns the position after it. */
const put = (to: Uint8Array, at: number, value: number): number => {
  let left = value
  let position = at
  while (left >= 0x80) {
    to[position++] = (left % 0x80) | 0x80
    left = Math.floor(left / 0x80)
  }
  to[position++] = left
  return position
}

/** Reads an unsigned LEB128 number of at most 10 bytes, as Effect's decoder does, and where it ends. */
export const readVarint = (
  from: Uint8Array,
  at: number
): { readonly value: number; readonly end: number } | undefined => {
  let value = 0
  for (let index = 0; index < 10; index++) {
    const byte = from[at + index]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * 0x80 ** index
    if (byte < 0x80) return { value, end: at + index + 1 }
  }
  return undefined
}

const isChunk = (message: unknown): message is Chunk =>
  typeof message === "object" &&
  message !== null &&
  "_tag" in message &&
  message._tag === "Chunk" &&
  "values" in message &&
  message.values instanceof Uint8Array &&
  message.values.byteLength >= leastBytes

const isAt = (part: Uint8Array, whole: Uint8Array, at: number): boolean =>
  part.every((byte, index) => whole[at + index] === byte)

const encodeChunk = ({ head, tail }: Shape, { requestId, values }: Chunk): Uint8Array => {
  const after = tail(requestId)
  const inside = head.byteLength + sizeOf(values.byteLength) + values.byteLength + after.byteLength
  const frame = Buffer.allocUnsafeSlow(sizeOf(inside) + inside)
  let at = put(frame, 0, inside)
  frame.set(head, at)
  at = put(frame, at + head.byteLength, values.byteLength)
  frame.set(values, at)
  frame.set(after, at + values.byteLength)
  return frame
}

/** The chunk that is all of `data`, as a view of it. */
const decodeChunk = (
  { head }: Shape,
  data: Uint8Array,
  readTail: (tail: Uint8Array) => RequestId | undefined
): Chunk | undefined => {
  const length = readVarint(data, 0)
  if (
    length === undefined ||
    length.end + length.value !== data.byteLength ||
    !isAt(head, data, length.end)
  ) {
    return undefined
  }
  const count = readVarint(data, length.end + head.byteLength)
  if (count === undefined || count.value < leastBytes) return undefined
  const end = count.end + count.value
  if (end > data.byteLength) return undefined
  const requestId = readTail(data.subarray(end))
  return requestId === undefined
    ? undefined
    : { _tag: "Chunk", requestId, values: data.subarray(count.end, end) }
}

/** What an encoder puts around a chunk, if it is as simple as expected. */
const shapeOf = (encode: (message: Chunk) => Uint8Array | undefined): Shape | undefined => {
  const empty = (requestId: RequestId) => encode({ _tag: "Chunk", requestId, values: new Uint8Array(0) })
  const parts = (requestId: RequestId, headBytes: number) => empty(requestId)?.subarray(1 + headBytes + 1)
  const one = empty(1)
  const other = encode({ _tag: "Chunk", requestId: 1, values: Uint8Array.of(0xaa) })
  if (one === undefined || other === undefined) return undefined
  const headBytes = one.subarray(1).findIndex((byte, index) => byte !== other[1 + index])
  if (headBytes < 0) return undefined

  const tails = new Map<RequestId, Uint8Array>()
  const shape: Shape = {
    head: one.slice(1, 1 + headBytes),
    tail: (requestId) => {
      const known = tails.get(requestId)
      if (known !== undefined) return known
      const tail = parts(requestId, headBytes)?.slice() ?? new Uint8Array(0)
      if (tails.size >= maxTails) tails.clear()
      tails.set(requestId, tail)
      return tail
    }
  }
  const trials: ReadonlyArray<Chunk> = [1, 200, 70_000, 2 ** 40, "abc"].flatMap((requestId) =>
    [leastBytes, 20_000, 300_000].map((bytes): Chunk => {
      return { _tag: "Chunk", requestId, values: new Uint8Array(bytes).fill(bytes % 251) }
    })
  )
  const isSame = trials.every((chunk) => {
    const expected = encode(chunk)
    const actual = encodeChunk(shape, chunk)
    return expected?.byteLength === actual.byteLength && isAt(actual, expected, 0)
  })
  return isSame ? shape : undefined
}

/** Tails that are remembered, one for each stream that is under way. */
const maxTails = 4096

const bytesOf = (encoded: Uint8Array | string | undefined): Uint8Array | undefined =>
  typeof encoded === "string" ? undefined : encoded

/** Makes a serialization's chunks cheap, if their shape allows. */
const withChunks = (inner: Serialization, maxFrameSize: number): Serialization => {
  const trial = inner.makeUnsafe()
  const shape = shapeOf((chunk) => bytesOf(trial.encode(chunk)))
  if (shape === undefined) return inner
  return {
    ...inner,
    makeUnsafe: () => {
      const parser = inner.makeUnsafe()
      /** The requests whose tails were seen, by their bytes as text: a stream's chunks all end the same. */
      const known = new Map<string, RequestId>()
      const readTail = (tail: Uint8Array): RequestId | undefined =>
        tail.byteLength > 64 ? undefined : known.get(String.fromCharCode(...tail))
      const learn = (messages: ReadonlyArray<unknown>, data: Uint8Array) => {
        const [message] = messages
        if (messages.length !== 1 || !isChunk(message)) return
        if (known.size >= maxTails) known.clear()
        const tail = shape.tail(message.requestId)
        if (isAt(tail, data, data.byteLength - tail.byteLength)) {
          known.set(String.fromCharCode(...tail), message.requestId)
        }
      }
      return {
        encode: (message) => (isChunk(message) ? encodeChunk(shape, message) : parser.encode(message)),
        decode: (data) => {
          if (typeof data === "string" || data.byteLength < leastBytes || data.byteLength > maxFrameSize) {
            return parser.decode(data)
          }
          const chunk = decodeChunk(shape, data, readTail)
          if (chunk !== undefined) return [chunk]
          const messages = parser.decode(data)
          learn(messages, data)
          return messages
        }
      }
    }
  }
}

/** Effect's binary serialization, for messages of at most `maxFrameSize` bytes. */
export const layer = (maxFrameSize: number): Layer.Layer<RpcSerialization.RpcSerialization> =>
  Layer.effect(
    RpcSerialization.RpcSerialization,
    Effect.map(RpcSerialization.RpcSerialization, (effects) => withChunks(effects, maxFrameSize))
  ).pipe(Layer.provide(RpcSerialization.layerSchemaBinary({ maxFrameSize })))
