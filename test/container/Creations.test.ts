import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Exit, Fiber, Option, Random } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, service, temporary } from "./support.ts"

const interrupts = Effect.map(Config.option(Config.Int("FIBERBOX_INTERRUPTS")), (count) =>
  Option.getOrElse(count, () => 20)
)

describe.runIf(canRun)("creations of containers that are interrupted at random moments", () => {
  it.live(
    "leave nothing on the host",
    () =>
      Effect.gen(function* () {
        const base = yield* temporary
        yield* Effect.gen(function* () {
          const times = yield* interrupts
          for (let round = 0; round < times; round++) {
            const creating = yield* Effect.forkChild(Sandboxes.createDetached())
            const scoped = yield* Effect.forkChild(
              Effect.scoped(Effect.andThen(Sandboxes.create(), Effect.never))
            )
            yield* Effect.sleep(yield* Random.nextBetween(0, 150))
            yield* Effect.all([Fiber.interrupt(creating), Fiber.interrupt(scoped)], { concurrency: 2 })
            const exit = yield* Fiber.await(creating)
            if (Exit.isSuccess(exit)) yield* exit.value.kill
          }
          assert.deepStrictEqual((yield* Sandboxes.list()).sandboxes, [])
          assert.deepStrictEqual(yield* remains(base), [])
        }).pipe(Effect.provide(service(base)))
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    600_000
  )
})
