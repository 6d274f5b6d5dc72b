import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { makeAlarms } from "../../src/services/Alarms.ts"

const Millis = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 50 }))

describe("alarms", () => {
  it.effect("ring when it is time, each once, unless they are cancelled before", () =>
    Arbitrary.checkEffect(
      Arbitrary.schema(
        Schema.Array(
          Schema.Struct({ after: Millis, millis: Millis, cancelledAfter: Schema.optionalKey(Millis) })
        )
      ),
      (plan) =>
        Effect.gen(function* () {
          const alarms = yield* makeAlarms
          const rung = new Map<number, number>()
          const cancels = new Map<number, () => void>()
          let now = 0
          for (; now <= 101; now++) {
            for (const [index, { after, millis, cancelledAfter }] of plan.entries()) {
              if (after === now) {
                assert.isFalse(rung.has(index))
                cancels.set(
                  index,
                  alarms.set(millis, () => {
                    assert.isFalse(rung.has(index))
                    rung.set(index, now)
                  })
                )
              }
              if (cancelledAfter !== undefined && after + cancelledAfter === now) cancels.get(index)?.()
            }
            yield* TestClock.adjust(1)
          }
          for (const [
            index,
            { after, millis, cancelledAfter = Number.POSITIVE_INFINITY }
          ] of plan.entries()) {
            // Cancelled before the clock moved on to its time, and otherwise rung when it did.
            const at = after + Math.max(1, millis) - 1
            assert.strictEqual(rung.get(index), cancelledAfter + after <= at ? undefined : at)
          }
          return true
        }).pipe(Effect.scoped)
    )
  )

  it.effect("may be set by one that rings", () =>
    Effect.gen(function* () {
      const alarms = yield* makeAlarms
      const rung: Array<string> = []
      alarms.set(10, () => {
        rung.push("first")
        alarms.set(5, () => rung.push("second"))
        alarms.set(500, () => rung.push("last"))
      })
      alarms.set(100, () => rung.push("third"))
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(rung, ["first"])
      yield* TestClock.adjust(5)
      assert.deepStrictEqual(rung, ["first", "second"])
      yield* TestClock.adjust(85)
      assert.deepStrictEqual(rung, ["first", "second", "third"])
      yield* TestClock.adjust(410)
      assert.deepStrictEqual(rung, ["first", "second", "third", "last"])
    })
  )

  it.effect("do not ring when their scope has closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const alarms = yield* Scope.provide(makeAlarms, scope)
      let rung = 0
      alarms.set(10, () => rung++)
      yield* Scope.close(scope, Exit.void)
      alarms.set(10, () => rung++)
      yield* TestClock.adjust(100)
      assert.strictEqual(rung, 0)
    })
  )
})
