/**
 * Programs that are read by one answer: together with what comes after it, the
 * answer has every event once, whenever it is given.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, type Cause, Effect, Exit, Fiber, Queue, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection } from "../../src/domain/Errors.ts"
import { Generation, ProcessId, ReaderId } from "../../src/domain/Ids.ts"
import type { ProcessEvent, ProcessSpec } from "../../src/domain/Process.ts"
import type { StartError } from "../../src/rpc/SandboxRpcs.ts"
import { makeAttachments } from "../../src/services/actor/Attachments.ts"
import { makeExecs } from "../../src/services/actor/Execs.ts"

const processId = ProcessId.make("p")
const reader = ReaderId.make("r")
const started: ProcessEvent = {
  _tag: "Started",
  pid: 7,
  startedAt: 1,
  generation: Generation.make(1),
  isolation: "none"
}
const outputs = (sizes: ReadonlyArray<number>): ReadonlyArray<ProcessEvent> => {
  let cursor = 0
  return sizes.map((size) => {
    const event = { _tag: "Output", stream: "stdout", cursor, at: 1, data: new Uint8Array(size) } as const
    cursor += size
    return event
  })
}
const exited = (cursor: number): ProcessEvent => ({
  _tag: "Exited",
  status: { _tag: "Exited", code: 0 },
  cursor,
  at: 2,
  timedOut: false
})
const sum = (sizes: ReadonlyArray<number>) => sizes.reduce((total, size) => total + size, 0)
const whole = (sizes: ReadonlyArray<number>) => [started, ...outputs(sizes), exited(sum(sizes))]

const spec: ProcessSpec = { processId, argv: ["x"] }
const exec = { process: spec, options: { reader }, waitMillis: undefined }
const unexpected = Stream.die(new Error("not expected"))

const lengthOf = (events: ReadonlyArray<ProcessEvent>) =>
  sum(events.map((event) => (event._tag === "Output" ? event.data.byteLength : 0)))

/** A program that says what it is told to. */
const program = Effect.gen(function* () {
  const queue = yield* Queue.unbounded<ProcessEvent, StartError | Cause.Done>()
  let isRead = true
  const events = Stream.fromQueue(queue).pipe(
    Stream.ensuring(
      Effect.sync(() => {
        isRead = false
      })
    )
  )
  return { queue, events, isRead: () => isRead }
})

describe("a program read by one answer", () => {
  it.effect("is told whole, the rest to the reader that goes on where its answer ended", () =>
    Arbitrary.checkEffect(
      Arbitrary.schema(
        Schema.Struct({
          sizes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 30_000 }))),
          chunk: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 }))
        })
      ),
      ({ sizes, chunk }) =>
        Effect.gen(function* () {
          const execs = yield* makeExecs(yield* makeAttachments)
          const events = whole(sizes)
          const answer = yield* execs.exec(exec, Stream.rechunk(Stream.fromIterable(events), chunk))
          const cursor = lengthOf(answer)
          if (answer.at(-1)?._tag === "Exited") {
            assert.deepStrictEqual(answer, events)
            return true
          }
          assert.isAtLeast(cursor + answer.length * 64, 64 * 1024)
          assert.isBelow(cursor, 64 * 1024 + 30_000)
          assert.deepStrictEqual(yield* execs.exec(exec, unexpected), answer)
          const rest = yield* Stream.runCollect(execs.rest(processId, { reader, cursor }, unexpected))
          assert.deepStrictEqual(rest[0], started)
          assert.deepStrictEqual([...answer, ...rest.slice(1)], events)
          return true
        }).pipe(Effect.scoped)
    )
  )

  it.effect("is answered in time with what there is, and goes on", () =>
    Effect.gen(function* () {
      const execs = yield* makeExecs(yield* makeAttachments)
      const { queue, events } = yield* program
      const [first, second] = outputs([3, 4])
      if (first === undefined || second === undefined) return assert.fail()
      const asked = yield* Effect.forkChild(execs.exec({ ...exec, waitMillis: 1000 }, events))
      yield* Queue.offerAll(queue, [started, first])
      yield* TestClock.adjust(1000)
      assert.deepStrictEqual(yield* Fiber.join(asked), [started, first])
      yield* Queue.offerAll(queue, [second, exited(7)])
      yield* Queue.end(queue)
      assert.deepStrictEqual(yield* execs.exec(exec, unexpected), [started, first])
      const rest = yield* Stream.runCollect(execs.rest(processId, { reader, cursor: 3 }, unexpected))
      assert.deepStrictEqual(rest, [started, second, exited(7)])
    }).pipe(Effect.scoped)
  )

  it.effect("goes on only for its reader, at its place, and only once", () =>
    Effect.gen(function* () {
      const execs = yield* makeExecs(yield* makeAttachments)
      const sizes = [64 * 1024, 10]
      const other = Stream.succeed(exited(0))
      yield* execs.exec(exec, Stream.rechunk(Stream.fromIterable(whole(sizes)), 1))
      const attach = (options: { readonly reader?: ReaderId; readonly cursor: number }) =>
        Effect.map(Stream.runCollect(execs.rest(processId, options, other)), (events) => events.length)
      const cursor = 64 * 1024
      assert.strictEqual(yield* attach({ cursor }), 1)
      assert.strictEqual(yield* attach({ cursor, reader: ReaderId.make("other") }), 1)
      assert.strictEqual(yield* attach({ cursor: 0, reader }), 1)
      const another = { ...exec, process: { ...spec, argv: ["y"] as const } }
      assert.deepStrictEqual(yield* execs.exec(another, other), [exited(0)])
      assert.strictEqual(yield* attach({ cursor, reader }), 3)
      assert.strictEqual(yield* attach({ cursor, reader }), 1)
    }).pipe(Effect.scoped)
  )

  it.effect("is let go when its end is told, its reader does not come, or nobody waits any more", () =>
    Effect.gen(function* () {
      const execs = yield* makeExecs(yield* makeAttachments)
      const ended = yield* program
      yield* Queue.offerAll(ended.queue, whole([5]))
      yield* execs.exec(exec, ended.events)
      assert.isFalse(ended.isRead())

      const left = yield* program
      yield* Queue.offerAll(left.queue, [started, ...outputs([64 * 1024])])
      yield* execs.exec({ ...exec, options: { reader, idleMillis: 500 } }, left.events)
      yield* TestClock.adjust(499)
      assert.isTrue(left.isRead())
      yield* TestClock.adjust(1)
      assert.isFalse(left.isRead())

      const interrupted = yield* program
      yield* Queue.offer(interrupted.queue, started)
      const asked = yield* Effect.forkChild(execs.exec(exec, interrupted.events), { startImmediately: true })
      yield* Fiber.interrupt(asked)
      assert.isFalse(interrupted.isRead())
    }).pipe(Effect.scoped)
  )

  it.effect("fails as its events do, in the answer and after it", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const execs = yield* Scope.provide(Effect.flatMap(makeAttachments, makeExecs), scope)
      const lost = new Connection({ reason: "lost", outcome: "unknown" })
      assert.strictEqual(yield* Effect.flip(execs.exec(exec, Stream.fail(lost))), lost)
      const events = Stream.concat(Stream.fromIterable([started, ...outputs([64 * 1024])]), Stream.fail(lost))
      const answer = yield* execs.exec(exec, events)
      const rest = Stream.runCollect(execs.rest(processId, { reader, cursor: lengthOf(answer) }, unexpected))
      assert.strictEqual(yield* Effect.flip(rest), lost)
      yield* Scope.close(scope, Exit.void)
    })
  )
})
