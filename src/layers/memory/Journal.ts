/**
 * A process's output: bytes of two streams in one order, bounded, and read from
 * any position by any number of readers.
 *
 * While somebody is attached who holds the writer up, the slowest such reader does; otherwise
 * the oldest bytes are overwritten. A reader that asks for bytes
 * that are gone is told so, and goes on with the oldest that are kept.
 */

/** The two streams of a program. */
export type OutputStream = "stdout" | "stderr"

/** A run of bytes of one stream, written at one moment. */
export interface JournalEntry {
  readonly stream: OutputStream
  readonly cursor: number
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly data: Uint8Array
}

/** What a reader takes at once: a gap before the entries, if there is one, and the entries. */
export interface JournalBatch {
  readonly gap: { readonly from: number; readonly to: number } | undefined
  readonly entries: ReadonlyArray<JournalEntry>
}

/** A reader's place. */
export interface JournalReader {
  /** The next byte it wants. */
  cursor: number
  /** Whether it holds the writer up. */
  readonly holds: boolean
}

interface Block {
  readonly stream: OutputStream
  readonly cursor: number
  readonly at: number
  buffer: Uint8Array
  length: number
}

/** Small writes of the same stream and moment share a block up to this size. */
const blockBytes = 4096

/** The most bytes a reader takes at once. */
const batchBytes = 128 * 1024

const emptyBatch: JournalBatch = { gap: undefined, entries: [] }

/** One process's journal. */
export class Journal {
  readonly capacity: number
  /** The position after the last byte written. */
  end = 0
  /** The oldest byte kept. */
  oldest = 0
  private blocks: Array<Block> = []
  private first = 0
  /** Bytes of the blocks before `first`, dropped but not yet freed. */
  private stale = 0
  private readonly readers = new Set<JournalReader>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** Attaches a reader, which from now on holds the writer up unless it says that it does not. */
  attach(cursor: number, holds = true): JournalReader {
    const reader = { cursor, holds }
    this.readers.add(reader)
    return reader
  }

  detach(reader: JournalReader): void {
    this.readers.delete(reader)
  }

  get attached(): number {
    return this.readers.size
  }

  /** How many bytes may be written now. */
  room(): number {
    let needed = Number.POSITIVE_INFINITY
    for (const { cursor, holds } of this.readers) {
      if (holds) needed = Math.min(needed, Math.max(Math.min(cursor, this.end), this.oldest))
    }
    return Math.max(0, needed + this.capacity - this.end)
  }

  /** Writes what fits now, and returns how many bytes that was. The data is copied. */
  write(stream: OutputStream, at: number, data: Uint8Array): number {
    const count = Math.min(data.length, this.room())
    if (count > 0) this.append(stream, at, count === data.length ? data : data.subarray(0, count))
    return count
  }

  /** Takes the next bytes for a reader; no entries when there are none yet. */
  take(reader: JournalReader, limit: number = batchBytes): JournalBatch {
    const gap =
      reader.cursor < this.oldest ? { from: reader.cursor, to: Math.min(this.oldest, this.end) } : undefined
    if (gap !== undefined) reader.cursor = gap.to
    if (reader.cursor >= this.end) return gap === undefined ? emptyBatch : { gap, entries: [] }
    const entries: Array<JournalEntry> = []
    let left = limit
    for (let index = this.find(reader.cursor); index < this.blocks.length && left > 0; index++) {
      const block = this.blocks[index]
      if (block === undefined) break
      const from = Math.max(reader.cursor, this.oldest) - block.cursor
      const to = Math.min(block.length, from + left)
      entries.push({
        stream: block.stream,
        cursor: block.cursor + from,
        at: block.at,
        data: block.buffer.slice(from, to)
      })
      left -= to - from
      reader.cursor = block.cursor + to
    }
    return { gap, entries }
  }

  private append(stream: OutputStream, at: number, data: Uint8Array): void {
    // Of a write larger than the whole journal only the end is kept.
    const kept = data.length > this.capacity ? data.subarray(data.length - this.capacity) : data
    const last = this.blocks[this.blocks.length - 1]
    const skipped = data.length - kept.length
    this.end += skipped
    if (
      skipped === 0 &&
      last !== undefined &&
      last.stream === stream &&
      last.at === at &&
      last.length + kept.length <= blockBytes
    ) {
      extend(last, kept)
    } else {
      this.blocks.push({ stream, cursor: this.end, at, buffer: kept.slice(), length: kept.length })
    }
    this.end += kept.length
    this.oldest = Math.max(this.oldest, this.end - this.capacity)
    this.trim()
  }

  /** Drops blocks that hold only overwritten bytes. */
  private trim(): void {
    for (;;) {
      const block = this.blocks[this.first]
      if (block === undefined || block.cursor + block.length > this.oldest) break
      this.first++
      this.stale += block.length
    }
    // Not at every write: moving a long array for each would cost more than the bytes it frees.
    if (this.first > 1024 || this.stale > this.capacity / 2) {
      this.blocks.splice(0, this.first)
      this.first = 0
      this.stale = 0
    }
  }

  /** The index of the block that holds a position. */
  private find(cursor: number): number {
    let low = this.first
    let high = this.blocks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      const block = this.blocks[middle]
      if (block !== undefined && block.cursor <= cursor) low = middle
      else high = middle - 1
    }
    return low
  }
}

const extend = (block: Block, data: Uint8Array): void => {
  const length = block.length + data.length
  if (block.buffer.length < length) {
    const buffer = new Uint8Array(Math.min(blockBytes, Math.max(length, block.buffer.length * 2)))
    buffer.set(block.buffer.subarray(0, block.length))
    block.buffer = buffer
  }
  block.buffer.set(data, block.length)
  block.length = length
}
