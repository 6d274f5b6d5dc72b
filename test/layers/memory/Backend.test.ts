import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { layer, layerOn } from "../../../src/layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "../../../src/layers/memory/MemoryFaults.ts"
import { MemoryWorld } from "../../../src/layers/memory/MemoryWorld.ts"
import { Backend } from "../../../src/services/Backend.ts"
import {
  bytes,
  exited,
  home,
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

const text = (data: Iterable<Uint8Array>) =>
  new TextDecoder().decode(Uint8Array.from([...data].flatMap((piece) => [...piece])))

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

describe("faults", () => {
  it.effect("make the next machine, or each, refused, late or never there, and leave nothing", () =>
    Effect.gen(function* () {
      const faults = yield* MemoryFaults
      const backend = yield* Backend
      yield* faults.inject("provision", { _tag: "Refuse", reason: "no room" })
      assert.deepInclude(yield* Effect.flip(provision()), {
        _tag: "BackendFailed",
        reason: "no room",
        outcome: "not-started"
      })
      yield* faults.inject("provision", { _tag: "LoseReply" })
      assert.strictEqual((yield* Effect.flip(provision()))._tag, "BackendFailed")
      assert.deepStrictEqual(yield* backend.list, [])

      yield* faults.inject("provision", { _tag: "Hang" })
      const hung = yield* Effect.forkChild(Effect.flip(Effect.scoped(provision())))
      yield* TestClock.adjust("60 seconds")
      assert.deepInclude(yield* Fiber.join(hung), {
        _tag: "Timeout",
        limit: "provision",
        outcome: "not-started"
      })

      yield* faults.inject(
        "provision",
        { _tag: "Delay", duration: "5 seconds" },
        { times: Number.POSITIVE_INFINITY }
      )
      const late = yield* Effect.forkChild(Effect.scoped(provision()))
      const unwanted = yield* Effect.forkChild(Effect.scoped(provision({ n: 1 })))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(late.pollUnsafe(), undefined)
      yield* Fiber.interrupt(unwanted)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(late)).generation, 1)
      assert.deepStrictEqual((yield* backend.list).length, 1)
      yield* faults.clear
      yield* provision({ n: 2 })
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("drop the connection: what waits fails with unknown outcome, the machine lives on", () =>
    Effect.gen(function* () {
      const faults = yield* MemoryFaults
      const machine = yield* provision()
      const spawn = script("echo one; sleep 10; echo two", { stdin: true })
      const reader = yield* Effect.forkChild(Effect.flip(Stream.runDrain(machine.processes.run(spawn))))
      const watcher = yield* Effect.forkChild(
        Effect.flip(Stream.runDrain(machine.files.watch(home, { recursive: true, user: "user" })))
      )
      yield* settle
      yield* machine.processes.writeStdin(spawn.processId, 0, new Uint8Array(128 * 1024))
      const writer = yield* Effect.forkChild(
        Effect.flip(machine.processes.writeStdin(spawn.processId, 128 * 1024, bytes("x")))
      )
      yield* settle
      yield* faults.disconnect(sandboxId())
      const errors = [yield* Fiber.join(reader), yield* Fiber.join(watcher), yield* Fiber.join(writer)]
      for (const error of errors) assert.deepInclude(error, { _tag: "Connection", outcome: "unknown" })
      const rest = yield* Effect.forkChild(Stream.runCollect(machine.processes.attach(spawn.processId, 4)))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(summary(yield* Fiber.join(rest)), { out: "two\n", err: "", status: exited(0) })
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("kill a machine: everybody is told, and nobody takes it for a program's end", () =>
    Effect.gen(function* () {
      const faults = yield* MemoryFaults
      const machine = yield* provision()
      const reader = yield* Effect.forkChild(
        Effect.flip(Stream.runDrain(machine.processes.run(program(["sleep", "1000"]))))
      )
      yield* settle
      yield* faults.killMachine(sandboxId(), { reason: "out of memory", outOfMemory: true })
      assert.deepInclude(yield* Fiber.join(reader), {
        _tag: "SandboxFailed",
        reason: "out of memory",
        outcome: "unknown"
      })
      assert.deepStrictEqual(yield* machine.exited, { reason: "out of memory", outOfMemory: true })
      assert.deepInclude(yield* Effect.flip(machine.metrics), {
        _tag: "SandboxFailed",
        outcome: "not-started"
      })
      assert.strictEqual((yield* Effect.flip(faults.killMachine(sandboxId())))._tag, "NotFound")
      yield* machine.terminate
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("make programs and files refuse, hang, come late, or take effect unheard", () =>
    Effect.gen(function* () {
      const faults = yield* MemoryFaults
      const machine = yield* provision()
      yield* faults.inject("spawn", { _tag: "Refuse" })
      assert.deepInclude(yield* Effect.flip(run(machine, script("echo x > ran"))), {
        _tag: "BackendFailed",
        outcome: "not-started"
      })
      yield* faults.inject("spawn", { _tag: "Hang" }, { sandboxId: sandboxId() })
      const hung = yield* Effect.forkChild(Effect.flip(machine.processes.start(script("echo x > ran"))))
      yield* TestClock.adjust("30 seconds")
      assert.deepInclude(yield* Fiber.join(hung), { _tag: "Timeout", limit: "transport", outcome: "unknown" })
      yield* faults.inject("spawn", { _tag: "Hang" }, { sandboxId: sandboxId(1) })
      assert.strictEqual(
        (yield* sh(machine, "ls")).out,
        "",
        "nothing ran, and another sandbox's fault is not met"
      )
      yield* faults.inject("files", { _tag: "LoseReply" })
      const write = machine.files.write(`${home}/written`, bytes("w"), { mode: undefined, user: "user" })
      assert.deepInclude(yield* Effect.flip(write), { _tag: "Connection", outcome: "unknown" })
      assert.strictEqual((yield* sh(machine, "cat written")).out, "w")
      yield* faults.inject("signal", { _tag: "Delay", duration: "1 second" })
      const spawn = program(["sleep", "1000"])
      yield* machine.processes.start(spawn)
      const signal = yield* Effect.forkChild(machine.processes.signal(spawn.processId, "SIGTERM"))
      yield* TestClock.adjust(999)
      assert.strictEqual((yield* machine.metrics).pids, 2)
      yield* TestClock.adjust(1)
      yield* Fiber.join(signal)
      assert.strictEqual((yield* machine.metrics).pids, 1)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )
})

describe("commands a test defines", () => {
  it.effect("read, write and end like any program, and wait while nobody reads", () => {
    let written = 0
    const options = {
      commands: {
        upper: (ctx) =>
          ctx.stdin.pipe(
            Stream.decodeText(),
            Stream.runForEach((piece) => ctx.stdout(piece.toUpperCase())),
            Effect.as(3)
          ),
        flood: (ctx) =>
          Effect.gen(function* () {
            for (; written < 100; written++) yield* ctx.stdout(new Uint8Array(1024))
            return 0
          }),
        note: (ctx) =>
          Effect.as(ctx.files.write("note", `${ctx.argv[1]} ${ctx.env["A"]} ${ctx.cwd} ${ctx.user}`), 0),
        broken: () => Effect.die("broken"),
        failing: () => Effect.fail("failed")
      }
    } satisfies Parameters<typeof layer>[0]
    return Effect.gen(function* () {
      const machine = yield* provision()
      assert.deepStrictEqual(yield* sh(machine, "echo abc | upper; echo $?"), {
        out: "ABC\n3\n",
        err: "",
        code: 0
      })
      assert.strictEqual(
        (yield* sh(machine, "A=env note arg; cat note; command -v note")).out,
        `arg env ${home} user/usr/bin/note\n`
      )
      for (const name of ["broken", "failing"]) {
        const outcome = yield* run(machine, program([name]))
        assert.deepStrictEqual(outcome.status, exited(1))
        assert.include(outcome.err, name.slice(0, 4))
      }
      const spawn = program(["flood"], { journalBytes: 8192 })
      const taken = yield* Deferred.make<void>()
      const reader = yield* machine.processes.run(spawn).pipe(
        Stream.runForEach(() => Deferred.await(taken)),
        Effect.forkChild
      )
      yield* settle
      assert.isAtLeast(written, 8)
      assert.isAtMost(written, 16)
      yield* Deferred.succeed(taken, undefined)
      yield* Fiber.join(reader)
      assert.strictEqual(written, 100)
    }).pipe(Effect.scoped, Effect.provide(layer(options)))
  })

  it.effect("answer signals, or are interrupted by them", () => {
    const log: Array<string> = []
    const options = {
      commands: {
        polite: (ctx) =>
          Effect.gen(function* () {
            const asked = yield* Deferred.make<void>()
            yield* ctx.onSignal("SIGTERM", Effect.asVoid(Deferred.succeed(asked, undefined)))
            yield* Deferred.await(asked)
            return 5
          }),
        rude: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("cleaned up")))
      }
    } satisfies Parameters<typeof layer>[0]
    return Effect.gen(function* () {
      const machine = yield* provision()
      const statusAfterTerm = Effect.fnUntraced(function* (name: string) {
        const spawn = program([name])
        yield* machine.processes.start(spawn)
        yield* settle
        yield* machine.processes.signal(spawn.processId, "SIGTERM")
        return summary(yield* Stream.runCollect(machine.processes.attach(spawn.processId, 0))).status
      })
      assert.deepStrictEqual(yield* statusAfterTerm("polite"), exited(5))
      assert.deepStrictEqual(yield* statusAfterTerm("rude"), {
        _tag: "Signaled",
        signal: "SIGTERM",
        number: 15
      })
      assert.deepStrictEqual(log, ["cleaned up"])
    }).pipe(Effect.scoped, Effect.provide(layer(options)))
  })

  it.effect("listen on ports, for as long as they live", () => {
    const options = {
      commands: {
        serve: (ctx) =>
          ctx
            .listen(8080, (connection) =>
              connection.incoming.pipe(
                Stream.decodeText(),
                Stream.runForEach((piece) => connection.send(bytes(`<${piece}>`)))
              )
            )
            .pipe(Effect.catchTag("Conflict", () => Effect.succeed(98)))
      },
      ports: { 9090: (connection) => Effect.asVoid(connection.send(bytes("hello"))) }
    } satisfies Parameters<typeof layer>[0]
    return Effect.gen(function* () {
      const machine = yield* provision()
      const talk = Effect.fnUntraced(function* (port: number, say: string) {
        const connection = yield* machine.dial(port)
        yield* connection.send(bytes(say))
        yield* connection.end
        return text(yield* Stream.runCollect(connection.incoming))
      }, Effect.scoped)
      assert.deepInclude(yield* Effect.flip(talk(8080, "x")), { _tag: "NotFound", kind: "port", id: "8080" })
      const spawn = program(["serve"])
      yield* machine.processes.start(spawn)
      yield* settle
      assert.strictEqual(yield* talk(8080, "a"), "<a>")
      assert.strictEqual(yield* talk(8080, "b"), "<b>")
      assert.strictEqual(yield* talk(9090, ""), "hello")
      assert.deepStrictEqual((yield* run(machine, program(["serve"]))).status, exited(98))
      yield* machine.processes.kill(spawn.processId)
      assert.strictEqual((yield* Effect.flip(talk(8080, "x")))._tag, "NotFound")
    }).pipe(Effect.scoped, Effect.provide(layer(options)))
  })
})
