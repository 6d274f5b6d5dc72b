/**
 * Frames: how bytes between host and agent are cut into messages.
 *
 * A frame is `u32 payload length | u8 type | u32 channel | payload`, little
 * endian. A connection begins with {@link magic} in each direction; what comes
 * before it is discarded. Nothing here knows what a type means, see Protocol.ts.
 */

/** Begins a connection. Without zero bytes, so that zero padding ends a frame that was cut off. */
export const magic: Uint8Array = Uint8Array.of(0xf1, 0x66, 0x62, 0x6f, 0x78, 0x8d, 0x9a, 0xb7)

/** Bytes before a payload. */
export const headerBytes = 9

/** The longest payload of any frame but a spawn request. */
export const maxPayloadBytes = 256 * 1024

/** The longest payload of a spawn request. */
export const maxSpawnBytes = 1280 * 1024

/** Where frames go, in order. The payload is a view that stays valid. */
export type OnFrame = (type: number, channel: number, payload: Buffer) => void

/** Cuts a byte stream, in whatever pieces it arrives, into frames. */
export class FrameDecoder {
  readonly #header = Buffer.alloc(headerBytes)
  #headerFilled = 0
  #type = 0
  #channel = 0
  /** The payload of a frame that arrives in several pieces. */
  #payload: Buffer | undefined
  #payloadFilled = 0
  /** How many bytes of the magic have been seen in a row. */
  #magicSeen = 0
  #failure: string | undefined

  /**
   * Takes the next piece of the stream and passes on the frames it completes.
   * Returns why the stream is broken, once it is; nothing is passed on after that.
   */
  push(chunk: Uint8Array, onFrame: OnFrame): string | undefined {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    let at = this.#magicSeen < magic.length ? this.#skipToMagic(bytes) : 0
    while (at < bytes.length && this.#failure === undefined) {
      at =
        this.#payload === undefined
          ? this.#takeHeader(bytes, at, onFrame)
          : this.#takePayload(bytes, at, onFrame)
    }
    return this.#failure
  }

  /** The first byte of the magic does not occur again in it, so a mismatch never hides a later start. */
  #skipToMagic(bytes: Buffer): number {
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]
      this.#magicSeen = byte === magic[this.#magicSeen] ? this.#magicSeen + 1 : byte === magic[0] ? 1 : 0
      if (this.#magicSeen === magic.length) return at + 1
    }
    return bytes.length
  }

  #takeHeader(bytes: Buffer, at: number, onFrame: OnFrame): number {
    const missing = headerBytes - this.#headerFilled
    const source = missing === headerBytes && bytes.length - at >= headerBytes ? bytes : this.#header
    const from = source === bytes ? at : 0
    if (source === this.#header) {
      const taken = bytes.copy(this.#header, this.#headerFilled, at, at + missing)
      this.#headerFilled += taken
      if (this.#headerFilled < headerBytes) return at + taken
    }
    this.#headerFilled = 0
    const next = at + missing
    const length = source.readUInt32LE(from)
    this.#type = source.readUInt8(from + 4)
    this.#channel = source.readUInt32LE(from + 5)
    if (length > maxPayloadBytes) {
      this.#failure = `a frame of ${length} bytes`
      return bytes.length
    }
    if (bytes.length - next >= length) {
      onFrame(this.#type, this.#channel, bytes.subarray(next, next + length))
      return next + length
    }
    this.#payload = Buffer.allocUnsafeSlow(length)
    this.#payloadFilled = 0
    return next
  }

  #takePayload(bytes: Buffer, at: number, onFrame: OnFrame): number {
    const payload = this.#payload
    if (payload === undefined) return at
    const taken = bytes.copy(payload, this.#payloadFilled, at)
    this.#payloadFilled += taken
    if (this.#payloadFilled === payload.length) {
      this.#payload = undefined
      onFrame(this.#type, this.#channel, payload)
    }
    return at + taken
  }
}

/** A frame with room for its payload, which begins at {@link headerBytes}. */
export const frame = (type: number, channel: number, payloadBytes: number): Buffer => {
  const bytes = Buffer.allocUnsafe(headerBytes + payloadBytes)
  bytes.writeUInt32LE(payloadBytes, 0)
  bytes.writeUInt8(type, 4)
  bytes.writeUInt32LE(channel, 5)
  return bytes
}
