/**
 * Messages from fields: a message is a frame type and a list of named fields,
 * from which its encoder, its validating decoder and its schema follow.
 */
import { isUtf8 } from "node:buffer"
import { Schema } from "effect"
import { escaped } from "../../services/Bytes.ts"
import { frame, headerBytes } from "./Frame.ts"

/** Reads a payload. It never fails half-way: reading past the end or a bad value makes it `bad` and yields a stand-in. */
export class Reader {
  at = 0
  bad = false
  readonly bytes: Buffer
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
  /** Steps over `length` bytes and returns where they begin, or -1. */
  take(length: number): number {
    const from = this.at
    if (length > this.bytes.length - from) {
      this.bad = true
      this.at = this.bytes.length
      return -1
    }
    this.at = from + length
    return from
  }
}

/** Fills a payload that was measured before. */
export class Writer {
  at = headerBytes
  readonly bytes: Buffer
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

/** One part of a payload. `schema` describes the values that survive a round trip. */
export interface Field<A> {
  readonly schema: Schema.Codec<A>
  readonly size: (value: A) => number
  readonly write: (writer: Writer, value: A) => void
  readonly read: (reader: Reader) => A
}

const int = (bytes: number, maximum: number): Field<number> => ({
  schema: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum })),
  size: () => bytes,
  write: (writer, value) => {
    writer.bytes.writeUIntLE(value, writer.at, bytes)
    writer.at += bytes
  },
  read: (reader) => {
    const from = reader.take(bytes)
    return from < 0 ? 0 : reader.bytes.readUIntLE(from, bytes)
  }
})

export const u8: Field<number> = int(1, 0xff)
export const u16: Field<number> = int(2, 0xffff)
export const u32: Field<number> = int(4, 0xffffffff)

/** 64 bits, of which JavaScript's safe integers are accepted. */
export const u64: Field<number> = {
  schema: Schema.Natural,
  size: () => 8,
  write: (writer, value) => {
    writer.bytes.writeUInt32LE(value % 2 ** 32, writer.at)
    writer.bytes.writeUInt32LE(Math.floor(value / 2 ** 32), writer.at + 4)
    writer.at += 8
  },
  read: (reader) => {
    const from = reader.take(8)
    if (from < 0) return 0
    const high = reader.bytes.readUInt32LE(from + 4)
    if (high >= 2 ** 21) {
      reader.bad = true
      return 0
    }
    return high * 2 ** 32 + reader.bytes.readUInt32LE(from)
  }
}

/** Signed 64 bits within the safe integers, such as milliseconds since the epoch. */
export const i64: Field<number> = {
  schema: Schema.Int.check(Schema.makeFilter((value) => !Object.is(value, -0))),
  size: () => 8,
  write: (writer, value) => {
    writer.bytes.writeBigInt64LE(BigInt(value), writer.at)
    writer.at += 8
  },
  read: (reader) => {
    const from = reader.take(8)
    const value = from < 0 ? 0 : Number(reader.bytes.readBigInt64LE(from))
    if (Number.isSafeInteger(value)) return value
    reader.bad = true
    return 0
  }
}

/** 64 bits without a numeric meaning, as 16 hexadecimal digits. */
export const token: Field<string> = {
  schema: Schema.String.check(Schema.isPattern(/^[0-9a-f]{16}$/)),
  size: () => 8,
  write: (writer, value) => {
    writer.bytes.write(value, writer.at, 8, "hex")
    writer.at += 8
  },
  read: (reader) => {
    const from = reader.take(8)
    return from < 0 ? "" : reader.bytes.toString("hex", from, from + 8)
  }
}

export const bool: Field<boolean> = {
  schema: Schema.Boolean,
  size: () => 1,
  write: (writer, value) => u8.write(writer, value ? 1 : 0),
  read: (reader) => u8.read(reader) !== 0
}

/** UTF-8 after its length. Bytes from a sandbox that are no UTF-8 become U+FFFD. */
export const text: Field<string> = {
  schema: Schema.String.check(Schema.makeFilter((value) => value.isWellFormed())),
  size: (value) => 4 + Buffer.byteLength(value),
  write: (writer, value) => {
    const length = writer.bytes.write(value, writer.at + 4, "utf8")
    writer.bytes.writeUInt32LE(length, writer.at)
    writer.at += 4 + length
  },
  read: (reader) => {
    const length = u32.read(reader)
    const from = reader.take(length)
    return from < 0 ? "" : reader.bytes.toString("utf8", from, from + length)
  }
}

/**
 * A name in a file system, which may be any bytes. What is no UTF-8 arrives as a NUL, which no name has, and its bytes,
 * those beyond ASCII as `\\xNN`: two names never become one.
 */
export const name: Field<string> = {
  ...text,
  read: (reader) => {
    const length = u32.read(reader)
    const from = reader.take(length)
    if (from < 0) return ""
    const bytes = reader.bytes.subarray(from, from + length)
    return isUtf8(bytes) ? bytes.toString("utf8") : `\0${escaped(bytes)}`
  }
}

/** Texts to the end of the payload, each ended by a NUL. One that has a NUL inside arrives as two. */
export const strings: Field<ReadonlyArray<string>> = {
  schema: Schema.Array(text.schema.check(Schema.makeFilter((value) => !value.includes("\0")))),
  size: (values) => values.reduce((sum, value) => sum + Buffer.byteLength(value) + 1, 0),
  write: (writer, values) => {
    for (const value of values) {
      writer.at += writer.bytes.write(value, writer.at, "utf8")
      writer.at = writer.bytes.writeUInt8(0, writer.at)
    }
  },
  read: (reader) => {
    const values = reader.bytes.toString("utf8", reader.at).split("\0")
    reader.at = reader.bytes.length
    reader.bad ||= values.pop() !== ""
    return values
  }
}

/** Below this, bytes are copied out, so that a few of them do not keep a whole network buffer. */
const copyBelow = 16 * 1024

/** Everything to the end of the payload. */
export const rest: Field<Uint8Array> = {
  schema: Schema.Uint8Array,
  size: (value) => value.length,
  write: (writer, value) => {
    writer.bytes.set(value, writer.at)
    writer.at += value.length
  },
  read: (reader) => {
    const { bytes, at } = reader
    reader.at = bytes.length
    const view = new Uint8Array(bytes.buffer, bytes.byteOffset + at, bytes.length - at)
    return view.length < copyBelow ? view.slice() : view
  }
}

/** A kind of message. */
export interface Message<Tag extends string, A extends object> {
  readonly tag: Tag
  readonly type: number
  readonly schema: Schema.Codec<A>
  /** The whole frame. A method, so that lists of different kinds have a type. */
  encode(channel: number, value: A): Buffer
  /** `undefined` when the payload is not exactly such a message. */
  readonly decode: (payload: Buffer) => (A & { readonly _tag: Tag }) | undefined
}

const isComplete = <A extends object>(value: Partial<A>, reader: Reader): value is A =>
  !reader.bad && reader.at === reader.bytes.length

/** The struct made of the fields' schemas describes what the fields' types say; the types cannot express it over a mapped type. */
const describes = <A extends object>(_schema: Schema.Top): _schema is Schema.Codec<A> => true

const schemaOf = <A extends object>(fields: { readonly [K in keyof A]: Field<A[K]> }): Schema.Codec<A> => {
  const entries: Record<string, Schema.Top> = {}
  for (const name in fields) entries[name] = fields[name].schema
  const schema = Schema.Struct(entries)
  return describes<A>(schema) ? schema : Schema.Never
}

/** Makes a message kind of fields, in the order in which they are written. */
export const message = <const Tag extends string, A extends object>(
  tag: Tag,
  type: number,
  fields: { readonly [K in keyof A]: Field<A[K]> }
): Message<Tag, A> => ({
  tag,
  type,
  get schema() {
    return schemaOf<A>(fields)
  },
  encode: (channel, value) => {
    let size = 0
    for (const name in fields) size += fields[name].size(value[name])
    const bytes = frame(type, channel, size)
    const writer = new Writer(bytes)
    for (const name in fields) fields[name].write(writer, value[name])
    return bytes
  },
  decode: (payload) => {
    const reader = new Reader(payload)
    const value: Partial<A> = {}
    for (const name in fields) value[name] = fields[name].read(reader)
    return isComplete(value, reader) ? { ...value, _tag: tag } : undefined
  }
})
