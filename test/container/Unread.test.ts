/**
 * What readers cost that do not read: output that waits for them is bounded in
 * bytes, however many they are. `FIBERBOX_FULL_LOAD=1` makes them 3,600.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import { canRunContainers } from "../canRunContainers.ts"
import { startService } from "./load.ts"

const isFull = process.env["FIBERBOX_FULL_LOAD"] === "1"
const sandboxCount = isFull ? 6 : 2
const connectionsEach = isFull ? 2 : 1
const attachesEach = 300
/** What all readers may have waiting together, and what each costs besides, its objects and copies on the way included. */
const sharedBytes = 128 * 1024 * 1024
const readerBytes = 256 * 1024
/** More than what one reader may have waiting for it. */
const megabytes = 4

describe.runIf(canRunContainers)("readers that do not read", () => {
  it.live(
    "cost a service a bounded number of bytes, and those who do read get on",
    () =>
      Effect.gen(function* () {
        const { client, resident } = yield* startService
        const first = yield* client
        const sandboxes = yield* Effect.forEach(Array.from({ length: sandboxCount }), () => first.create())
        for (const sandbox of sandboxes) {
          yield* sandbox.process.start(
            ["sh", "-c", `head -c ${megabytes}000000 /dev/urandom; exec sleep 1000`],
            { processId: "writer", journalBytes: 8 * 1024 * 1024 }
          )
        }
        const before = resident()
        const attach = Effect.fnUntraced(function* (id: string) {
          const mine = yield* (yield* client).connect(id)
          const writer = yield* mine.process.connect("writer")
          // Begins, and then reads no more.
          const begin = Effect.flatMap(Stream.toPull(writer.events({ idleMillis: 600_000 })), (pull) => pull)
          yield* Effect.forEach(Array.from({ length: attachesEach }), () => begin, {
            concurrency: 50,
            discard: true
          })
        })
        for (const { id } of sandboxes) {
          yield* Effect.forEach(Array.from({ length: connectionsEach }), () => attach(id), { discard: true })
        }
        let last = 0
        let now = resident()
        while (now > last) {
          last = now
          yield* Effect.sleep(1000)
          now = resident()
        }
        yield* Effect.logInfo(
          `${sandboxCount * connectionsEach * attachesEach} unread: ${Math.round((now - before) / 1e6)} MB`
        )
        const other = yield* (yield* client).connect(sandboxes[0]?.id ?? "")
        const { stdout } = yield* other.commands.run("echo hello")
        assert.strictEqual(stdout, "hello\n")
        assert.isBelow(
          now - before,
          sharedBytes + sandboxCount * connectionsEach * attachesEach * readerBytes
        )
      }).pipe(Effect.scoped),
    300_000
  )

  it.live(
    "leave some of a sandbox's channels to other connections, and always some to start, end and list programs",
    () =>
      Effect.gen(function* () {
        const { client } = yield* startService
        const sandbox = yield* (yield* client).create()
        yield* sandbox.process.start(["sleep", "1000"], { processId: "sleeper" })
        /** So many readers of a connection of their own; gives how many were let in. */
        const attach = Effect.fnUntraced(function* (count: number) {
          const mine = yield* (yield* client).connect(sandbox.id)
          const sleeper = yield* mine.process.connect("sleeper")
          const begin = Effect.flatMap(Stream.toPull(sleeper.events({ idleMillis: 600_000 })), (pull) => pull)
          const begun = yield* Effect.forEach(Array.from({ length: count }), () => Effect.result(begin), {
            concurrency: 50
          })
          for (const result of begun) {
            if (Result.isFailure(result)) {
              assert.deepInclude(result.failure, { _tag: "ResourceExhausted", resource: "readers" })
            }
          }
          return begun.filter(Result.isSuccess).length
        })
        assert.deepStrictEqual([yield* attach(600), yield* attach(600)], [512, 256])
        const other = yield* (yield* client).connect(sandbox.id)
        assert.strictEqual((yield* other.commands.run("echo hello")).stdout, "hello\n")
        const sleeper = yield* other.process.connect("sleeper")
        yield* sleeper.kill
        const [listed] = yield* other.process.list
        assert.isDefined(listed?.exit)
      }).pipe(Effect.scoped),
    120_000
  )
})
