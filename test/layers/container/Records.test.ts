import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { Generation, makeSandboxId } from "../../../src/domain/Ids.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Instance } from "../../../src/services/Instance.ts"
import { Base, backend, canRun, leftovers, platform, specOf } from "./support.ts"

/** What can become of a record on a disk that is damaged. */
const damages: ReadonlyArray<
  readonly [name: string, damage: (path: string) => Effect.Effect<void, unknown, FileSystem.FileSystem>]
> = [
  [
    "is no record any more",
    (path) => Effect.flatMap(FileSystem.FileSystem, (fs) => fs.writeFileString(path, "{"))
  ],
  [
    "cannot be read at all",
    (path) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* fs.remove(path)
        yield* fs.makeDirectory(path)
      })
  ]
]

describe.runIf(canRun)("a machine's record that", () => {
  layer(Base.layer.pipe(Layer.provideMerge(platform)), { excludeTestServices: true })((it) => {
    it.effect.each(damages)(
      "%s costs no other sandbox, gives no ids of a running machine away, and does not stop a kill",
      ([, damage]) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const service = { state: "records" }
          const machines = yield* Effect.gen(function* () {
            const backend = yield* Backend
            const { stateDir } = yield* Instance
            return yield* Effect.forEach([1, 2], () =>
              Effect.gen(function* () {
                const sandboxId = yield* makeSandboxId("test")
                const generation = Generation.make(1)
                yield* backend.provision({ sandboxId, generation, spec: specOf(), detached: true })
                return { sandboxId, record: `${stateDir}/s/${sandboxId.slice(3)}/machine.json` }
              })
            )
          }).pipe(Effect.scoped, Effect.provide(backend(service)))
          const removeAll = Effect.flatMap(Backend, ({ remove }) =>
            Effect.forEach(machines, ({ sandboxId }) => remove(sandboxId))
          )
          yield* Effect.addFinalizer(() =>
            Effect.orDie(Effect.scoped(Effect.provide(removeAll, backend(service))))
          )
          const [broken, whole] = machines
          assert(broken !== undefined && whole !== undefined)
          yield* damage(broken.record)
          yield* Effect.gen(function* () {
            const backend = yield* Backend
            const { baseDir, id } = yield* Instance
            const refs = new Map((yield* backend.list).map((ref) => [ref.sandboxId, ref.generation]))
            assert.deepStrictEqual(
              [refs.has(broken.sandboxId), refs.get(broken.sandboxId), refs.get(whole.sandboxId)],
              [true, undefined, Generation.make(1)]
            )
            const held = (yield* fs.readDirectory(`${baseDir}/ids`)).filter((name) => /^\d+$/.test(name))
            const owners = yield* Effect.forEach(held, (name) => fs.readFileString(`${baseDir}/ids/${name}`))
            assert.strictEqual(owners.filter((owner) => owner === id).length, 2)
            yield* removeAll
          }).pipe(Effect.scoped, Effect.provide(backend(service)))
          const left = yield* leftovers.pipe(Effect.scoped, Effect.provide(backend(service)))
          assert.deepStrictEqual(left, [])
        }).pipe(Effect.scoped)
    )
  })
})
