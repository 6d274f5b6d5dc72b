import { assert, describe, it } from "@effect/vitest"
import { Option, Schema } from "effect"
import { Detector, parseDetachKeys } from "../../src/cli/DetachKeys.ts"

const keysOf = (text: string) => Option.map(parseDetachKeys(text), (keys) => [...keys])

describe("detach keys", () => {
  it("are written as control keys and characters with commas between", () => {
    assert.deepStrictEqual(keysOf("ctrl-p,ctrl-q"), Option.some([16, 17]))
    assert.deepStrictEqual(keysOf("ctrl-],~,."), Option.some([29, 126, 46]))
    assert.deepStrictEqual(keysOf("Ctrl-A"), Option.some([1]))
    assert.deepStrictEqual(keysOf("ctrl-@,ctrl-_"), Option.some([0, 31]))
    assert.deepStrictEqual(keysOf("none"), Option.some([]))
    for (const wrong of ["", "ctrl-", "ctrl-pp", "ctrl-1", "p,", "ab", "\u00e9"]) {
      assert.deepStrictEqual(keysOf(wrong), Option.none(), wrong)
    }
  })

  /** What passes of what is typed in pieces, and whether it detached. */
  const typed = (keys: ReadonlyArray<number>, pieces: ReadonlyArray<ReadonlyArray<number>>) => {
    const detector = new Detector(Uint8Array.from(keys))
    const passed: Array<number> = []
    for (const piece of pieces) {
      const { detached, pass } = detector.take(Uint8Array.from(piece))
      passed.push(...pass)
      if (detached) return { passed, detached }
    }
    return { passed, detached: false }
  }

  it("hold a beginning back until the next key shows what it was", () => {
    assert.deepStrictEqual(typed([16, 17], [[97, 16]]), { passed: [97], detached: false })
    assert.deepStrictEqual(typed([16, 17], [[16], [98]]), { passed: [16, 98], detached: false })
    assert.deepStrictEqual(
      typed(
        [16, 17],
        [
          [97, 16],
          [17, 98]
        ]
      ),
      { passed: [97], detached: true }
    )
    assert.deepStrictEqual(typed([16, 17], [[16, 16, 17]]), { passed: [16], detached: true })
    assert.deepStrictEqual(typed([], [[16, 17]]), { passed: [16, 17], detached: false })
  })

  /** Two keys only, so that beginnings overlap in every way. */
  const Key = Schema.Literals([1, 2])
  const Keys = Schema.Array(Key).check(Schema.isMinLength(1), Schema.isMaxLength(5))
  const Pieces = Schema.Array(Schema.Array(Key).check(Schema.isMaxLength(6))).check(Schema.isMaxLength(6))

  it.prop(
    "are found where they first occur, however what is typed is cut, and all before them passes",
    [Keys, Pieces],
    ([keys, pieces]) => {
      const all = pieces.flat().join("")
      const at = all.indexOf(keys.join(""))
      const { detached, passed } = typed(keys, pieces)
      assert.strictEqual(detached, at !== -1)
      if (detached) return assert.strictEqual(passed.join(""), all.slice(0, at))
      // What is held back is the longest end that may still become the keys.
      const held = all.slice(passed.length)
      assert.strictEqual(passed.join("") + held, all)
      const longest = Array.from({ length: keys.length }, (_, length) => keys.slice(0, length).join(""))
        .filter((beginning) => all.endsWith(beginning))
        .at(-1)
      assert.strictEqual(held, longest)
    }
  )
})
