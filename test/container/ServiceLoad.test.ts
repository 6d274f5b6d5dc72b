/**
 * A service under load: what one caller does not read costs little memory, and
 * many callers all get on. `FIBERBOX_FULL_LOAD=1` makes it 1 GB and 200 clients.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { canRunContainers } from "../canRunContainers.ts"
import { startService } from "./load.ts"

const isFull = process.env["FIBERBOX_FULL_LOAD"] === "1"
describe.runIf(canRunContainers)("a service under load", () => {
  it.live(
    "keeps its memory flat while a slow client reads much",
    () =>
      Effect.gen(function* () {
        const { client, resident } = yield* startService
        const sandbox = yield* (yield* client).create()
        const bytes = isFull ? 1_000_000_000 : 120_000_000
        const perSecond = isFull ? 60_000_000 : 30_000_000
        let count = 0
        let before = 0
        let most = 0
        const began = performance.now()
        const events = sandbox.process.stream(["head", "-c", String(bytes), "/dev/zero"], {
          maxOutputBytes: "none",
          timeoutMillis: "none"
        })
        yield* Stream.runForEach(events, (event) =>
          Effect.suspend(() => {
            if (event._tag !== "Output") return Effect.void
            count += event.data.byteLength
            // What a first few megabytes need is there by then.
            if (count > bytes / 10 && before === 0) before = resident()
            most = Math.max(most, resident())
            return Effect.sleep(Math.max(0, (count / perSecond) * 1000 - (performance.now() - began)))
          })
        )
        assert.strictEqual(count, bytes)
        assert.isBelow(most - before, 64 * 1024 * 1024)
      }).pipe(Effect.scoped),
    120_000
  )

  it.live(
    "lets many clients with five streams each all get on",
    () =>
      Effect.gen(function* () {
        const { client } = yield* startService
        const clients = isFull ? 200 : 30
        const bytes = 300_000
        const own = yield* client
        const sandboxes = yield* Effect.forEach(Array.from({ length: clients / 10 }), () =>
          own.create({ limits: { pids: 1024, cpus: 2 } })
        )
        const seen = yield* Effect.forEach(
          Array.from({ length: clients }, (_, index) => sandboxes[index % sandboxes.length]?.id ?? ""),
          (id) =>
            Effect.scoped(
              Effect.gen(function* () {
                const same = yield* (yield* client).connect(id)
                const argv = ["head", "-c", String(bytes), "/dev/zero"] as const
                const one = same.process.run(argv, { timeoutMillis: "none" })
                return yield* Effect.all([one, one, one, one, one], { concurrency: "unbounded" })
              })
            ),
          { concurrency: "unbounded" }
        )
        const lengths = seen.flatMap((results) => results.map(({ stdout }) => stdout.length))
        assert.strictEqual(lengths.length, clients * 5)
        assert.isTrue(lengths.every((length) => length === bytes))
      }).pipe(Effect.scoped),
    120_000
  )
})
