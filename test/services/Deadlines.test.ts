import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { ProcessId } from "../../src/domain/Ids.ts"
import { makeDeadlines } from "../../src/services/actor/Deadlines.ts"

const a = ProcessId.make("a")
const b = ProcessId.make("b")

const setUp = Effect.gen(function* () {
  const ended: Array<string> = []
  const deadlines = yield* makeDeadlines((processId) => Effect.sync(() => ended.push(processId)))
  return { ended, deadlines }
})

describe("Deadlines", () => {
  it.effect("ends a process once its time is up, and only then", () =>
    Effect.gen(function* () {
      const { ended, deadlines } = yield* setUp
      deadlines.start(a, 1000)
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(ended, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(ended, ["a"])
    })
  )

  it.effect("does not count the time during which the machine is paused", () =>
    Effect.gen(function* () {
      const { ended, deadlines } = yield* setUp
      deadlines.start(a, 1000)
      yield* TestClock.adjust(600)
      yield* deadlines.suspend
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(ended, [])
      yield* deadlines.resume
      yield* TestClock.adjust(399)
      assert.deepStrictEqual(ended, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(ended, ["a"])
    })
  )

  it.effect("keeps the first limit of a process that is asked for again", () =>
    Effect.gen(function* () {
      const { ended, deadlines } = yield* setUp
      deadlines.start(a, 1000)
      yield* TestClock.adjust(500)
      deadlines.start(a, 1000)
      yield* TestClock.adjust(500)
      assert.deepStrictEqual(ended, ["a"])
    })
  )

  it.effect("forgets processes that ended, and all of them when the machine is gone", () =>
    Effect.gen(function* () {
      const { ended, deadlines } = yield* setUp
      deadlines.start(a, 1000)
      deadlines.start(b, 1000)
      deadlines.cancel(a)
      yield* TestClock.adjust(500)
      yield* deadlines.clear
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(ended, [])
    })
  )
})
