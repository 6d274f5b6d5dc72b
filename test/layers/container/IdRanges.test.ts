import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { baseOf, firstId, IdRanges, rangeCount } from "../../../src/layers/container/IdRanges.ts"
import { ContainerSettings } from "../../../src/layers/container/Settings.ts"
import { Instance, InstanceId } from "../../../src/services/Instance.ts"

const instance = (id: string, baseDir: string) =>
  IdRanges.layer.pipe(
    Layer.provide(ContainerSettings.layer({})),
    Layer.provide(
      Layer.succeed(Instance, {
        id: InstanceId.make(id),
        stateDir: `${baseDir}/${id}`,
        baseDir,
        ephemeral: true,
        deadInstances: Effect.succeed([])
      })
    )
  )

const withBase = <A, E>(
  body: (baseDir: string) => Effect.Effect<A, E, FileSystem.FileSystem>
): Effect.Effect<void, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      yield* body(yield* fs.makeTempDirectoryScoped({ prefix: "fiberbox-ids-" }))
    })
  ).pipe(Effect.provide(NodeServices.layer))

describe("ranges of ids", () => {
  it("lie above systemd's containers, below its other ids, and do not overlap", () => {
    assert.strictEqual(baseOf(0), firstId)
    assert.strictEqual(baseOf(1) - baseOf(0), 65_536)
    assert.isAtMost(baseOf(rangeCount - 1) + 65_535, 0x7ffd_ffff)
  })

  it.live("are never given twice, to two instances at the same time", () =>
    withBase((baseDir) =>
      Effect.gen(function* () {
        const taken = yield* Effect.all(
          ["aaaaaaaaaa", "bbbbbbbbbb"].map((id) =>
            Effect.gen(function* () {
              const ranges = yield* IdRanges
              return yield* Effect.all(
                Array.from({ length: 50 }, () => ranges.allocate),
                {
                  concurrency: "unbounded"
                }
              )
            }).pipe(Effect.provide(instance(id, baseDir)))
          ),
          { concurrency: 2 }
        )
        assert.strictEqual(new Set(taken.flat()).size, 100)
      })
    )
  )

  it.live("are given back only by the instance that holds them", () =>
    withBase((baseDir) =>
      Effect.gen(function* () {
        const mine = "aaaaaaaaaa"
        const range = yield* Effect.flatMap(IdRanges, (ranges) => ranges.allocate).pipe(
          Effect.provide(instance(mine, baseDir))
        )
        yield* Effect.gen(function* () {
          const ranges = yield* IdRanges
          yield* ranges.release(range)
          assert.deepStrictEqual(yield* ranges.heldBy(mine), [range])
          yield* ranges.releaseOthers(mine, [range])
          assert.deepStrictEqual(yield* ranges.heldBy(mine), [range])
          yield* ranges.releaseOthers(mine, [])
          assert.deepStrictEqual(yield* ranges.heldBy(mine), [])
        }).pipe(Effect.provide(instance("bbbbbbbbbb", baseDir)))
      })
    )
  )

  it.live("run out as ResourceExhausted", () =>
    withBase((baseDir) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* fs.makeDirectory(`${baseDir}/ids`, { recursive: true })
        yield* Effect.forEach(
          Array.from({ length: rangeCount }, (_, range) => range),
          (range) => fs.writeFileString(`${baseDir}/ids/${range}`, "someoneelse"),
          { concurrency: 32, discard: true }
        )
        const error = yield* Effect.flatMap(IdRanges, (ranges) => Effect.flip(ranges.allocate)).pipe(
          Effect.provide(instance("aaaaaaaaaa", baseDir))
        )
        assert.strictEqual(error._tag, "ResourceExhausted")
      })
    )
  )
})
