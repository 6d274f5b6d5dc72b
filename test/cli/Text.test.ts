import { assert, describe, it } from "@effect/vitest"
import { Option, Schema } from "effect"
import { parseEnd } from "../../src/cli/copy/Place.ts"
import { progressLine } from "../../src/cli/copy/Progress.ts"
import { parseLabel } from "../../src/cli/Labels.ts"
import { commandLine, duration, fields, size, table } from "../../src/cli/Text.ts"
import { parseDuration, parseSize } from "../../src/cli/Units.ts"

describe("text for people", () => {
  it("has columns as wide as what is in them", () => {
    const text = table(
      ["A", "LONGER", "C"],
      [
        ["wide cell", "", "x"],
        ["b", "c", ""]
      ]
    )
    assert.strictEqual(text, "A           LONGER   C\nwide cell            x\nb           c")
  })

  it("cannot be steered by what stands in it", () => {
    assert.notInclude(table(["A"], [["\u001b[2J\u202e"]]), "\u001b")
    assert.strictEqual(
      fields([
        ["name", "a\nb"],
        ["none", undefined]
      ]),
      "name   a b"
    )
  })

  it("writes times and sizes so that the command line takes them again", () => {
    for (const [millis, text] of [
      [0, "0ms"],
      [250, "250ms"],
      [59_999, "60s"],
      [60_000, "1m"],
      [5_400_000, "1h30m"],
      [7_199_999, "1h59m"],
      [90_000_000, "1d1h"]
    ] as const) {
      assert.strictEqual(duration(millis), text)
    }
    for (const [bytes, text] of [
      [0, "0"],
      [1023, "1023"],
      [1024, "1k"],
      [1536, "1.5k"],
      [512 * 1024 ** 2, "512m"],
      [2 * 1024 ** 3, "2g"]
    ] as const) {
      assert.strictEqual(size(bytes), text)
    }
  })

  it.prop(
    "is off by little when it is read again",
    [Schema.Int.check(Schema.isBetween({ minimum: 1000, maximum: 10 ** 12 }))],
    ([value]) => {
      const again = Option.getOrElse(parseDuration(duration(value)), () => 0)
      assert.isAtMost(Math.abs(again - value) / value, 0.05)
      const bytes = Option.getOrElse(parseSize(size(value)), () => 0)
      assert.isAtMost(Math.abs(bytes - value) / value, 0.05)
    }
  )

  it("quotes a command line only where it must", () => {
    assert.strictEqual(commandLine(["ls", "-l", "/a b", "it's", ""]), "ls -l '/a b' 'it'\\''s' ''")
  })

  it("tells how far a copy has come", () => {
    assert.match(progressLine(50, 100, 1000), /^ 50% █{12}░{12} 50 of 100 {3}50\/s {3}1s left$/)
    assert.match(progressLine(100, 100, 1000), /^100% █{24} 100 of 100 {3}100\/s$/)
    assert.strictEqual(progressLine(2048, undefined, 2000), "2k   1k/s")
    assert.strictEqual(progressLine(0, 0, 0), "0   0/s")
  })
})

describe("the ends of a copy", () => {
  it("are a pipe, a path here, or a path in a sandbox", () => {
    assert.deepStrictEqual(parseEnd("-"), { _tag: "Stdio" })
    assert.deepStrictEqual(parseEnd("dev:/a:b"), { _tag: "Inside", sandbox: "dev", path: "/a:b" })
    assert.deepStrictEqual(parseEnd("sb_local_x:"), { _tag: "Inside", sandbox: "sb_local_x", path: "" })
    for (const path of ["/a:b", "./a:b", "../a:b", "a/b:c", "a", "~/x:y", ":x"]) {
      assert.deepStrictEqual(parseEnd(path), { _tag: "Local", path })
    }
  })
})

describe("a label", () => {
  it("has a key and a value, which may hold anything", () => {
    assert.deepStrictEqual(parseLabel("a=b=c"), Option.some(["a", "b=c"]))
    assert.deepStrictEqual(parseLabel("a="), Option.some(["a", ""]))
    assert.deepStrictEqual(parseLabel("=b"), Option.none())
    assert.deepStrictEqual(parseLabel("a"), Option.none())
  })
})
