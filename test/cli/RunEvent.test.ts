import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { encodeLine, Lines, RunEvent } from "../../src/cli/RunEvent.ts"
import { Generation } from "../../src/domain/Ids.ts"
import type { ProcessEvent } from "../../src/domain/Process.ts"

const output = (stream: "stdout" | "stderr", data: Uint8Array): ProcessEvent => ({
  _tag: "Output",
  stream,
  cursor: 0,
  at: 1,
  data
})
const exited: ProcessEvent = {
  _tag: "Exited",
  status: { _tag: "Exited", code: 0 },
  cursor: 0,
  at: 2,
  timedOut: false
}
const decode = Schema.decodeUnknownSync(Schema.fromJsonString(RunEvent))

/** What a reader of the lines makes of them. */
const read = (events: ReadonlyArray<ProcessEvent>) => {
  const lines = new Lines()
  const decoded = events.flatMap((event) => lines.of(event)).map((line) => decode(encodeLine(line)))
  const bytesOf = (stream: "stdout" | "stderr") =>
    Buffer.concat(
      decoded.flatMap((line) => {
        if (line.event !== "output" || line.stream !== stream) return []
        return ["text" in line ? Buffer.from(line.text) : Buffer.from(line.base64, "base64")]
      })
    )
  return { decoded, stdout: bytesOf("stdout"), stderr: bytesOf("stderr") }
}

const pieces = (bytes: Uint8Array, size: number): Array<Uint8Array> =>
  bytes.byteLength === 0 ? [] : [bytes.subarray(0, size), ...pieces(bytes.subarray(size), size)]

describe("the lines of run --json", () => {
  it.prop(
    "carry every byte of both streams in order, whatever the bytes and wherever they are cut",
    [Schema.Uint8Array, Schema.Uint8Array, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7 }))],
    ([out, error, size]) => {
      const outs = pieces(out, size).map((piece) => output("stdout", piece))
      const errors = pieces(error, size).map((piece) => output("stderr", piece))
      const mixed = outs.flatMap((event, index) => [event, ...errors.slice(index, index + 1)])
      const result = read([...mixed, ...errors.slice(outs.length), exited])
      assert.deepStrictEqual(result.stdout, Buffer.from(out))
      assert.deepStrictEqual(result.stderr, Buffer.from(error))
    }
  )

  it.prop(
    "are text throughout for text, even where a character is cut in two",
    [Schema.String, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 }))],
    ([text, size]) => {
      const wellFormed = text.toWellFormed()
      const events = pieces(Buffer.from(wellFormed), size).map((piece) => output("stdout", piece))
      const result = read([...events, exited])
      assert.isFalse(result.decoded.some((line) => "base64" in line))
      assert.strictEqual(result.stdout.toString(), wellFormed)
    }
  )

  it("give a signal its name and the shell's number", () => {
    const status = { _tag: "Signaled", signal: "SIGKILL", number: 9 } as const
    const [line] = new Lines().of({ ...exited, status })
    assert.deepStrictEqual(line, {
      event: "exited",
      exitCode: 137,
      signal: "SIGKILL",
      timedOut: false,
      at: 2
    })
  })

  it("give a time limit the exit code of timeout(1)", () => {
    const [line] = new Lines().of({ ...exited, timedOut: true })
    assert.deepStrictEqual(line, { event: "exited", exitCode: 124, timedOut: true, at: 2 })
  })

  it("say how many bytes were lost", () => {
    assert.deepStrictEqual(new Lines().of({ _tag: "Truncated", from: 10, to: 25 }), [
      { event: "truncated", bytes: 15 }
    ])
  })

  it("say under which isolation the program runs", () => {
    const started: ProcessEvent = {
      _tag: "Started",
      pid: 7,
      startedAt: 5,
      generation: Generation.make(1),
      isolation: "container"
    }
    assert.deepStrictEqual(new Lines().of(started), [
      { event: "started", pid: 7, isolation: "container", at: 5 }
    ])
  })
})
