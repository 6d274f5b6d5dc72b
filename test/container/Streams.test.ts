import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, type FileSystem, Schedule, type Scope, Stream } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, processesIn, service, temporary } from "./support.ts"

const MiB = 1024 * 1024

const sandbox = Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.create())

const withService = <A, E>(effect: Effect.Effect<A, E, Sandboxes | FileSystem.FileSystem | Scope.Scope>) =>
  Effect.gen(function* () {
    const base = yield* temporary
    return yield* Effect.provide(Effect.scoped(effect), service(base))
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

/** How often and how long something that must come soon is looked for. */
const soon = { schedule: Schedule.spaced("5 millis"), times: 1000 }

describe.runIf(canRun)("the streams of a sandbox", () => {
  it.live("end with their reader: interrupting a run leaves no process, daemons included", () =>
    withService(
      Effect.gen(function* () {
        const box = yield* sandbox
        const group = box.id.slice("sb_".length)
        const sleeps = Effect.map(processesIn(group), (all) => all.filter((line) => line.startsWith("sleep")))
        const run = yield* Effect.forkChild(
          box.commands.run("setsid sleep 1000 & (sleep 1000 &) ; nohup sleep 1000")
        )
        yield* Effect.repeat(sleeps, { ...soon, until: (all) => all.length === 3 })
        assert.strictEqual((yield* sleeps).length, 3)
        yield* Fiber.interrupt(run)
        assert.deepStrictEqual(yield* sleeps, [])
      })
    )
  )

  it.live(
    "keep the service's memory flat: 1 GB of output under a bound of 1 MiB",
    () =>
      withService(
        Effect.gen(function* () {
          const box = yield* sandbox
          const result = yield* box.process.run(["head", "-c", "1000000000", "/dev/zero"], {
            maxOutputBytes: MiB,
            timeoutMillis: 60_000
          })
          const before = process.memoryUsage().rss
          let peak = 0
          const watching = yield* Effect.forkChild(
            Effect.repeat(
              Effect.sync(() => {
                peak = Math.max(peak, process.memoryUsage().rss)
              }),
              Schedule.spaced("20 millis")
            )
          )
          const again = yield* box.process.run(["head", "-c", "1000000000", "/dev/zero"], {
            maxOutputBytes: MiB,
            timeoutMillis: 60_000
          })
          yield* Fiber.interrupt(watching)
          for (const { stdout, truncated, droppedBytes } of [result, again]) {
            assert.deepStrictEqual(
              { size: stdout.length, truncated, droppedBytes },
              { size: MiB, truncated: true, droppedBytes: 1_000_000_000 - MiB }
            )
          }
          assert.isBelow(peak - before, 128 * MiB)
        })
      ),
    90_000
  )

  it.live("hold the program up while nobody reads, and let it go at the reader's idle limit", () =>
    withService(
      Effect.gen(function* () {
        const box = yield* sandbox
        const writer = yield* box.process.start(
          ["sh", "-c", "read -r go; exec head -c 100000000 /dev/zero"],
          {
            processId: "writer",
            stdin: true
          }
        )
        const look = Effect.map(box.process.list, (all) => all.find((one) => one.processId === "writer"))
        const goOn = yield* Deferred.make<void>()
        const reader = writer.events({ idleMillis: 1500 }).pipe(
          Stream.runForEach((event) => {
            // It writes when it is being read, not before.
            if (event._tag === "Started") return writer.write("go\n")
            return event._tag === "Output" ? Deferred.await(goOn) : Effect.void
          })
        )
        const reading = yield* Effect.forkChild(Effect.flip(reader))
        // The journal's end stands still once all that may be in flight is.
        let last = -1
        const standsStill = Effect.map(look, (now) => {
          const still = now !== undefined && now.end > 0 && now.end === last
          last = now?.end ?? -1
          return still
        })
        const held = { schedule: Schedule.spaced("100 millis"), times: 100 }
        assert.isTrue(yield* Effect.repeat(standsStill, { ...held, until: (still) => still }))
        assert.isBelow(last, 100_000_000)
        assert.isUndefined((yield* look)?.exit)
        // Detached by its idle limit, the reader holds nothing up any more, though it still has not read on.
        yield* writer.exit
        yield* Deferred.succeed(goOn, undefined)
        assert.deepInclude(yield* Fiber.join(reading), { _tag: "Timeout", limit: "idle" })
        const status = yield* writer.exit
        assert.deepStrictEqual(status, { _tag: "Exited", code: 0 })
      })
    )
  )

  it.live(
    "all come to their end when a hundred programs write at once more than their readers have room for",
    () =>
      withService(
        Effect.gen(function* () {
          const box = yield* Sandboxes.create({ limits: { pids: 1024 } })
          const results = yield* Effect.forEach(
            Array.from({ length: 100 }),
            () => box.process.run(["head", "-c", "300000", "/dev/zero"]),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual([...new Set(results.map(({ stdout }) => stdout.length))], [300_000])
        })
      )
  )

  it.live("yield every byte once and in order to a reader that comes back at its cursor", () =>
    withService(
      Effect.gen(function* () {
        const box = yield* sandbox
        const lines = 60_000
        const process = yield* box.process.start(["seq", "1", String(lines)], { journalBytes: 4 * MiB })
        const decoder = new TextDecoder()
        let text = ""
        let cursor = 0
        let ended = false
        for (let pieces = 1; !ended; pieces = (pieces % 5) + 1) {
          yield* process.events({ cursor }).pipe(
            Stream.takeUntil((event) => {
              if (event._tag === "Exited") ended = true
              if (event._tag !== "Output") return ended
              assert.strictEqual(event.cursor, cursor)
              text += decoder.decode(event.data, { stream: true })
              cursor += event.data.byteLength
              return --pieces <= 0
            }),
            Stream.runDrain
          )
        }
        const expected = Array.from({ length: lines }, (_, index) => `${index + 1}\n`).join("")
        assert.isTrue(text === expected)
      })
    )
  )
})
