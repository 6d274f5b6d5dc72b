/**
 * What a reader is given of a program that writes more than the reader wants.
 *
 * Bytes are passed on at once as long as they belong to what is kept for
 * certain. From the first that may have to be left out, everything waits for the
 * program's end, in the order in which it was written: only then is it known
 * what the last bytes are. What waits is bounded, and the program is not held up.
 */
import type { Keep, ProcessEvent } from "../../domain/Process.ts"

type Output = Extract<ProcessEvent, { readonly _tag: "Output" }>
type StreamName = Output["stream"]

/** The most bytes that are kept for the ends of the streams, where the beginnings are kept as well. */
const maxEnds = 256 * 1024
/** Waiting pieces of either kind; beyond, the oldest go, however small they are. */
const maxPieces = 8_192
/** Up to this size neighbours are joined into one piece. */
const joinedBytes = 4096

/** How a budget is divided. */
interface Shares {
  /** Bytes that only the ends of the streams get. */
  readonly ends: number
  /** Bytes of each stream's beginning that the other stream cannot take. */
  readonly reserve: number
}

const sharesOf = (maxBytes: number, keep: Keep | undefined): Shares => {
  switch (keep) {
    case "both": {
      const ends = Math.min(Math.floor(maxBytes / 2), maxEnds)
      return { ends, reserve: Math.floor(ends / 2) }
    }
    case "tail":
      return { ends: maxBytes, reserve: 0 }
    case "head":
      return { ends: 0, reserve: Math.min(Math.floor(maxBytes / 4), maxEnds / 2) }
    case undefined:
      return { ends: 0, reserve: 0 }
  }
}

interface Links {
  before: Item | undefined
  after: Item | undefined
}

/** Output that waits. */
interface Piece extends Links {
  readonly _tag: "Piece"
  readonly stream: StreamName
  readonly at: number
  /** Belongs to the beginning of its stream: it is never left out. */
  readonly isHead: boolean
  cursor: number
  /** The first `size` of these bytes. */
  bytes: Uint8Array
  size: number
}

/** Output that is left out. */
interface Hole extends Links {
  readonly _tag: "Hole"
  from: number
  to: number
  /** How many of its bytes are known to be of each stream. */
  stdout: number
  stderr: number
}

type Item = Piece | Hole

/** A view that holds on to no more than twice its size. */
const own = (bytes: Uint8Array): Uint8Array =>
  bytes.buffer.byteLength > 2 * bytes.byteLength ? bytes.slice() : bytes

/** What waits, in the order in which it was written. */
class Waiting {
  #first: Item | undefined
  #last: Item | undefined
  /** Each stream's oldest piece that may be left out. */
  readonly #oldest: Record<StreamName, Piece | undefined> = { stdout: undefined, stderr: undefined }
  /** Bytes of each stream that may be left out. */
  readonly held = { stdout: 0, stderr: 0 }
  /** Pieces that may be left out, and those that may not. */
  readonly count = { rest: 0, heads: 0 }

  get isEmpty(): boolean {
    return this.#first === undefined
  }

  get heldBytes(): number {
    return this.held.stdout + this.held.stderr
  }

  add({ stream, cursor, at, data }: Output, isHead: boolean): void {
    if (!isHead) this.held[stream] += data.byteLength
    const last = this.#last
    if (last?._tag === "Piece" && last.stream === stream && last.isHead === isHead && join(last, data)) return
    const piece: Piece = {
      _tag: "Piece",
      stream,
      at,
      isHead,
      cursor,
      bytes: own(data),
      size: data.byteLength,
      before: undefined,
      after: undefined
    }
    this.count[isHead ? "heads" : "rest"]++
    this.#insert(piece, this.#last)
    if (!isHead) this.#oldest[stream] ??= piece
  }

  /** Leaves out bytes that have not been added. */
  skip(from: number, to: number, stream?: StreamName): void {
    const hole: Hole = { _tag: "Hole", from, to, stdout: 0, stderr: 0, before: undefined, after: undefined }
    if (stream !== undefined) hole[stream] = to - from
    this.#insert(hole, this.#last)
    this.#merge(hole)
  }

  /** Leaves out the oldest bytes of a stream, at most so many. */
  dropOldest(stream: StreamName, bytes: number): void {
    const piece = this.#oldest[stream]
    if (piece === undefined) return
    const size = Math.min(bytes, piece.size)
    const hole = this.#hole(piece.cursor, size, stream)
    this.#insert(hole, piece.before)
    piece.cursor += size
    this.#shrink(piece, piece.bytes.subarray(size, piece.size))
    this.#merge(hole)
  }

  /** Leaves out the newest bytes of a stream, at most so many. */
  dropNewest(stream: StreamName, bytes: number): void {
    const piece = this.#find(this.#last, "before", stream)
    if (piece === undefined) return
    const size = Math.min(bytes, piece.size)
    const left = piece.size - size
    const hole = this.#hole(piece.cursor + left, size, stream)
    this.#insert(hole, piece)
    this.#shrink(piece, piece.bytes.subarray(0, left))
    this.#merge(hole)
  }

  /** Leaves out the oldest piece that may be. */
  dropPiece(): void {
    const { stdout, stderr } = this.#oldest
    const isStdout = stderr === undefined || (stdout !== undefined && stdout.cursor < stderr.cursor)
    this.dropOldest(isStdout ? "stdout" : "stderr", Number.POSITIVE_INFINITY)
  }

  *events(): Generator<ProcessEvent> {
    for (let item = this.#first; item !== undefined; item = item.after) {
      if (item._tag === "Hole") {
        const { from, to, stdout, stderr } = item
        yield { _tag: "Truncated", from, to, stdout, stderr }
      } else {
        const { stream, cursor, at, bytes, size } = item
        yield { _tag: "Output", stream, cursor, at, data: bytes.subarray(0, size) }
      }
    }
  }

  #hole(from: number, size: number, stream: StreamName): Hole {
    const counts = { stdout: 0, stderr: 0, [stream]: size }
    return { _tag: "Hole", from, to: from + size, ...counts, before: undefined, after: undefined }
  }

  #find(from: Item | undefined, way: keyof Links, stream: StreamName): Piece | undefined {
    for (let item = from; item !== undefined; item = item[way]) {
      if (item._tag === "Piece" && item.stream === stream && !item.isHead) return item
    }
    return undefined
  }

  /** Makes a piece smaller, or takes it out. */
  #shrink(piece: Piece, left: Uint8Array): void {
    const { stream } = piece
    this.held[stream] -= piece.size - left.byteLength
    piece.bytes = left
    piece.size = left.byteLength
    if (piece.size > 0) return
    this.count.rest--
    if (this.#oldest[stream] === piece) this.#oldest[stream] = this.#find(piece.after, "after", stream)
    this.#remove(piece)
  }

  #insert(item: Item, before: Item | undefined): void {
    const after = before === undefined ? this.#first : before.after
    item.before = before
    item.after = after
    if (before === undefined) this.#first = item
    else before.after = item
    if (after === undefined) this.#last = item
    else after.before = item
  }

  #remove({ before, after }: Item): void {
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
  }

  /** Joins a hole with those beside it. */
  #merge(hole: Hole): void {
    for (const other of [hole.before, hole.after]) {
      if (other?._tag !== "Hole") continue
      hole.from = Math.min(hole.from, other.from)
      hole.to = Math.max(hole.to, other.to)
      hole.stdout += other.stdout
      hole.stderr += other.stderr
      this.#remove(other)
    }
  }
}

/** Appends to a piece, if the whole stays small. */
const join = (piece: Piece, data: Uint8Array): boolean => {
  const size = piece.size + data.byteLength
  if (size > joinedBytes) return false
  if (size > piece.bytes.byteLength) {
    const larger = new Uint8Array(Math.min(joinedBytes, 2 * size))
    larger.set(piece.bytes.subarray(0, piece.size))
    piece.bytes = larger
  }
  piece.bytes.set(data, piece.size)
  piece.size = size
  return true
}

/** What of each event of a process a reader is given. */
export type Bound = (event: ProcessEvent) => ReadonlyArray<ProcessEvent>

/**
 * A bound of `maxBytes` of output. Without `keep` it passes the first bytes, of
 * both streams in their order, as they come. What is left out is told in
 * `Truncated` events, where it is missing.
 *
 * With `both`, each stream keeps its beginning and its end; what one of the
 * streams does not need, the other may have, so that output within the bound is whole.
 * The same holds for `head`. What waits for the end never exceeds 384 KiB, with `tail` `maxBytes`.
 */
export const makeBound = (maxBytes: number, keep?: Keep): Bound => {
  if (maxBytes === Number.POSITIVE_INFINITY) return (event) => [event]
  const { ends, reserve } = sharesOf(maxBytes, keep)
  const keepsEnds = keep === "both" || keep === "tail"
  const heads = { stdout: 0, stderr: 0 }
  const waiting = new Waiting()

  /** How many more bytes of a stream belong to its beginning for certain. It never grows. */
  const headRoom = (stream: StreamName): number => {
    if (waiting.count.heads >= maxPieces) return 0
    const other = heads[stream === "stdout" ? "stderr" : "stdout"]
    return Math.max(0, maxBytes - ends - heads[stream] - Math.max(other, reserve))
  }

  const roomForRest = () => maxBytes - heads.stdout - heads.stderr

  /** Leaves out what is too much, of the stream that has more of it. */
  const trim = () => {
    while (waiting.heldBytes > roomForRest()) {
      const { stdout, stderr } = waiting.held
      const excess = waiting.heldBytes - roomForRest()
      const bytes = Math.min(excess, Math.max(Math.abs(stdout - stderr), Math.ceil(excess / 2)))
      waiting[keepsEnds ? "dropOldest" : "dropNewest"](stdout > stderr ? "stdout" : "stderr", bytes)
    }
    while (waiting.count.rest > maxPieces) waiting.dropPiece()
  }

  /** Takes what is behind its stream's beginning. */
  const addRest = (output: Output): void => {
    const { stream, cursor, data } = output
    const size = data.byteLength
    let room = size
    if (!keepsEnds) {
      const left = waiting.count.rest < maxPieces ? roomForRest() - waiting.heldBytes : 0
      room = Math.max(0, Math.min(size, left))
    }
    if (room > 0) waiting.add(sliced(output, 0, room), false)
    if (room < size) waiting.skip(cursor + room, cursor + size, stream)
  }

  const see = (event: Output): ReadonlyArray<ProcessEvent> => {
    const size = event.data.byteLength
    const head = Math.min(headRoom(event.stream), size)
    heads[event.stream] += head
    const begins = waiting.isEmpty
    if (begins && head === size) return [event]
    const first = sliced(event, 0, head)
    if (!begins && head > 0) waiting.add(first, true)
    if (head < size) addRest(sliced(event, head, size))
    trim()
    return begins && head > 0 ? [first] : []
  }

  return (event) => {
    switch (event._tag) {
      case "Started":
        return [event]
      case "Output":
        return see(event)
      case "Truncated":
        if (waiting.isEmpty) return [event]
        waiting.skip(event.from, event.to)
        return []
      case "Exited":
        return waiting.isEmpty ? [event] : [...waiting.events(), event]
    }
  }
}

const sliced = (event: Output, from: number, to: number): Output =>
  from === 0 && to === event.data.byteLength
    ? event
    : { ...event, cursor: event.cursor + from, data: event.data.subarray(from, to) }
