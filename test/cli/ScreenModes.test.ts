import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { ScreenModes } from "../../src/cli/ScreenModes.ts"

const encoder = new TextEncoder()

const undoing = (...pieces: ReadonlyArray<string>): string => {
  const modes = new ScreenModes()
  for (const piece of pieces) modes.see(encoder.encode(piece))
  return modes.undo()
}

describe("what a program left on a terminal", () => {
  it("is nothing where it left nothing", () => {
    assert.strictEqual(undoing("plain \u001b[5;10H\u001b[2J\u001b[31mred\u001b[0m"), "")
    assert.strictEqual(undoing("\u001b[?1049h\u001b[?25l", "\u001b[?25h\u001b[?1049l"), "")
  })

  it("is undone in the opposite order, what was on at first is put on again", () => {
    assert.strictEqual(undoing("\u001b[?1049h\u001b[?25l\u001b[1;31m"), "\u001b[?25h\u001b[?1049l\u001b[0m")
    assert.strictEqual(undoing("\u001b[?1000;1006h"), "\u001b[?1006l\u001b[?1000l")
  })

  const Sequence = Schema.Literals([
    "\u001b[?1049h",
    "\u001b[?1049l",
    "\u001b[?25l",
    "\u001b[?25h",
    "\u001b[?7;2004h",
    "\u001b[32m",
    "\u001b[m",
    "text",
    "\u001b"
  ])

  it.prop(
    "is the same however its output is cut",
    [Schema.Array(Sequence), Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7 }))],
    ([sequences, length]) => {
      const whole = sequences.join("")
      const pieces = Array.from({ length: Math.ceil(whole.length / length) }, (_, index) =>
        whole.slice(index * length, (index + 1) * length)
      )
      assert.strictEqual(undoing(...pieces), undoing(whole))
    }
  )
})
