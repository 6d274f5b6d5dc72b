import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, it, layer } from "@effect/vitest"
import { ConfigProvider, Deferred, Effect, Fiber, FileSystem, Layer, Path, Schema, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { ChildProcess } from "effect/process"
import * as DirectoryInstance from "../../../src/layers/instance/DirectoryInstance.ts"
import { Instance, InstanceId } from "../../../src/services/Instance.ts"

const temporaryDirectory = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  fs.makeTempDirectoryScoped({ prefix: "fiberbox-instance-" })
)

/** A process that is an ephemeral instance, and its id once it says it. */
const holder = Effect.fnUntraced(function* (baseDir: string) {
  const program = fileURLToPath(new URL("./holder.ts", import.meta.url))
  const process_ = yield* ChildProcess.make(process.execPath, [program, baseDir], { stderr: "inherit" })
  const lines = yield* process_.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.take(1),
    Stream.runCollect
  )
  return { process: process_, id: yield* Schema.decodeEffect(InstanceId)(Array.from(lines).join("")) }
})

layer(Layer.merge(NodeServices.layer, SecureRandom.layerWebCrypto))("an instance", (it) => {
  it.effect("that is persistent keeps its id from start to start", () =>
    Effect.gen(function* () {
      const stateDir = `${yield* temporaryDirectory}/deep/state`
      const start = Effect.scoped(DirectoryInstance.make({ stateDir }))
      const first = yield* start
      assert.deepInclude(first, { stateDir, ephemeral: false })
      assert.strictEqual((yield* start).id, first.id)
    })
  )

  it.effect("that is ephemeral has an id of its own each time and leaves no directory", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const baseDir = yield* temporaryDirectory
      const start = Effect.gen(function* () {
        const instance = yield* DirectoryInstance.make({ baseDir })
        assert.strictEqual(instance.stateDir, `${baseDir}/ephemeral/${instance.id}`)
        assert.isTrue(yield* fs.exists(instance.stateDir))
        return instance.id
      }).pipe(Effect.scoped)
      assert.notStrictEqual(yield* start, yield* start)
      assert.deepStrictEqual(yield* fs.readDirectory(`${baseDir}/ephemeral`), [])
    })
  )

  it.effect("that is ephemeral leaves no directory when its making is interrupted", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const baseDir = yield* temporaryDirectory
      const made = yield* Deferred.make<void>()
      const slow = FileSystem.FileSystem.of({
        ...fs,
        exists: (path) => Effect.andThen(Deferred.succeed(made, undefined), fs.exists(path))
      })
      const making = yield* DirectoryInstance.make({ baseDir }).pipe(
        Effect.scoped,
        Effect.provideService(FileSystem.FileSystem, slow),
        Effect.forkChild
      )
      yield* Deferred.await(made)
      yield* Fiber.interrupt(making)
      assert.deepStrictEqual(yield* fs.readDirectory(`${baseDir}/ephemeral`), [])
    })
  )

  it.effect("that is ephemeral leaves what it could not end for the next start to find", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const baseDir = yield* temporaryDirectory
      const id = yield* Effect.scoped(
        Effect.gen(function* () {
          const instance = yield* DirectoryInstance.make({ baseDir })
          yield* fs.makeDirectory(`${instance.stateDir}/${DirectoryInstance.sandboxesName}/one`, {
            recursive: true
          })
          return instance.id
        })
      )
      const next = yield* DirectoryInstance.make({ baseDir })
      const dead = yield* next.deadInstances
      assert.deepStrictEqual(
        dead.map((instance) => instance.id),
        [id]
      )
    })
  )

  it.effect("has its directory alone: a second start in it is a Conflict, until the first has ended", () =>
    Effect.gen(function* () {
      const stateDir = yield* temporaryDirectory
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* DirectoryInstance.make({ stateDir })
          const error = yield* Effect.flip(Effect.scoped(DirectoryInstance.make({ stateDir })))
          assert.deepInclude(error, { _tag: "Conflict", kind: "instance", id: stateDir })
          // The failed attempt must not have loosened the lock.
          const again = yield* Effect.flip(
            Effect.scoped(DirectoryInstance.make({ stateDir: `${stateDir}/.` }))
          )
          assert.strictEqual(again._tag, "Conflict")
        })
      )
      assert.strictEqual((yield* DirectoryInstance.make({ stateDir })).stateDir, stateDir)
    })
  )

  it.effect("holds a directory that nobody else may read", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { stateDir } = yield* DirectoryInstance.make({ baseDir: yield* temporaryDirectory })
      assert.strictEqual((yield* fs.stat(stateDir)).mode & 0o777, 0o700)
    })
  )

  it.effect("cannot be where there is no directory, and says so", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* temporaryDirectory
      yield* fs.writeFileString(`${directory}/file`, "")
      const at = (stateDir: string) => Effect.flip(Effect.scoped(DirectoryInstance.make({ stateDir })))
      assert.deepInclude(yield* at(`${directory}/file`), { _tag: "InvalidArgument", field: "stateDir" })
      assert.deepInclude(yield* at(`${directory}/file/below`), { _tag: "InvalidArgument", field: "stateDir" })
      assert.deepInclude(yield* at("/sys/nowhere"), { _tag: "InvalidArgument", field: "stateDir" })
      assert.deepInclude(yield* at("/proc/nowhere/below"), { _tag: "InvalidArgument", field: "stateDir" })
      yield* fs.symlink(`${directory}/nothing`, `${directory}/dangling`)
      assert.deepInclude(yield* at(`${directory}/dangling`), { _tag: "InvalidArgument", field: "stateDir" })
    })
  )

  it.effect("never takes a new id over an unreadable one", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const stateDir = yield* temporaryDirectory
      yield* fs.writeFileString(`${stateDir}/instance.json`, `{"version":1,"id":"NOT ONE"}`)
      const error = yield* Effect.flip(Effect.scoped(DirectoryInstance.make({ stateDir })))
      assert.strictEqual(error._tag, "BackendFailed")
      assert.include(yield* fs.readFileString(`${stateDir}/instance.json`), "NOT ONE")
    })
  )

  it.effect("of a living process is left alone; of a killed one it is found, once, and cleared away", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const baseDir = yield* temporaryDirectory
      const other = yield* holder(baseDir)
      const instance = yield* DirectoryInstance.make({ baseDir })
      assert.deepStrictEqual(yield* Effect.scoped(instance.deadInstances), [])

      yield* other.process.kill({ killSignal: "SIGKILL" })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const [dead, ...more] = yield* instance.deadInstances
          assert.deepStrictEqual(more, [])
          assert.strictEqual(dead?.id, other.id)
          // Whoever else looks while it is being cleared away finds nothing to do.
          assert.deepStrictEqual(yield* Effect.scoped(instance.deadInstances), [])
          assert.strictEqual(yield* fs.readFileString(`${dead?.stateDir}/left`), "something")
          if (dead !== undefined) yield* dead.remove
        })
      )
      assert.deepStrictEqual(yield* fs.readDirectory(`${baseDir}/ephemeral`), [instance.id])
    })
  )

  it.effect("lives where the environment says when nobody else does", () =>
    Effect.gen(function* () {
      const path = yield* Path.Path
      const baseDir = yield* temporaryDirectory
      const env = ConfigProvider.fromEnv({ env: { FIBERBOX_BASE_DIR: baseDir } })
      const instance = yield* Effect.provideService(
        DirectoryInstance.make({}),
        ConfigProvider.ConfigProvider,
        env
      )
      assert.strictEqual(path.dirname(path.dirname(instance.stateDir)), baseDir)
    })
  )
})

it.effect("an instance in memory has an id and no dead relatives", () =>
  Effect.gen(function* () {
    const instance = yield* Instance
    assert.isTrue(Schema.is(InstanceId)(instance.id))
    assert.deepStrictEqual(yield* instance.deadInstances, [])
  }).pipe(Effect.provide(Instance.layerMemory), Effect.provide(SecureRandom.layerWebCrypto))
)
