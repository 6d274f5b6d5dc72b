import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Journal, type JournalReader } from "../../../src/layers/memory/Journal.ts"

const capacity = 64
const small = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 90 }))
const Step = Schema.Union([
  Schema.TaggedStruct("Write", {
    bytes: small,
    stream: Schema.Literals(["stdout", "stderr"]),
    at: Schema.Literals([1, 2])
  }),
  Schema.TaggedStruct("Attach", { cursor: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 400 })) }),
  Schema.TaggedStruct("Take", {
    reader: small,
    limit: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 }))
  }),
  Schema.TaggedStruct("Detach", { reader: small })
])
const Steps = Schema.Array(Step).check(Schema.isMaxLength(60))

/** The byte at a position, so that a reader can check what it gets without knowing what was written. */
const byteAt = (position: number): number => (position * 7 + 3) % 251

const write = (journal: Journal, count: number, stream: "stdout" | "stderr", at: number): number =>
  journal.write(
    stream,
    at,
    Uint8Array.from({ length: count }, (_, index) => byteAt(journal.end + index))
  )

describe("a journal", () => {
  it.prop("gives every reader exactly the bytes kept, in order, with every gap told", [Steps], ([steps]) => {
    const journal = new Journal(capacity)
    const readers: Array<JournalReader> = []
    const pick = (index: number) => readers[index % Math.max(1, readers.length)]
    const take = (reader: JournalReader, limit: number) => {
      const wanted = reader.cursor
      const batch = journal.take(reader, limit)
      let next = wanted
      if (batch.gap !== undefined) {
        assert.deepStrictEqual(batch.gap, { from: wanted, to: journal.oldest })
        next = batch.gap.to
      }
      for (const entry of batch.entries) {
        assert.strictEqual(entry.cursor, next)
        assert.isAbove(entry.data.length, 0)
        for (const [index, byte] of entry.data.entries())
          assert.strictEqual(byte, byteAt(entry.cursor + index))
        next += entry.data.length
      }
      assert.strictEqual(reader.cursor, next)
      if (wanted < journal.end) assert.isAbove(next, wanted)
    }
    for (const step of steps) {
      switch (step._tag) {
        case "Write": {
          const before = journal.end
          const needed = Math.min(before, ...readers.map((reader) => Math.max(reader.cursor, journal.oldest)))
          const taken = write(journal, step.bytes, step.stream, step.at)
          assert.strictEqual(journal.end, before + taken)
          if (readers.length === 0) assert.strictEqual(taken, step.bytes)
          else assert.isAtMost(journal.oldest, needed, "a reader's bytes are not overwritten")
          break
        }
        case "Attach":
          readers.push(journal.attach(step.cursor))
          break
        case "Take": {
          const reader = pick(step.reader)
          if (reader !== undefined) take(reader, step.limit)
          break
        }
        case "Detach": {
          const reader = pick(step.reader)
          if (reader !== undefined) {
            journal.detach(reader)
            readers.splice(readers.indexOf(reader), 1)
          }
        }
      }
      assert.isAtMost(journal.end - journal.oldest, capacity)
    }
    const late = journal.attach(0)
    while (late.cursor < journal.end) take(late, 1000)
  })

  it("holds the writer up for the slowest reader, and lets it go when that one detaches", () => {
    const journal = new Journal(8)
    const slow = journal.attach(0)
    const fast = journal.attach(0)
    assert.strictEqual(write(journal, 20, "stdout", 0), 8)
    journal.take(fast)
    assert.strictEqual(journal.room(), 0)
    journal.take(slow, 3)
    assert.strictEqual(journal.room(), 3)
    journal.detach(slow)
    assert.strictEqual(journal.room(), 8)
    journal.detach(fast)
    assert.strictEqual(write(journal, 20, "stdout", 0), 20)
    assert.deepStrictEqual([journal.oldest, journal.end], [20, 28])
  })

  it("keeps the streams apart and the moments", () => {
    const journal = new Journal(capacity)
    write(journal, 2, "stdout", 1)
    write(journal, 2, "stdout", 1)
    write(journal, 2, "stderr", 1)
    write(journal, 2, "stderr", 2)
    const { entries } = journal.take(journal.attach(0))
    assert.deepStrictEqual(
      entries.map(({ stream, at, cursor, data }) => [stream, at, cursor, data.length]),
      [
        ["stdout", 1, 0, 4],
        ["stderr", 1, 4, 2],
        ["stderr", 2, 6, 2]
      ]
    )
  })
})
