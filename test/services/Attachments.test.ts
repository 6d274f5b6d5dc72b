import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Timeout } from "../../src/domain/Errors.ts"
import type { ProcessEvent } from "../../src/domain/Process.ts"
import { makeAttachments } from "../../src/services/actor/Attachments.ts"
import { bounded } from "./bounded.ts"

const output = (cursor: number, size: number): ProcessEvent => ({
  _tag: "Output",
  stream: "stdout",
  cursor,
  at: 0,
  data: new Uint8Array(size).fill(cursor % 251)
})
const exited = (cursor: number): ProcessEvent => ({
  _tag: "Exited",
  status: { _tag: "Exited", code: 0 },
  cursor,
  at: 0,
  timedOut: false
})

describe("Attachments", () => {
  it.effect("detaches a reader that takes nothing for its idle limit, and lets go of what it read", () =>
    Effect.gen(function* () {
      const attachments = yield* makeAttachments
      let released = false
      const endless = Stream.fromEffectRepeat(Effect.succeed(1)).pipe(
        Stream.ensuring(
          Effect.sync(() => {
            released = true
          })
        )
      )
      const scope = yield* Scope.make()
      const pull = yield* Scope.provide(Stream.toPull(attachments.watched(endless, 1000)), scope)
      yield* pull
      assert.strictEqual(attachments.count(), 1)
      yield* TestClock.adjust(900)
      yield* pull
      yield* TestClock.adjust(900)
      assert.isFalse(released)
      yield* TestClock.adjust(600)
      assert.isTrue(released)
      assert.strictEqual(attachments.count(), 0)
      const error = yield* Effect.flip(pull)
      assert.instanceOf(error, Timeout)
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.effect("leaves a reader alone that waits for output which does not come", () =>
    Effect.gen(function* () {
      const attachments = yield* makeAttachments
      const late = Stream.fromEffect(Effect.delay(Effect.succeed("late"), "1 hour"))
      const reader = yield* Effect.forkChild(Stream.runCollect(attachments.watched(late, 1000)))
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual(attachments.count(), 1)
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* Fiber.join(reader), ["late"])
      assert.strictEqual(attachments.count(), 0)
    })
  )

  it.effect("forgets a reader that goes away by itself", () =>
    Effect.gen(function* () {
      const attachments = yield* makeAttachments
      const taken = yield* attachments
        .watched(Stream.range(1, 100), 1000)
        .pipe(Stream.take(3), Stream.runCollect)
      assert.deepStrictEqual(taken, [1, 2, 3])
      assert.strictEqual(attachments.count(), 0)
    })
  )
})

describe("bounded", () => {
  it.effect("passes the first bytes, counts the rest in one mark, and never loses the exit", () =>
    Arbitrary.checkEffect(
      Arbitrary.schema(
        Schema.Struct({
          sizes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 }))),
          bound: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 }))
        })
      ),
      ({ sizes, bound }) =>
        Effect.gen(function* () {
          const events: Array<ProcessEvent> = []
          let total = 0
          for (const size of sizes) {
            events.push(output(total, size))
            total += size
          }
          events.push(exited(total))
          const seen = yield* Stream.fromIterable(events).pipe(
            Stream.rechunk(3),
            bounded(bound),
            Stream.runCollect
          )
          const passed = seen.flatMap((event) => (event._tag === "Output" ? [event] : []))
          const bytes = passed.reduce((sum, event) => sum + event.data.byteLength, 0)
          assert.strictEqual(bytes, Math.min(bound, total))
          passed.reduce((at, event) => {
            assert.strictEqual(event.cursor, at)
            return at + event.data.byteLength
          }, 0)
          assert.deepStrictEqual(seen.at(-1), exited(total))
          const marks = seen.filter((event) => event._tag === "Truncated")
          assert.deepStrictEqual(marks, total > bound ? [{ _tag: "Truncated", from: bound, to: total }] : [])
          return true
        })
    )
  )
})
