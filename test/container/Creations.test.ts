/**
 * Creations that are given up at any moment, over every way there is to a
 * service: nothing of them is left on the host. `FIBERBOX_INTERRUPTS` says how many over each way.
 */
import { setTimeout } from "node:timers/promises"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Exit, Fiber, Option, Random } from "effect"
import { Fiberbox } from "../../src/promise.ts"
import type { Sandboxes } from "../../src/services/Sandboxes.ts"
import { aliceToken } from "../rpc/support.ts"
import { canRun, remains, served, temporary } from "./support.ts"

const interrupts = Effect.map(Config.option(Config.Int("FIBERBOX_INTERRUPTS")), (count) =>
  Option.getOrElse(count, () => 12)
)

/** When a creation is given up; most of them take longer. */
const moment = Random.nextBetween(0, 150)

/** A service, creations of which are given up, and what must be left of them. */
const leavingNothing = (
  giveUp: (service: Effect.Success<ReturnType<typeof served>>, times: number) => Effect.Effect<void, unknown>
) =>
  Effect.gen(function* () {
    const base = yield* temporary
    yield* Effect.gen(function* () {
      const service = yield* served(base)
      yield* giveUp(service, yield* interrupts)
      // What is promised is a time.
      yield* Effect.sleep("1 second")
      assert.deepStrictEqual((yield* service.inside.list()).sandboxes, [])
      assert.deepStrictEqual(yield* remains(base), [])
    }).pipe(Effect.scoped)
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const givenUp = Effect.fnUntraced(function* (sandboxes: Sandboxes["Service"], times: number) {
  for (let round = 0; round < times; round++) {
    const creating = yield* Effect.forkChild(sandboxes.createDetached())
    const scoped = yield* Effect.forkChild(Effect.scoped(Effect.andThen(sandboxes.create(), Effect.never)))
    yield* Effect.sleep(yield* moment)
    yield* Effect.all([Fiber.interrupt(creating), Fiber.interrupt(scoped)], { concurrency: 2 })
    const exit = yield* Fiber.await(creating)
    if (Exit.isSuccess(exit)) yield* exit.value.kill
  }
})

describe.runIf(canRun)("creations of containers that are interrupted at random moments", () => {
  it.live(
    "leave nothing on the host, in process",
    () => leavingNothing(({ inside }, times) => givenUp(inside, times)),
    3_600_000
  )

  for (const transport of ["websocket", "http"] as const) {
    it.live(
      `leave nothing on the host, over ${transport}`,
      () =>
        leavingNothing(({ reach }, times) =>
          Effect.scoped(Effect.flatMap(reach(transport), (sandboxes) => givenUp(sandboxes, times)))
        ),
      3_600_000
    )
  }

  it.live(
    "leave nothing on the host, of promises whose signal is aborted",
    () =>
      leavingNothing(({ url }, times) =>
        Effect.gen(function* () {
          const moments = yield* Effect.forEach(Array.from({ length: times }), () => moment)
          yield* Effect.promise(async () => {
            await using fiberbox = await Fiberbox.open({ url, token: aliceToken })
            for (const millis of moments) {
              const controller = new AbortController()
              const { signal } = controller
              const calls = [fiberbox.create({ signal }), fiberbox.createDetached({ signal })]
              const settled = Promise.allSettled(calls.map((made) => made.then((sandbox) => sandbox.kill())))
              await setTimeout(millis)
              controller.abort()
              await settled
            }
          })
        })
      ),
    3_600_000
  )
})
