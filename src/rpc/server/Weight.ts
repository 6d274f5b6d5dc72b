/**
 * How much a message asks to be decoded, found in one pass over its bytes and
 * without decoding it: a few megabytes can hold so many values that making them
 * takes seconds, in which nobody else is served. Of JSON here, of the binary
 * encoding in BinaryWeight.ts.
 */
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
