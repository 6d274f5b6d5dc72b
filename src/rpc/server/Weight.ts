/**
 * How much a message asks to be decoded, found in one pass over its bytes and
 * without decoding it: a few megabytes can hold so many values that making them
 * takes seconds, in which nobody else is served.
 */
import { Schema } from "effect"
import { SchemaBinary } from "effect/encoding"
import { readVarint } from "../Binary.ts"
import type { Room } from "../SandboxRpcs.ts"

/** What was found; whoever counts stops soon after there is too much. */
export interface Weight {
  /** Values in lists and records, and fields. */
  readonly values: number
  /** Those of them that have a name. */
  readonly names: number
  /** Lists and records in each other. */
  readonly depth: number
}

/** How deep lists and records may be in each other. No operation's are half as deep. */
export const maxDepth = 32

/** Whether a weight has room, but for its bytes. */
export const fits = ({ values, names, depth }: Weight, room: Omit<Room, "bytes">): boolean =>
  values <= room.values && names <= room.names && depth <= maxDepth

// --- JSON -------------------------------------------------------------------

const quote = 0x22
const backslash = 0x5c
const isSpace = (byte: number | undefined) => byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d

/** The position of the quote that ends a string, or the end of all. */
const endOfString = (bytes: Buffer, start: number): number => {
  for (let at = start; ; at++) {
    at = bytes.indexOf(quote, at)
    if (at < 0) return bytes.byteLength
    let before = at
    while (before > start && bytes[before - 1] === backslash) before--
    if ((at - before) % 2 === 0) return at
  }
}

const afterSpace = (bytes: Buffer, start: number): number => {
  let at = start
  while (isSpace(bytes[at])) at++
  return at
}

/** What JSON documents of one body say. */
export interface WeighedJson extends Weight {
  /** The operation that is asked for; undefined where it is not said plainly, once, by one document. */
  readonly tag: string | undefined
}

/** Weighs JSON, well formed or not. */
export const weighJson = (body: Uint8Array, most: Omit<Room, "bytes">): WeighedJson => {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  let values = 0
  let names = 0
  let depth = 0
  let deepest = 0
  let documents = 0
  let isPlain = true
  let tag: string | undefined

  /** A member of the document itself. */
  const member = (name: string, colon: number) => {
    if (name.includes("\\")) isPlain = false
    if (name !== "tag") return
    const start = afterSpace(bytes, colon + 1)
    if (tag !== undefined || bytes[start] !== quote) isPlain = false
    else tag = bytes.toString("latin1", start + 1, endOfString(bytes, start + 1))
  }

  for (let at = 0; at < bytes.byteLength; at++) {
    switch (bytes[at]) {
      case quote: {
        const end = endOfString(bytes, at + 1)
        if (depth === 1) {
          const colon = afterSpace(bytes, end + 1)
          if (bytes[colon] === 0x3a) member(bytes.toString("latin1", at + 1, end), colon)
        }
        at = end
        break
      }
      case 0x5b: // [
      case 0x7b: // {
        if (depth === 0) documents++
        depth++
        values++
        if (depth > deepest) deepest = depth
        break
      case 0x5d: // ]
      case 0x7d: // }
        depth--
        break
      case 0x2c: // ,
      case 0x0a: // a line, which is a document
        values++
        break
      case 0x3a: // :
        names++
        break
    }
    if (values > most.values || names > most.names || deepest > maxDepth) break
  }
  return { values, names, depth: deepest, tag: isPlain && documents === 1 ? tag : undefined }
}

// --- Effect's binary encoding ------------------------------------------------

/** The field's number where the encoding names it by a number, as the encoder itself writes it. */
const fieldOf = (name: string): number => {
  const codec = SchemaBinary.toCodec(Schema.Struct({ [name]: Schema.Array(Schema.String) }))
  const frame = Schema.encodeSync(codec)({ [name]: [] })
  const length = readVarint(frame, 0)
  const tag = length === undefined ? undefined : readVarint(frame, length.end + 1)
  return Math.floor((tag?.value ?? 0) / kinds)
}

/** A field begins with its number times this, and its kind. */
const kinds = 8
/** What has its length before it. */
const sized = 0

type Part = "fields" | "list" | "record"

/** Fields of requests that hold others; a list, whose first number is how many it has; a record. */
const required = {
  process: "fields",
  request: "fields",
  update: "fields",
  argv: "list",
  allow: "list"
} as const
/** Those that may be left out, or be one thing or another: which of them it is comes first, as a number. */
const optional = {
  network: "fields",
  ports: "list",
  statuses: "list",
  env: "record",
  labels: "record"
} as const

const parts = new Map<number, { readonly part: Part; readonly isOptional: boolean }>([
  ...Object.entries(required).map(([name, part]) => [fieldOf(name), { part, isOptional: false }] as const),
  ...Object.entries(optional).map(([name, part]) => [fieldOf(name), { part, isOptional: true }] as const)
])

/** The position after a field's value, or undefined where that is beyond the end. */
const skip = (bytes: Uint8Array, at: number, kind: number): number | undefined => {
  switch (kind) {
    case sized: {
      const length = readVarint(bytes, at)
      return length === undefined ? undefined : length.end + length.value
    }
    case 2:
      return at + 8
    case 3:
    case 4:
    case 7:
      return at
    case 6:
      return at + 4
    default: {
      // A number of varying length, or two of them.
      let left = kind === 5 ? 2 : 1
      let next = at
      while (left > 0) {
        const byte = bytes[next++]
        if (byte === undefined) return undefined
        if (byte < 0x80) left--
      }
      return next
    }
  }
}

/** Weighs a payload as a service of this contract would decode it. What is broken is weighed up to there, as it would be decoded. */
export const weighBinary = (payload: Uint8Array, most: Omit<Room, "bytes">): Weight => {
  let values = 0
  let names = 0
  let deepest = 0

  const record = (from: number, to: number) => {
    let at = from
    while (at < to && names <= most.names) {
      const key = readVarint(payload, at)
      if (key === undefined) return
      names++
      values++
      const next = skip(payload, key.end + Math.floor(key.value / kinds), key.value % kinds)
      if (next === undefined) return
      at = next
    }
  }

  const fields = (from: number, to: number, depth: number) => {
    deepest = Math.max(deepest, depth)
    let at = from
    while (at < to && values <= most.values && depth <= maxDepth) {
      const tag = readVarint(payload, at)
      if (tag === undefined) return
      values++
      const field = Math.floor(tag.value / kinds)
      const kind = tag.value % kinds
      const next = skip(payload, tag.end, kind)
      if (next === undefined || next > to) return
      const start = kind === sized ? readVarint(payload, tag.end)?.end : undefined
      if (start !== undefined) part(field, start, next, depth)
      at = next
    }
  }

  const part = (field: number, from: number, to: number, depth: number) => {
    const known = parts.get(field)
    if (known === undefined) return
    const start = known.isOptional ? (readVarint(payload, from)?.end ?? to) : from
    switch (known.part) {
      case "fields":
        return fields(start, to, depth + 1)
      case "list":
        values += readVarint(payload, start)?.value ?? 0
        return
      case "record": {
        // Its entries are together in one field, whose number is 0.
        const tag = readVarint(payload, start)
        const length = tag === undefined ? undefined : readVarint(payload, tag.end)
        if (length !== undefined) record(length.end, Math.min(to, length.end + length.value))
      }
    }
  }

  const length = readVarint(payload, 0)
  if (length !== undefined) fields(length.end + 1, payload.byteLength, 1)
  return { values, names, depth: deepest }
}
