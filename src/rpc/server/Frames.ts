/**
 * What is known of a WebSocket message before it is decoded: that its frames
 * are whole, and that all but what they carry is small. So a message of many
 * frames, or of a frame with many headers, costs no more than a small one.
 */
import { RpcSerialization } from "effect/rpc"
import { readVarint } from "../Binary.ts"

type Serialization = RpcSerialization.RpcSerialization["Service"]

/** Messages up to this size are not looked into. */
export const smallBytes = 8 * 1024
/** The most bytes of a message besides what its requests carry. */
const maxAroundBytes = 16 * 1024

const encoder = new TextEncoder()

/** Finds how many bytes the request carries that is the frame from `start` on; 0 where it is none. */
const makeCarried = (encode: (message: unknown) => Uint8Array | string | undefined) => {
  const request = (more: object) => {
    const payload = new Uint8Array(0)
    const frame = encode({ _tag: "Request", id: "", tag: "", payload, headers: [], ...more })
    return typeof frame === "object" ? frame : new Uint8Array(headBytes + 2)
  }
  /** A length of one byte before the head, and after it the bits of what optional fields there are. */
  const head = request({}).slice(1, 1 + headBytes)
  const spanBit = request({ spanId: "" })[1 + headBytes] ?? 0

  return (frame: Uint8Array, start: number): number => {
    if (!head.every((byte, index) => frame[start + index] === byte)) return 0
    const present = readVarint(frame, start + headBytes)
    if (present === undefined) return 0
    // Of the optional fields only the span comes before what is carried.
    const span = (present.value & spanBit) === 0 ? undefined : readVarint(frame, present.end)
    const carried = readVarint(frame, span === undefined ? present.end : span.end + span.value)
    return carried?.value ?? 0
  }
}

/** The version, the fingerprint of Effect's envelope, and which of its messages it is. */
const headBytes = 1 + 8 + 1

/** Takes only messages of whole frames that are small but for what they carry; others end their connection. */
export const wholeFrames = (inner: Serialization): Serialization => {
  const trial = inner.makeUnsafe()
  const carried = makeCarried((message) => trial.encode(message))
  const refuse = () => {
    throw new RpcSerialization.MaxBufferSizeExceeded({ maxBufferSize: maxAroundBytes })
  }
  return {
    ...inner,
    makeUnsafe: () => {
      const parser = inner.makeUnsafe()
      return {
        encode: parser.encode,
        decode: (given) => {
          const data = typeof given === "string" ? encoder.encode(given) : given
          let around = 0
          let at = 0
          while (at < data.byteLength) {
            const length = readVarint(data, at)
            if (length === undefined) return refuse()
            const end = length.end + length.value
            if (end > data.byteLength) return refuse()
            if (data.byteLength > smallBytes) {
              around += end - at - Math.min(length.value, carried(data, length.end))
              if (around > maxAroundBytes) return refuse()
            }
            at = end
          }
          return parser.decode(data)
        }
      }
    }
  }
}
