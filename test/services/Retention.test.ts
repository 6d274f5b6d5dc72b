/**
 * What a bound on a program's output leaves of it, and what is told of the rest.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { Keep, type ProcessEvent } from "../../src/domain/Process.ts"
import { makeBound } from "../../src/services/actor/Retention.ts"
import { Output } from "../../src/services/Output.ts"

type StreamName = "stdout" | "stderr"

const Int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** A program: what it writes, piece by piece. Some pieces are lost by its journal. */
const Program = Schema.Array(
  Schema.Struct({ stream: Schema.Literals(["stdout", "stderr"]), size: Int(1, 40), isLost: Schema.Boolean })
)
type Program = typeof Program.Type

const exited = (cursor: number): ProcessEvent => ({
  _tag: "Exited",
  status: { _tag: "Exited", code: 0 },
  cursor,
  at: 0,
  timedOut: false
})

/** The events of a program; every byte tells where it stands. */
const eventsOf = (program: Program) => {
  const events: Array<ProcessEvent> = []
  let cursor = 0
  for (const { stream, size, isLost } of program) {
    const data = Uint8Array.from({ length: size }, (_, index) => (cursor + index) % 251)
    events.push(
      isLost
        ? { _tag: "Truncated", from: cursor, to: cursor + size }
        : { _tag: "Output", stream, cursor, at: 0, data }
    )
    cursor += size
  }
  return { events: [...events, exited(cursor)], end: cursor }
}

const through = (events: ReadonlyArray<ProcessEvent>, maxBytes: number, keep: Keep | undefined) =>
  events.flatMap(makeBound(maxBytes, keep))

const bytesOf = (events: ReadonlyArray<ProcessEvent>, stream?: StreamName): ReadonlyArray<number> =>
  events.flatMap((event) =>
    event._tag === "Output" && (stream === undefined || event.stream === stream) ? [...event.data] : []
  )

const startsWith = (whole: ReadonlyArray<number>, part: ReadonlyArray<number>): boolean =>
  part.every((byte, index) => byte === whole[index])

const withoutLosses = (program: Program): Program => program.map((piece) => ({ ...piece, isLost: false }))

const check = <A>(schema: Schema.Codec<A, unknown>, f: (value: A) => void) =>
  Arbitrary.checkEffect(Arbitrary.schema(schema), (value) =>
    Effect.sync(() => {
      f(value)
      return true
    })
  )

const Bounded = Schema.Struct({ program: Program, bound: Int(0, 300), keep: Schema.optional(Keep) })

describe("a bound on output", () => {
  it.effect("passes or tells of every byte, in order and once, and never loses the exit", () =>
    check(Bounded, ({ program, bound, keep }) => {
      const { events, end } = eventsOf(program)
      const seen = through(events, bound, keep)
      let cursor = 0
      for (const event of seen.slice(0, -1)) {
        if (event._tag === "Output") {
          assert.strictEqual(event.cursor, cursor)
          event.data.forEach((byte, index) => void assert.strictEqual(byte, (cursor + index) % 251))
          cursor += event.data.byteLength
        } else if (event._tag === "Truncated") {
          assert.strictEqual(event.from, cursor)
          cursor = event.to
        }
      }
      assert.strictEqual(cursor, end)
      assert.deepStrictEqual(seen.at(-1), exited(end))
      assert.isAtMost(bytesOf(seen).length, bound)
    })
  )

  it.effect("leaves nothing out of what fits into it", () =>
    check(Bounded, ({ program, keep }) => {
      const { events, end } = eventsOf(withoutLosses(program))
      const seen = through(events, end, keep)
      for (const stream of ["stdout", "stderr"] as const) {
        assert.deepStrictEqual(bytesOf(seen, stream), bytesOf(events, stream))
      }
    })
  )

  it.effect("is used up where there is more, and knows how much of which stream is missing", () =>
    check(Bounded, ({ program, bound, keep }) => {
      const { events, end } = eventsOf(withoutLosses(program))
      const seen = through(events, bound, keep)
      assert.strictEqual(bytesOf(seen).length, Math.min(bound, end))
      const missing = { stdout: 0, stderr: 0 }
      for (const event of seen) {
        if (event._tag !== "Truncated") continue
        missing.stdout += event.stdout ?? 0
        missing.stderr += event.stderr ?? 0
      }
      for (const stream of ["stdout", "stderr"] as const) {
        assert.strictEqual(bytesOf(seen, stream).length + missing[stream], bytesOf(events, stream).length)
      }
    })
  )

  it.effect("leaves each stream its beginning, its end, or both, whatever the other writes", () =>
    check(
      Schema.Struct({ program: Program, bound: Int(16, 300), keep: Keep }),
      ({ program, bound, keep }) => {
        const { events } = eventsOf(withoutLosses(program))
        const seen = through(events, bound, keep)
        const shares = {
          both: { head: Math.floor(Math.floor(bound / 2) / 2), tail: Math.floor(bound / 4) },
          head: { head: Math.floor(bound / 4), tail: 0 },
          tail: { head: 0, tail: Math.floor(bound / 2) }
        }[keep]
        for (const stream of ["stdout", "stderr"] as const) {
          const whole = bytesOf(events, stream)
          const part = bytesOf(seen, stream)
          const head = Math.min(shares.head, whole.length)
          const tail = Math.min(shares.tail, whole.length - head)
          assert.isAtLeast(part.length, head + tail)
          assert.isTrue(startsWith(whole, part.slice(0, head)), "the beginning")
          assert.isTrue(startsWith([...whole].reverse(), [...part].reverse().slice(0, tail)), "the end")
        }
      }
    )
  )

  it.effect("without a policy passes the first bytes as they come", () =>
    check(Schema.Struct({ program: Program, bound: Int(0, 300) }), ({ program, bound }) => {
      const { events, end } = eventsOf(withoutLosses(program))
      const pass = makeBound(bound)
      let written = 0
      let passed = 0
      for (const event of events) {
        passed += bytesOf(pass(event)).length
        if (event._tag === "Output") written += event.data.byteLength
        assert.strictEqual(passed, Math.min(bound, written))
      }
      assert.strictEqual(written, end)
    })
  )

  it("holds a bounded number of pieces, however small they are", () => {
    const pass = makeBound(1_000_000, "tail")
    const stream = (cursor: number): StreamName => (cursor % 2 === 0 ? "stdout" : "stderr")
    let seen: ReadonlyArray<ProcessEvent> = []
    for (let cursor = 0; cursor < 100_000; cursor++) {
      pass({ _tag: "Output", stream: stream(cursor), cursor, at: 0, data: new Uint8Array(1) })
    }
    seen = pass(exited(100_000))
    assert.deepStrictEqual(seen[0], {
      _tag: "Truncated",
      from: 0,
      to: 100_000 - 8192,
      stdout: (100_000 - 8192) / 2,
      stderr: (100_000 - 8192) / 2
    })
    assert.strictEqual(seen.length, 8192 + 2)
  })
})

const characters = ["a", "é", "€", "𝄞", "\ufeff"]

describe("text of output that is cut", () => {
  it.effect("has no broken character, and tells where what is missing was", () =>
    check(
      Schema.Struct({ picks: Schema.Array(Int(0, 4)), size: Int(1, 7), bound: Int(0, 60), keep: Keep }),
      ({ picks, size, bound, keep }) => {
        const text = picks.map((pick) => characters[pick] ?? "").join("")
        const bytes = new TextEncoder().encode(text)
        const output = new Output()
        const pass = makeBound(bound, keep)
        const add = (event: ProcessEvent) => pass(event).forEach((seen) => void output.add(seen))
        for (let cursor = 0; cursor < bytes.byteLength; cursor += size) {
          add({ _tag: "Output", stream: "stdout", cursor, at: 0, data: bytes.slice(cursor, cursor + size) })
        }
        add(exited(bytes.byteLength))
        const { stdout, truncated, droppedBytes, gaps } = output.captured
        assert.notInclude(stdout, "\ufffd")
        assert.strictEqual(new TextEncoder().encode(stdout).byteLength + droppedBytes, bytes.byteLength)
        assert.strictEqual(truncated, gaps.length > 0)
        assert.strictEqual(
          gaps.reduce((sum, gap) => sum + gap.bytes, 0),
          droppedBytes
        )
        const [gap] = gaps
        const at = gap?.at ?? stdout.length
        assert.isTrue(text.startsWith(stdout.slice(0, at)))
        assert.isTrue(text.endsWith(stdout.slice(at)))
      }
    )
  )
})
