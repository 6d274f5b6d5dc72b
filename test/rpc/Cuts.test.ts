/**
 * Connections that are cut: what was under way goes on, and nothing happens twice.
 */
import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Schedule, Stream } from "effect"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import type { Proxy } from "./proxy.ts"
import { throughProxy } from "./support.ts"

const mebibyte = 1024 * 1024
const quick = { backoff: Schedule.spaced("5 millis") } as const

const cutSometimes = (proxy: Proxy) =>
  Effect.repeat(Effect.delay(proxy.cut, "40 millis"), Schedule.recurs(12))

/** Numbered lines, their digest, as a program of the memory backend prints them. */
const digest = (sandbox: Sandbox, bytes: number) =>
  Effect.gen(function* () {
    const hash = createHash("sha256")
    let cursor = 0
    let started = 0
    const events = sandbox.commands.stream(`yes 0123456789abcdef | head -c ${bytes}`, {
      maxOutputBytes: "none",
      timeoutMillis: "none"
    })
    yield* Stream.runForEach(events, (event) =>
      Effect.sync(() => {
        if (event._tag === "Started") started++
        if (event._tag === "Truncated") assert.fail(`bytes ${event.from} to ${event.to} are missing`)
        if (event._tag !== "Output") return
        assert.strictEqual(event.cursor, cursor)
        cursor += event.data.byteLength
        hash.update(event.data)
      })
    )
    assert.strictEqual(started, 1)
    return { cursor, digest: hash.digest("hex") }
  })

const expected = (bytes: number) => {
  const line = Buffer.from("0123456789abcdef\n")
  const hash = createHash("sha256")
  for (let left = bytes; left > 0; left -= mebibyte * 17) {
    hash.update(Buffer.alloc(Math.min(left, mebibyte * 17), line))
  }
  return { cursor: bytes, digest: hash.digest("hex") }
}

for (const transport of ["websocket", "http"] as const) {
  describe(`over ${transport}`, () => {
    it.live("a stream of output that is cut again and again arrives byte for byte", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes } = yield* throughProxy({ transport, ...quick })
        const sandbox = yield* sandboxes.create()
        yield* proxy.cutEvery(3 * mebibyte + 12_345)
        const bytes = 20 * mebibyte
        assert.deepStrictEqual(yield* digest(sandbox, bytes), expected(bytes))
        assert.isAtLeast(proxy.counts().cut, 5)
        yield* proxy.cutEvery(0)
      }).pipe(Effect.scoped)
    )

    it.live("a run that is cut off while it runs, or as it is answered, happens once and is told whole", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes, direct } = yield* throughProxy({ transport, ...quick })
        const sandbox = yield* sandboxes.create()
        const runs = Array.from({ length: 30 }, (_, index) => index)
        const run = (seconds: number, bytes: number) => (index: number) =>
          Effect.map(
            sandbox.commands.run(
              `echo ${index} >> runs; sleep ${seconds}; yes 0123456789abcdef | head -c ${bytes}`,
              { maxOutputBytes: "none" }
            ),
            ({ stdout }) => assert.strictEqual(stdout, "0123456789abcdef\n".repeat(bytes / 17))
          )
        const cutter = yield* Effect.forkChild(cutSometimes(proxy))
        yield* Effect.forEach(runs, run(0.1, 17 * 10_000), { concurrency: 10 })
        yield* Fiber.interrupt(cutter)
        // More than the answers that are waited for at one time: otherwise none would ever arrive.
        yield* proxy.cutEvery(40_000)
        yield* Effect.forEach(runs, run(0, 17 * 500), { concurrency: 3 })
        yield* proxy.cutEvery(0)
        assert.isAtLeast(proxy.counts().cut, 12)
        const begun = yield* (yield* direct.connect(sandbox.id)).files.readText("/home/user/runs")
        assert.sameMembers(begun.trim().split("\n"), [...runs, ...runs].map(String))
      }).pipe(Effect.scoped)
    )

    it.live("a file that is cut while it is read and written is the same afterwards", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes } = yield* throughProxy({ transport, ...quick })
        const sandbox = yield* sandboxes.create()
        const content = Buffer.alloc(8 * mebibyte, "some text that is not aligned")
        const cutter = yield* Effect.forkChild(cutSometimes(proxy))
        yield* sandbox.files.write("/home/user/f", content)
        yield* Fiber.interrupt(cutter)
        yield* proxy.cutEvery(3 * mebibyte)
        const read = yield* sandbox.files.read("/home/user/f")
        assert.isTrue(content.equals(read))
        yield* proxy.cutEvery(0)
      }).pipe(Effect.scoped)
    )

    it.live("events go on after the last that was seen", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes, direct } = yield* throughProxy({ transport, ...quick })
        const sandbox = yield* sandboxes.create()
        const same = yield* direct.connect(sandbox.id)
        const reached = yield* Latch.make(false)
        const following = yield* sandbox.events().pipe(
          Stream.tap((event) => (event.body._tag === "Updated" ? reached.open : Effect.void)),
          Stream.takeUntil((event) => event.body._tag === "StatusChanged" && event.body.to === "stopped"),
          Stream.runCollect,
          Effect.forkChild
        )
        yield* same.update({ labels: { a: "b" } })
        yield* reached.await
        yield* proxy.cut
        yield* same.stop({ graceMillis: 0 })
        const seen = yield* Fiber.join(following)
        assert.deepStrictEqual(
          seen.map((event) => event.sequence),
          seen.map((_, index) => index + 1)
        )
      }).pipe(Effect.scoped)
    )

    it.live("a creation whose answer is cut off makes one sandbox", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes, direct } = yield* throughProxy({ transport, ...quick })
        const cutter = yield* Effect.forkChild(cutSometimes(proxy))
        const made = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, index) => index),
          (index) => sandboxes.createDetached({ labels: { index: String(index) } }),
          { concurrency: 5 }
        )
        yield* Fiber.interrupt(cutter)
        const { sandboxes: listed } = yield* direct.list()
        assert.sameMembers(
          listed.map((info) => info.id),
          made.map((sandbox) => sandbox.id)
        )
        assert.isTrue(listed.every((info) => info.status === "running"))
      }).pipe(Effect.scoped)
    )

    it.live("an interrupted run is ended though its connection has just been cut", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes, direct } = yield* throughProxy({ transport, ...quick })
        const sandbox = yield* sandboxes.create()
        const started = yield* Deferred.make<void>()
        const run = yield* sandbox.commands.stream("sleep 1000").pipe(
          Stream.runForEach(() => Deferred.succeed(started, undefined)),
          Effect.forkChild
        )
        yield* Deferred.await(started)
        yield* proxy.refuse(true)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
        const same = yield* direct.connect(sandbox.id)
        assert.strictEqual((yield* same.process.list).filter((one) => one.exit === undefined).length, 1)
        yield* proxy.refuse(false)
        yield* Fiber.join(interrupting)
        assert.strictEqual((yield* same.process.list).filter((one) => one.exit === undefined).length, 0)
      }).pipe(Effect.scoped)
    )

    it.live("a service that cannot be reached is a failed connection, and nothing was started", () =>
      Effect.gen(function* () {
        const { proxy, sandboxes } = yield* throughProxy({ transport, patience: "100 millis", ...quick })
        yield* proxy.refuse(true)
        const exit = yield* Effect.exit(Effect.flip(sandboxes.list()))
        if (Exit.isFailure(exit) || exit.value._tag !== "Connection") return assert.fail("no Connection")
        if (transport === "websocket") assert.strictEqual(exit.value.outcome, "not-started")
      }).pipe(Effect.scoped)
    )
  })
}

describe("over websocket", () => {
  it.live("an operation whose connection is cut goes on, one that is interrupted does not", () =>
    Effect.gen(function* () {
      const { proxy, sandboxes, direct } = yield* throughProxy({ patience: "50 millis", ...quick })
      const sandbox = yield* sandboxes.create()
      const same = yield* direct.connect(sandbox.id)
      yield* same.commands.start("trap '' TERM; while true; do sleep 1; done")
      const restart = yield* Effect.forkChild(Effect.exit(sandbox.restart))
      const stopping = same.events().pipe(
        Stream.takeUntil((event) => event.body._tag === "StatusChanged" && event.body.to === "restarting"),
        Stream.runDrain
      )
      yield* stopping
      yield* proxy.cut
      const exit = yield* Fiber.join(restart)
      if (Exit.isFailure(exit)) yield* same.waitForReady()
      assert.strictEqual((yield* same.info).generation, 2)
    }).pipe(Effect.scoped)
  )

  it.live("a reader that makes a call for everything it reads is never stuck behind its own output", () =>
    Effect.gen(function* () {
      const { sandboxes } = yield* throughProxy()
      const sandbox = yield* sandboxes.create()
      const lines = sandbox.commands.stream(`yes 0123456789abcdef | head -c ${2 * mebibyte}`, {
        maxOutputBytes: "none"
      })
      let bytes = 0
      yield* Stream.runForEach(lines, (event) =>
        Effect.map(sandbox.info, () => {
          if (event._tag === "Output") bytes += event.data.byteLength
        })
      )
      assert.strictEqual(bytes, 2 * mebibyte)
    }).pipe(Effect.scoped)
  )
})
