import { fileURLToPath } from "node:url"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { Generation } from "../../../src/domain/Ids.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Instance } from "../../../src/services/Instance.ts"
import {
  Base,
  backend,
  canRun,
  everything,
  leftovers,
  platform,
  remains,
  sandbox,
  sh,
  specOf
} from "./support.ts"

const nextGeneration = (request: { readonly generation: Generation }) =>
  Generation.make(request.generation + 1)

/** But for the small disks that other tests mount meanwhile. */
const mountTable = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  Effect.map(fs.readFileString("/proc/self/mountinfo"), (table) =>
    table
      .split("\n")
      .filter((line) => !line.includes("/fb-host-"))
      .join("\n")
  )
)

describe.runIf(canRun)("a container's machine", () => {
  layer(everything, { excludeTestServices: true })((it) => {
    it.effect("never appears in the host's mount table, and leaves nothing when it is removed", () =>
      Effect.gen(function* () {
        const before = yield* mountTable
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { machine } = yield* sandbox()
            assert.strictEqual((yield* sh(machine, "echo hello")).out.trim(), "hello")
            assert.strictEqual(yield* mountTable, before)
            assert.isAbove((yield* remains).length, 5)
          })
        )
        assert.deepStrictEqual(yield* leftovers, [])
      })
    )

    it.effect("keeps its disk over stop and start, and nothing else", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const service = yield* Backend
          const { id, machine, request } = yield* sandbox()
          yield* sh(machine, "echo kept > /home/user/file; echo x > /dev/shm/file")
          yield* machine.terminate
          yield* machine.terminate
          assert.deepStrictEqual(yield* service.list, [{ sandboxId: id, generation: undefined }])
          const left = yield* leftovers
          assert.deepStrictEqual(left, [`s/${id.slice(3)}`])
          const again = yield* service.provision({ ...request, generation: nextGeneration(request) })
          assert.strictEqual(
            (yield* sh(again, "cat /home/user/file; stat -c %u /home/user/file; ls /dev/shm")).out.trim(),
            "kept\n1000"
          )
          assert.deepStrictEqual(yield* service.list, [{ sandboxId: id, generation: again.generation }])
        })
      )
    )

    it.effect("is taken over, not made anew, when it is asked for again", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const service = yield* Backend
          const { machine, request } = yield* sandbox()
          yield* sh(machine, "echo here > /dev/shm/mark")
          const same = yield* service.provision(request)
          assert.strictEqual((yield* sh(same, "cat /dev/shm/mark")).out.trim(), "here")
          const adopted = yield* service.adopt(request)
          assert.strictEqual((yield* sh(adopted, "cat /dev/shm/mark")).out.trim(), "here")
          const other = { ...request, generation: nextGeneration(request) }
          assert.strictEqual((yield* Effect.flip(service.adopt(other)))._tag, "NotFound")
        })
      )
    )

    it.effect("stands still while paused and goes on afterwards", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { machine } = yield* sandbox()
          yield* sh(machine, "(while :; do :; done) > /dev/null 2>&1 &")
          yield* machine.pause
          yield* machine.pause
          const first = (yield* machine.metrics).cpuMillis
          yield* Effect.sleep("100 millis")
          assert.strictEqual((yield* machine.metrics).cpuMillis, first)
          yield* machine.resume
          yield* Effect.repeat(machine.metrics, { until: (metrics) => metrics.cpuMillis > first + 20 })
          yield* machine.resume
        })
      )
    )

    it.effect("is taken over while it is paused, without going on for a moment", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        const { id, machine, request } = yield* sandbox(specOf(), { detached: true })
        yield* sh(machine, "(while :; do :; done) > /dev/null 2>&1 &")
        yield* machine.pause
        const cpu = (yield* machine.metrics).cpuMillis
        const adopted = yield* service.adopt(request)
        assert.strictEqual((yield* adopted.metrics).cpuMillis, cpu)
        yield* adopted.resume
        assert.strictEqual((yield* sh(adopted, "echo on")).out, "on\n")
        yield* Effect.repeat(adopted.metrics, { until: (metrics) => metrics.cpuMillis > cpu })
        yield* adopted.pause
        const again = yield* service.adopt(request)
        yield* Effect.timeout(again.terminate, "5 seconds")
        assert.deepStrictEqual(yield* service.list, [{ sandboxId: id, generation: undefined }])
      }).pipe(Effect.scoped)
    )

    it.effect("ends within a second even when it is paused and full of processes", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { machine } = yield* sandbox()
          yield* sh(machine, "for i in 1 2 3 4 5 6 7 8; do (setsid sleep 1000 &) ; done > /dev/null 2>&1")
          yield* machine.pause
          yield* Effect.timeout(machine.terminate, "5 seconds")
          assert.strictEqual((yield* Effect.flip(machine.pause))._tag, "SandboxFailed")
          assert.strictEqual((yield* Effect.flip(machine.metrics))._tag, "SandboxFailed")
          assert.deepStrictEqual(
            (yield* leftovers).filter((what) => !what.startsWith("s/")),
            []
          )
        })
      )
    )

    it.effect("leaves nothing when its start is interrupted or fails", () =>
      Effect.gen(function* () {
        for (const millis of [1, 10, 20, 30, 45]) {
          yield* Effect.scoped(sandbox()).pipe(Effect.timeout(millis), Effect.ignore)
          assert.deepStrictEqual(yield* leftovers, [])
        }
        const error = yield* Effect.scoped(sandbox()).pipe(
          Effect.provide(backend({ container: { runtime: "/nonexistent/runc" } })),
          Effect.flip
        )
        assert.strictEqual(error._tag, "Unsupported")
        assert.deepStrictEqual(yield* leftovers, [])
      })
    )

    it.effect("is refused for what cannot be had, without a trace", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        const refused = (spec: Parameters<typeof service.validate>[0]) =>
          Effect.map(Effect.flip(Effect.scoped(sandbox(spec))), (error) => error._tag)
        assert.strictEqual(yield* refused(specOf({ image: "debian" })), "NotFound")
        assert.strictEqual(yield* refused(specOf({ image: "dir:/etc" })), "Unsupported")
        assert.strictEqual(yield* refused(specOf({ network: "full" })), "Unsupported")
        assert.strictEqual(yield* refused(specOf({}, { memoryBytes: 2 ** 50 })), "InvalidArgument")
        assert.deepStrictEqual(yield* service.list, [])
        assert.deepStrictEqual(yield* leftovers, [])
      })
    )

    it.effect("is refused, never unlimited, where disks or mounts cannot be made", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const helper = fileURLToPath(new URL("../../../native/build/fiberbox-host", import.meta.url))
        for (const [lost, capability] of [
          ["mknod", "loop-device"],
          ["sys_admin", "mount-namespace"]
        ] as const) {
          const weak = `${(yield* Base).path}/without-${lost}`
          const script = `#!/bin/sh\nexec setpriv --bounding-set -${lost} --inh-caps -${lost} ${helper} "$@"\n`
          yield* fs.writeFileString(weak, script, { mode: 0o755 })
          const error = yield* Effect.scoped(sandbox()).pipe(
            Effect.provide(backend({ container: { helper: weak } })),
            Effect.flip
          )
          assert.deepInclude(error, { _tag: "Unsupported", capability })
        }
        assert.deepStrictEqual(yield* leftovers, [])
      })
    )

    it.effect("has its own ids: two machines share no user of the host", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const [one, two] = yield* Effect.all([sandbox(), sandbox()], { concurrency: 2 })
          const map = (machine: typeof one.machine) =>
            Effect.map(sh(machine, "cat /proc/self/uid_map"), ({ out }) => out)
          const maps = [yield* map(one.machine), yield* map(two.machine)].map((text) =>
            text.trim().split(/\s+/)
          )
          assert.deepStrictEqual(
            maps.map(([inside, , count]) => [inside, count]),
            [
              ["0", "65536"],
              ["0", "65536"]
            ]
          )
          assert.notStrictEqual(maps[0]?.[1], maps[1]?.[1])
        })
      )
    )
  })
})

describe.runIf(canRun)("an instance of the container backend", () => {
  layer(Base.layer.pipe(Layer.provideMerge(platform)), { excludeTestServices: true })((it) => {
    it.effect("that is ephemeral takes all its machines with it", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { path } = yield* Base
        yield* Effect.gen(function* () {
          const service = yield* Backend
          const { request } = yield* Effect.scoped(sandbox())
          yield* Effect.scoped(service.provision(request))
          assert.isAbove((yield* remains).length, 5)
        }).pipe(Effect.provide(backend()))
        assert.deepStrictEqual(yield* fs.readDirectory(`${path}/ephemeral`), [])
        assert.deepStrictEqual(yield* fs.readDirectory(`${path}/ids`), [])
      })
    )

    it.effect("that is persistent finds its machines again, still running", () =>
      Effect.gen(function* () {
        const place = backend({ state: "kept" })
        const request = yield* Effect.gen(function* () {
          const service = yield* Backend
          const { request } = yield* Effect.scoped(sandbox())
          const machine = yield* Effect.scoped(
            Effect.tap(service.provision({ ...request, detached: true }), (made) =>
              sh(made, "echo here > /dev/shm/mark")
            )
          )
          assert.strictEqual(machine.generation, request.generation)
          return { ...request, detached: true }
        }).pipe(Effect.provide(place))
        yield* Effect.scoped(
          Effect.gen(function* () {
            const service = yield* Backend
            assert.deepStrictEqual(yield* service.list, [
              { sandboxId: request.sandboxId, generation: request.generation }
            ])
            const machine = yield* service.adopt(request)
            assert.strictEqual((yield* sh(machine, "cat /dev/shm/mark")).out.trim(), "here")
            yield* service.remove(request.sandboxId)
            assert.deepStrictEqual(yield* leftovers, [])
          })
        ).pipe(Effect.provide(place))
      })
    )

    it.effect("does not see or touch the machines of another", () =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { machine } = yield* sandbox()
            const others = yield* Effect.gen(function* () {
              const service = yield* Backend
              return [yield* service.list, (yield* Instance).id] as const
            }).pipe(Effect.provide(backend({ state: "other" })))
            assert.deepStrictEqual(others[0], [])
            assert.strictEqual((yield* sh(machine, "echo alive")).out.trim(), "alive")
          })
        ).pipe(Effect.provide(backend({ state: "one" })))
      })
    )
  })
})
