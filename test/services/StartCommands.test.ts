/**
 * What is said of a start command: nothing where it ends with its machine, whoever ended that.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { history, inPlace, only, pass } from "./shaky.ts"

const request = { startCommand: "sleep 1000" }

describe("a start command that runs until its machine ends", () => {
  const ways = ["kill", "stop", "restart", "ttl", "death", "close"] as const
  for (const way of ways) {
    it.effect(`is nothing to warn of: ${way}`, () =>
      inPlace((place) =>
        Effect.gen(function* () {
          const { close, faults, sandboxes } = yield* place.service
          const ttl = way === "ttl" ? ({ afterMillis: 2_000, action: "kill" } as const) : undefined
          const sandbox = yield* sandboxes.createDetached({ ...request, ttl })
          yield* pass(1_000)
          const end = {
            kill: sandbox.kill,
            stop: sandbox.stop(),
            restart: sandbox.restart,
            ttl: pass(2_000),
            death: faults.killMachine(sandbox.id),
            close
          }
          yield* Effect.asVoid<unknown, unknown, never>(end[way])
          yield* pass(1_000)
          assert.deepStrictEqual(place.logs, [])
        })
      )
    )
  }

  it.effect("has its end told as an event when it ends by itself", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ startCommand: "exit 3" })
        yield* pass(1_000)
        assert.strictEqual(only(yield* history(sandbox), "StartCommandExited").length, 1)
        assert.deepStrictEqual(place.logs, [])
      })
    )
  )
})
