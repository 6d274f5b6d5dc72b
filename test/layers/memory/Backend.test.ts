import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Random, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { layer, layerOn } from "../../../src/layers/memory/MemoryBackend.ts"
import { MemoryWorld } from "../../../src/layers/memory/MemoryWorld.ts"
import { Backend } from "../../../src/services/Backend.ts"
import {
  bytes,
  exited,
  home,
  processId,
  program,
  provision,
  request,
  run,
  sandboxId,
  script,
  settle,
  sh,
  summary
} from "./support.ts"

describe("pause", () => {
  it.effect("lets no process go on, and everything afterwards", () =>
    Effect.gen(function* () {
      const machine = yield* provision()
      const spawn = script("while true; do sleep 1; echo tick; done")
      yield* machine.processes.start(spawn)
      const ticks = Effect.map(machine.processes.list, ([info]) => (info?.end ?? 0) / 5)
      yield* TestClock.adjust(2500)
      assert.strictEqual(yield* ticks, 2)
      yield* machine.pause
      yield* machine.pause
      yield* TestClock.adjust(60_000)
      assert.strictEqual((yield* machine.metrics).pids, 3)
      yield* machine.resume
      yield* machine.resume
      yield* settle
      assert.strictEqual(yield* ticks, 3, "what slept beyond its time goes on at once, as on Linux")
      yield* TestClock.adjust(1000)
      assert.strictEqual(yield* ticks, 4)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("keeps calls to the inside waiting, up to the transport's limit", () =>
    Effect.gen(function* () {
      const machine = yield* provision()
      yield* machine.pause
      const waiting = yield* Effect.forkChild(run(machine, script("echo out")))
      yield* TestClock.adjust(1000)
      assert.strictEqual(waiting.pollUnsafe(), undefined)
      yield* machine.resume
      assert.strictEqual((yield* Fiber.join(waiting)).out, "out\n")
      yield* machine.pause
      const late = yield* Effect.forkChild(Effect.flip(machine.files.stat("/", "user")))
      yield* TestClock.adjust(30_000)
      assert.deepInclude(yield* Fiber.join(late), { _tag: "Timeout", limit: "transport", millis: 30_000 })
      yield* machine.terminate
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("freezes the clock of commands a test defines", () => {
    const log: Array<string> = []
    const commands = {
      slow: () =>
        Effect.gen(function* () {
          yield* Effect.sleep(1000)
          log.push("slept")
          return 0
        })
    }
    return Effect.gen(function* () {
      const machine = yield* provision()
      yield* machine.processes.start(program(["slow"]))
      yield* settle
      yield* machine.pause
      yield* TestClock.adjust(5000)
      assert.deepStrictEqual(log, [])
      yield* machine.resume
      yield* settle
      assert.deepStrictEqual(log, ["slept"])
    }).pipe(Effect.scoped, Effect.provide(layer({ commands })))
  })
})

describe("the backend", () => {
  it.effect("keeps the disk when a machine ends, and removes it with the sandbox", () =>
    Effect.gen(function* () {
      const backend = yield* Backend
      const first = yield* provision({ generation: 1 })
      yield* first.files.write(`${home}/kept`, bytes("kept"), { mode: undefined, user: "user" })
      yield* first.processes.start(program(["sleep", "1000"]))
      yield* first.terminate
      yield* first.terminate
      assert.deepInclude(yield* first.exited, { outOfMemory: false })
      assert.deepStrictEqual(yield* backend.list, [{ sandboxId: sandboxId(), generation: undefined }])
      assert.deepInclude(yield* Effect.flip(first.files.stat(home, "user")), {
        _tag: "SandboxFailed",
        outcome: "not-started"
      })

      const second = yield* provision({ generation: 2 })
      assert.strictEqual((yield* second.metrics).pids, 1)
      assert.strictEqual((yield* sh(second, "cat kept")).out, "kept")
      assert.deepStrictEqual(yield* second.processes.list.pipe(Effect.map((all) => all.length)), 1)
      yield* backend.remove(sandboxId())
      yield* backend.remove(sandboxId())
      assert.deepStrictEqual(yield* backend.list, [])
      assert.deepInclude(yield* second.exited, { reason: "the sandbox was removed" })

      const third = yield* provision({ generation: 3 })
      assert.strictEqual((yield* sh(third, "cat kept")).code, 1)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("takes over the machine of the same generation, and replaces an older one", () =>
    Effect.gen(function* () {
      const first = yield* provision({ generation: 1 })
      const spawn = program(["sleep", "1000"])
      yield* first.processes.start(spawn)
      const same = yield* provision({ generation: 1 })
      assert.strictEqual((yield* same.processes.list)[0]?.processId, spawn.processId)
      const next = yield* provision({ generation: 2 })
      assert.deepInclude(yield* first.exited, { reason: "a later generation takes its place" })
      assert.deepStrictEqual(yield* next.processes.list, [])
      assert.strictEqual((yield* Effect.flip(provision({ generation: 1 })))._tag, "BackendFailed")
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("refuses what a container of its size refuses", () =>
    Effect.gen(function* () {
      const backend = yield* Backend
      const { spec } = request()
      const refused = (change: Partial<typeof spec>) =>
        Effect.map(Effect.flip(backend.validate({ ...spec, ...change })), (error) =>
          error._tag === "InvalidArgument"
            ? error.field
            : error._tag === "Unsupported"
              ? error.capability
              : error._tag
        )
      const limits = (change: Partial<typeof spec.limits>) =>
        refused({ limits: { ...spec.limits, ...change } })
      yield* backend.validate(spec)
      yield* backend.validate({ ...spec, image: "debian:12" })
      assert.strictEqual(yield* refused({ image: "debian:11" }), "NotFound")
      assert.strictEqual(yield* refused({ image: "dir:/no/such" }), "NotFound")
      assert.strictEqual(yield* limits({ memoryBytes: 2 * 1024 ** 3 }), "limits.memoryBytes")
      assert.strictEqual(yield* limits({ memoryBytes: 1 }), "limits.memoryBytes")
      assert.strictEqual(yield* limits({ cpus: 17 }), "limits.cpus")
      assert.strictEqual(yield* limits({ inodes: 10_000_000 }), "limits.inodes")
      assert.strictEqual(yield* refused({ network: "full" }), "network-full")
      assert.strictEqual(yield* refused({ network: { allow: ["example.test"] } }), "network-allow")
      assert.isFalse(backend.capabilities.has("snapshot"))
      assert.isTrue(backend.capabilities.has("pty"))
    }).pipe(Effect.provide(layer({ images: ["debian:12"], size: { memoryBytes: 1024 ** 3 } })))
  )
})

describe("a world", () => {
  it.effect("outlives a killed service: another one adopts its machines, with processes and journals", () =>
    Effect.gen(function* () {
      const world = yield* MemoryWorld
      const scope = yield* Scope.make()
      const before = yield* Layer.buildWithScope(layerOn(), scope)
      const machine = yield* provision().pipe(Effect.provideContext(before), Scope.provide(scope))
      const spawn = script("echo one; sleep 10; echo two")
      const reader = yield* Effect.forkChild(Effect.flip(Stream.runDrain(machine.processes.run(spawn))))
      yield* settle
      yield* world.crash
      assert.deepInclude(yield* Fiber.join(reader), { _tag: "Connection", outcome: "unknown" })
      assert.strictEqual((yield* Effect.flip(machine.processes.list))._tag, "Connection")
      assert.strictEqual((yield* Effect.flip(machine.terminate))._tag, "BackendFailed")
      yield* Scope.close(scope, Exit.void)

      yield* Effect.gen(function* () {
        const backend = yield* Backend
        const { generation } = request()
        assert.deepStrictEqual(yield* backend.list, [{ sandboxId: sandboxId(), generation }])
        assert.strictEqual((yield* Effect.flip(backend.adopt(request({ generation: 2 }))))._tag, "NotFound")
        const adopted = yield* backend.adopt(request())
        const rest = yield* Effect.forkChild(Stream.runCollect(adopted.processes.attach(spawn.processId, 0)))
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(summary(yield* Fiber.join(rest)), {
          out: "one\ntwo\n",
          err: "",
          status: exited(0)
        })
      }).pipe(Effect.scoped, Effect.provide(layerOn()))
    }).pipe(Effect.scoped, Effect.provide(MemoryWorld.layer))
  )

  it.effect("ends machines that are not detached when no service comes back in time", () =>
    Effect.gen(function* () {
      const service = layerOn({ lease: "30 seconds" })
      const make = provision({ n: 0, detached: false }).pipe(
        Effect.andThen(provision({ n: 1, detached: true }))
      )
      yield* make.pipe(Effect.scoped, Effect.provide(service))
      const running = Effect.flatMap(Backend, ({ list }) => list).pipe(
        Effect.map((found) => found.map(({ generation }) => generation !== undefined)),
        Effect.provide(service)
      )
      yield* TestClock.adjust("29 seconds")
      assert.deepStrictEqual(yield* running, [true, true])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* running, [false, true])
    }).pipe(Effect.provide(MemoryWorld.layer))
  )
})

describe("everything", () => {
  const trace = Effect.gen(function* () {
    const machine = yield* provision()
    const scripts = [
      "mktemp; head -c 4 /dev/urandom | wc -c",
      "echo $$ $(date +%s)",
      "seq 3 | (sleep 1; cat) & sleep 2; wait"
    ]
    const spawns = scripts.map((one, index) => script(one, { processId: processId(`t${index}`) }))
    const runs = yield* Effect.forkChild(
      Effect.forEach(spawns, (spawn) => Stream.runCollect(machine.processes.run(spawn)), {
        concurrency: "unbounded"
      })
    )
    yield* settle
    yield* TestClock.adjust("10 seconds")
    return yield* Fiber.join(runs)
  })

  it.live("is the same again with the same clock and seed, and other with another seed", () =>
    Effect.gen(function* () {
      const withSeed = (seed: string) =>
        trace.pipe(
          Effect.scoped,
          Effect.provide(layer()),
          Random.withSeed(seed),
          Effect.provide(TestClock.layer())
        )
      const first = yield* withSeed("a")
      assert.deepStrictEqual(yield* withSeed("a"), first)
      assert.notDeepEqual(yield* withSeed("b"), first)
    })
  )
})
