import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Owner } from "../../src/domain/Ids.ts"
import { makeRounds } from "../../src/rpc/server/Rounds.ts"

const kib = 1024

/** Rounds that come when they are called for, and who passed in them. */
const make = () => {
  let due: Array<() => void> = []
  const passed: Array<string> = []
  const rounds = makeRounds((begin) => {
    due.push(begin)
  })
  return {
    passed,
    pass: (owner: string, bytes: number) =>
      Effect.forkChild(
        Effect.map(rounds.pass(Owner.make(owner), bytes), () => {
          passed.push(owner)
        }),
        { startImmediately: true }
      ),
    next: Effect.gen(function* () {
      const begins = due
      due = []
      for (const begin of begins) begin()
      yield* Effect.yieldNow
    }),
    isDue: () => due.length > 0
  }
}

describe("rounds", () => {
  it.effect("give every caller a share, in the order in which it asked", () =>
    Effect.gen(function* () {
      const { pass, passed, next } = make()
      for (let n = 0; n < 4; n++) yield* pass("greedy", 200 * kib)
      yield* pass("other", 10 * kib)
      assert.deepStrictEqual(passed, ["greedy", "greedy", "other"])
      yield* next
      assert.deepStrictEqual(passed, ["greedy", "greedy", "other", "greedy", "greedy"])
    })
  )

  it.effect("hold no more than a MiB, and then begin with who has waited longest", () =>
    Effect.gen(function* () {
      const { pass, passed, next } = make()
      const owners = ["a", "b", "c", "d", "e", "f"]
      for (const owner of owners) {
        yield* pass(owner, 256 * kib)
        yield* pass(owner, 256 * kib)
      }
      assert.deepStrictEqual(passed.splice(0), ["a", "b", "c", "d"])
      yield* next
      assert.deepStrictEqual(passed.splice(0), ["a", "b", "c", "d"])
      yield* next
      assert.deepStrictEqual(passed.splice(0), ["e", "f"])
      yield* next
      assert.deepStrictEqual(passed, ["e", "f"])
    })
  )

  it.effect("let pass what is larger than a share, forget who goes, and come to an end", () =>
    Effect.gen(function* () {
      const { pass, passed, next, isDue } = make()
      yield* pass("a", 10_000 * kib)
      const left = yield* pass("a", 1)
      yield* pass("b", 1)
      assert.deepStrictEqual(passed, ["a"])
      yield* Fiber.interrupt(left)
      yield* next
      assert.deepStrictEqual(passed, ["a", "b"])
      yield* next
      assert.isFalse(isDue())
    })
  )

  it.effect("let everybody pass who waits again as soon as it has passed", () =>
    Effect.gen(function* () {
      const begins: Array<() => void> = []
      const rounds = makeRounds((begin) => {
        begins.push(begin)
      })
      const pass = rounds.pass(Owner.make("greedy"), 200 * kib)
      const fibers = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(Effect.replicateEffect(pass, 20, { discard: true }), { startImmediately: true })
      )
      for (let begin = begins.shift(); begin !== undefined; begin = begins.shift()) {
        begin()
        yield* Effect.yieldNow
      }
      assert.deepStrictEqual(
        fibers.map((fiber) => fiber.pollUnsafe()?._tag),
        ["Success", "Success", "Success"]
      )
    })
  )
})
