import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { layer } from "../../../src/layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "../../../src/layers/memory/MemoryFaults.ts"
import { Backend } from "../../../src/services/Backend.ts"
import {
  bytes,
  exited,
  home,
  program,
  provision,
  run,
  sandboxId,
  script,
  settle,
  sh,
  summary
} from "./support.ts"

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
      yield* faults.inject("spawn", { _tag: "LoseReply" })
      const unheard = run(machine, script("seq 20000; touch ended", { journalBytes: 4096 }))
      assert.strictEqual((yield* Effect.flip(unheard))._tag, "Connection")
      yield* settle
      assert.strictEqual((yield* sh(machine, "ls ended")).code, 0, "nobody is attached who would hold it up")
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
