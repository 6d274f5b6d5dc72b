import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Timeout } from "../../src/domain/Errors.ts"
import { makeAttachments } from "../../src/services/actor/Attachments.ts"

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

  it.effect(
    "measures how long a reader takes nothing by time that passes, and not by a clock that jumps",
    () =>
      Effect.gen(function* () {
        const clock = yield* Clock.Clock
        let aheadMillis = 0
        const settable: Clock.Clock = {
          ...clock,
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + aheadMillis,
          currentTimeMillis: Effect.sync(() => clock.currentTimeMillisUnsafe() + aheadMillis)
        }
        yield* Effect.gen(function* () {
          const attachments = yield* makeAttachments
          const endless = Stream.fromEffectRepeat(Effect.succeed(1))
          const pull = yield* Stream.toPull(attachments.watched(endless, 1000))
          yield* pull
          aheadMillis = 3_600_000
          yield* TestClock.adjust(900)
          assert.strictEqual(attachments.count(), 1)
          aheadMillis = -86_400_000
          yield* TestClock.adjust(600)
          assert.strictEqual(attachments.count(), 0)
        }).pipe(Effect.provideService(Clock.Clock, settable))
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
