import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, service, temporary } from "./support.ts"

const crowd = (size: number, word: string) =>
  Effect.forEach(
    Array.from({ length: size }, (_, index) => index),
    (index) =>
      Effect.scoped(
        Effect.gen(function* () {
          const sandbox = yield* Sandboxes.create()
          const { stdout } = yield* sandbox.commands.run(`echo ${word} ${index}; hostname`)
          return stdout.split("\n")
        })
      ),
    { concurrency: "unbounded" }
  )

describe.runIf(canRun)("many sandboxes", () => {
  it.live(
    "100 created at once all run a command, each on a machine of its own, and all are gone afterwards",
    () =>
      Effect.gen(function* () {
        const base = yield* temporary
        const outputs = yield* Effect.provide(crowd(100, "hello"), service(base))
        assert.deepStrictEqual(
          outputs.map(([line]) => line),
          Array.from({ length: 100 }, (_, index) => `hello ${index}`)
        )
        assert.strictEqual(new Set(outputs.map(([, host]) => host)).size, 100)
        assert.deepStrictEqual(yield* remains(base), [])
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    120_000
  )

  it.live("of two instances on one machine do not see or disturb each other", () =>
    Effect.gen(function* () {
      const base = yield* temporary
      const one = Effect.gen(function* () {
        const sandbox = yield* Sandboxes.createDetached({ name: "same" })
        yield* sandbox.files.write("/home/user/who", "one")
        // The other instance starts, works under the same name and ends, while this one lives.
        const other = Effect.gen(function* () {
          assert.deepStrictEqual((yield* Sandboxes.list()).sandboxes, [])
          const mine = yield* Sandboxes.createDetached({ name: "same" })
          yield* mine.files.write("/home/user/who", "two")
          yield* mine.kill
        })
        yield* Effect.provide(other, service(base, "two"))
        assert.deepStrictEqual(yield* remains(base, "two"), [])
        assert.strictEqual(yield* sandbox.files.readText("/home/user/who"), "one")
        assert.strictEqual((yield* Sandboxes.list()).sandboxes.length, 1)
        yield* sandbox.kill
      })
      yield* Effect.provide(one, service(base))
      assert.deepStrictEqual(yield* remains(base), [])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.live("cannot have one state directory in two programs at a time", () =>
    Effect.gen(function* () {
      const base = yield* temporary
      const second = Effect.flip(Effect.provide(Sandboxes.list(), service(base)))
      const error = yield* Effect.provide(Effect.andThen(Sandboxes.list(), second), service(base))
      assert.strictEqual(error._tag, "Conflict")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
