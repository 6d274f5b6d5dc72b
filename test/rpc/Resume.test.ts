/**
 * Resuming, over a carrier that loses answers on purpose: cut anywhere, the
 * result is the same.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Clock, Effect, Exit, Fiber, Schedule, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Connection, NotFound } from "../../src/domain/Errors.ts"
import type { SandboxEvent } from "../../src/domain/Event.ts"
import type { FileInfo } from "../../src/domain/FileSystem.ts"
import { AttemptId, Generation, ProcessId, ReaderId, SandboxId } from "../../src/domain/Ids.ts"
import type { ProcessEvent } from "../../src/domain/Process.ts"
import { type Carrier, Lost } from "../../src/rpc/remote/Lost.ts"
import { resume } from "../../src/rpc/remote/Resume.ts"
import { Releasing } from "../../src/services/SandboxClient.ts"
import { absent } from "../services/absent.ts"
import { bounded } from "../services/bounded.ts"

const sandboxId = SandboxId.make("sb_local_aaaaaaaaaaaaaaaaaaaaaaaaaa")
const processId = ProcessId.make("p")
const generation = Generation.make(1)
const options = {
  patience: "30 seconds",
  backoff: Schedule.spaced(0),
  newReader: Effect.succeed(ReaderId.make("r")),
  newAttempt: Effect.succeed(AttemptId.make("attempt-number-one"))
} as const

const lost = (outcome: Lost["outcome"] = "unknown") => new Lost({ reason: "cut", outcome })

/** Cuts a stream after so many items, as often as the plan says; the last attempt is whole. */
const cutting = (plan: ReadonlyArray<number>) => {
  const left = [...plan]
  return <A, E>(stream: Stream.Stream<A, E>): Stream.Stream<A, E | Lost> =>
    Stream.suspend(() => {
      const items = left.shift()
      return items === undefined
        ? stream
        : Stream.concat(Stream.take(Stream.rechunk(stream, 1), items), Stream.fail(lost()))
    })
}

const Count = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
const Plan = Schema.Array(Count(12)).check(Schema.isMaxLength(6))

/** What a process with this output tells a reader at a cursor. */
const journal = (sizes: ReadonlyArray<number>): ReadonlyArray<ProcessEvent> => {
  let cursor = 0
  const events: Array<ProcessEvent> = [
    { _tag: "Started", pid: 7, startedAt: 1, generation, isolation: "none" }
  ]
  for (const [index, size] of sizes.entries()) {
    const data = Uint8Array.from({ length: size }, (_, at) => (cursor + at) & 0xff)
    events.push({ _tag: "Output", stream: index % 3 === 0 ? "stderr" : "stdout", cursor, at: index, data })
    cursor += size
  }
  const status = { _tag: "Exited", code: 0 } as const
  return [...events, { _tag: "Exited", status, cursor, at: 99, timedOut: false }]
}

const from = (events: ReadonlyArray<ProcessEvent>, cursor: number): ReadonlyArray<ProcessEvent> =>
  events.flatMap((event): ReadonlyArray<ProcessEvent> => {
    if (event._tag !== "Output") return [event]
    const skip = Math.max(0, cursor - event.cursor)
    if (skip >= event.data.byteLength) return []
    return [{ ...event, cursor: event.cursor + skip, data: event.data.subarray(skip) }]
  })

/** Output joined byte by byte, so that where it was divided makes no difference. */
const essence = (events: Iterable<ProcessEvent>) =>
  [...events].flatMap(
    (event): ReadonlyArray<unknown> =>
      event._tag === "Output"
        ? [...event.data].map((byte, at) => [event.stream, event.cursor + at, byte])
        : [event]
  )

describe("letting go of what a service that is gone held", () => {
  it.effect("takes the patience of a client once, however much it is", () =>
    Effect.gen(function* () {
      const client = resume(
        { ...absent, ChangeStatus: () => Effect.fail(lost("not-started")) },
        { ...options, backoff: Schedule.spaced("1 second") }
      )
      const kill = client.ChangeStatus({ sandboxId, command: "kill" })
      const all = Effect.forEach(
        Array.from({ length: 20 }),
        () => Effect.provideService(Effect.exit(kill), Releasing, true),
        { discard: true }
      )
      const closing = yield* Effect.forkChild(all, { startImmediately: true })
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(closing.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.isDefined(closing.pollUnsafe())
    })
  )

  it.effect("leaves every other call a patience of its own", () =>
    Effect.gen(function* () {
      const client = resume(
        { ...absent, ChangeStatus: () => Effect.fail(lost("not-started")) },
        { ...options, backoff: Schedule.spaced("1 second") }
      )
      const kill = Effect.exit(client.ChangeStatus({ sandboxId, command: "kill" }))
      const first = yield* Effect.forkChild(Effect.provideService(kill, Releasing, true))
      yield* TestClock.adjust("30 seconds")
      yield* Fiber.join(first)
      const second = yield* Effect.forkChild(kill)
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.isDefined(second.pollUnsafe())
    })
  )
})

describe("resuming", () => {
  it.effect("gives every byte of a process once and in order, however often it is cut", () =>
    Arbitrary.checkEffect(
      Arbitrary.schema(
        Schema.Struct({ sizes: Schema.Array(Count(9)), plan: Plan, bound: Schema.optional(Count(40)) })
      ),
      ({ sizes, plan, bound }) =>
        Effect.gen(function* () {
          const events = journal(sizes)
          const cut = cutting(plan)
          const limit = bounded(bound ?? Number.POSITIVE_INFINITY)
          const carrier: Carrier = {
            ...absent,
            RunProcess: ({ attach: { maxOutputBytes = Number.POSITIVE_INFINITY } }) =>
              cut(bounded(maxOutputBytes)(Stream.fromIterable(events))),
            AttachProcess: ({
              attach: { cursor = 0, maxOutputBytes = Number.POSITIVE_INFINITY, reader }
            }) => {
              assert.strictEqual(reader, "r")
              return cut(bounded(maxOutputBytes)(Stream.fromIterable(from(events, cursor))))
            }
          }
          const attach = bound === undefined ? {} : { maxOutputBytes: bound }
          const process = { processId, argv: ["x"] } as const
          const seen = yield* Stream.runCollect(
            resume(carrier, options).RunProcess({ sandboxId, process, attach })
          )
          const whole = yield* Stream.runCollect(limit(Stream.fromIterable(events)))
          assert.deepStrictEqual(essence(seen), essence(whole))
          return true
        })
    )
  )

  it.effect("goes on after a gap without telling of it twice", () =>
    Effect.gen(function* () {
      const [started, first, , exited] = journal([10, 10])
      const late = journal([10, 10, 10]).filter((event) => event._tag === "Output" && event.cursor === 20)
      const cuts = cutting([3])
      const events = [
        started,
        first,
        { _tag: "Truncated", from: 10, to: 20 } as const,
        ...late,
        exited
      ].filter((event) => event !== undefined)
      const carrier: Carrier = { ...absent, AttachProcess: () => cuts(Stream.fromIterable(events)) }
      const seen = yield* Stream.runCollect(
        resume(carrier, options).AttachProcess({ sandboxId, processId, attach: {} })
      )
      assert.deepStrictEqual(essence(seen), essence(events))
    })
  )

  it.effect("gives every event of a sandbox once", () =>
    Arbitrary.checkEffect(
      Arbitrary.schema(Schema.Struct({ count: Count(20), plan: Plan })),
      ({ count, plan }) =>
        Effect.gen(function* () {
          const cut = cutting(plan)
          const events = Array.from({ length: count }, (_, index): SandboxEvent => {
            return { sandboxId, sequence: index + 1, generation, at: index, body: { _tag: "Updated" } }
          })
          const carrier: Carrier = {
            ...absent,
            FollowEvents: ({ after = 0 }) => cut(Stream.fromIterable(events.slice(after)))
          }
          const seen = yield* Stream.runCollect(resume(carrier, options).FollowEvents({ sandboxId }))
          assert.deepStrictEqual([...seen], events)
          return true
        })
    )
  )

  const described = (modifiedAt: number): FileInfo => ({
    path: "/f",
    type: "file",
    size: 100,
    mode: 0o644,
    uid: 0,
    gid: 0,
    nanos: 0,
    links: 1,
    inode: "1",
    modifiedAt
  })
  const content = Uint8Array.from({ length: 100 }, (_, index) => index)
  const reading = (offset: number, length = 100) =>
    Stream.fromIterable([...content.subarray(offset, offset + length)].map((byte) => Uint8Array.of(byte)))

  it.effect("reads a file whole that stays the same", () =>
    Arbitrary.checkEffect(
      Arbitrary.schema(
        Schema.Struct({ offset: Count(120), length: Schema.optional(Count(120)), plan: Plan })
      ),
      ({ offset, length, plan }) =>
        Effect.gen(function* () {
          const cut = cutting(plan)
          const carrier: Carrier = {
            ...absent,
            StatFile: () => Effect.succeed(described(5)),
            ReadFile: (payload) => cut(reading(payload.offset ?? 0, payload.length))
          }
          const pieces = yield* Stream.runCollect(
            resume(carrier, options).ReadFile({ sandboxId, path: "/f", offset, length })
          )
          const end = length === undefined ? 100 : offset + length
          assert.deepStrictEqual(
            pieces.flatMap((piece) => [...piece]),
            [...content.subarray(offset, end)]
          )
          return true
        })
    )
  )

  it.effect("does not join the beginning of one file and the end of another", () =>
    Effect.gen(function* () {
      const cut = cutting([10])
      let modifiedAt = 5
      const carrier: Carrier = {
        ...absent,
        StatFile: () => Effect.sync(() => described(modifiedAt++)),
        ReadFile: (payload) => cut(reading(payload.offset ?? 0))
      }
      const exit = yield* Effect.exit(
        Stream.runCollect(resume(carrier, options).ReadFile({ sandboxId, path: "/f" }))
      )
      const expected = new Connection({
        reason: "/f changed while the connection was cut",
        outcome: "unknown"
      })
      assert.deepStrictEqual(exit, Exit.fail(expected))
    })
  )

  it.effect("tells a watcher that it may have missed something", () =>
    Effect.gen(function* () {
      const cut = cutting([1])
      const made = { _tag: "Created", path: "/d/a" } as const
      const carrier: Carrier = {
        ...absent,
        StatFile: () => Effect.succeed(described(5)),
        WatchFiles: () => cut(Stream.concat(Stream.succeed(made), Stream.never))
      }
      const seen = yield* resume(carrier, options)
        .WatchFiles({ sandboxId, path: "/d" })
        .pipe(Stream.take(3), Stream.runCollect)
      assert.sameDeepMembers([...seen], [made, made, { _tag: "Overflow" }])
      assert.deepStrictEqual(seen[0], made)
    })
  )
})

describe("a call whose answer is lost", () => {
  const counting = (losses: ReadonlyArray<Lost>) => {
    let calls = 0
    const call = Effect.suspend(() => {
      const error = losses[calls++]
      return error === undefined ? Effect.void : Effect.fail(error)
    })
    return { call, calls: () => calls }
  }

  it.effect("is asked again when repeating it changes nothing", () =>
    Effect.gen(function* () {
      const { call, calls } = counting([lost(), lost(), lost("not-started")])
      yield* resume({ ...absent, KillProcess: () => call }, options).KillProcess({ sandboxId, processId })
      assert.strictEqual(calls(), 4)
    })
  )

  it.effect("is of unknown outcome when a repeat might do it twice", () =>
    Effect.gen(function* () {
      const { call, calls } = counting([lost("not-started"), lost()])
      const client = resume({ ...absent, RenameFile: () => call }, options)
      const exit = yield* Effect.exit(client.RenameFile({ sandboxId, from: "/a", to: "/b" }))
      assert.deepStrictEqual(exit, Exit.fail(new Connection({ reason: "cut", outcome: "unknown" })))
      assert.strictEqual(calls(), 2)
    })
  )

  it.effect("fails when patience has run out, as not started if it never left", () =>
    Effect.gen(function* () {
      const client = resume(
        {
          ...absent,
          RenameFile: () => Effect.fail(lost("not-started")),
          KillProcess: () => Effect.fail(lost())
        },
        { ...options, backoff: Schedule.spaced("1 second") }
      )
      const rename = yield* Effect.forkChild(
        Effect.exit(client.RenameFile({ sandboxId, from: "/a", to: "/b" }))
      )
      const kill = yield* Effect.forkChild(Effect.exit(client.KillProcess({ sandboxId, processId })))
      yield* TestClock.adjust("40 seconds")
      assert.deepStrictEqual(
        yield* Fiber.join(rename),
        Exit.fail(new Connection({ reason: "cut", outcome: "not-started" }))
      )
      assert.deepStrictEqual(
        yield* Fiber.join(kill),
        Exit.fail(new Connection({ reason: "cut", outcome: "unknown" }))
      )
      assert.isAtLeast(yield* Clock.currentTimeMillis, 30_000)
    })
  )

  it.effect("leaves the contract's own errors as they are", () =>
    Effect.gen(function* () {
      const error = new NotFound({ kind: "process", id: "p" })
      const client = resume({ ...absent, KillProcess: () => Effect.fail(error) }, options)
      assert.deepStrictEqual(
        yield* Effect.exit(client.KillProcess({ sandboxId, processId })),
        Exit.fail(error)
      )
    })
  )
})
