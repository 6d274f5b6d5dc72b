import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ProcessEvent } from "../../../src/domain/Process.ts"
import { layer } from "../../../src/layers/memory/MemoryBackend.ts"
import type { Machine, SpawnRequest } from "../../../src/services/Machine.ts"
import {
  bytes,
  exited,
  home,
  killed,
  processId,
  program,
  provision,
  run,
  script,
  settle,
  sh,
  summary
} from "./support.ts"

const test = <E>(promise: string, body: (machine: Machine) => Effect.Effect<void, E>) =>
  it.effect(promise, () => provision().pipe(Effect.flatMap(body), Effect.scoped, Effect.provide(layer())))

const pids = (machine: Machine) => Effect.map(machine.metrics, ({ pids }) => pids)
const until = (text: string) => Stream.takeUntil<ProcessEvent>((event) => summary([event]).out.includes(text))

describe("a process", () => {
  test("takes its descendants with it when killed, daemons included", (machine) =>
    Effect.gen(function* () {
      const spawn = script("setsid sleep 1000 & (sleep 1000 &); nohup sh -c 'sleep 1000; :' & echo up; wait")
      yield* machine.processes.start(spawn)
      const reader = yield* Effect.forkChild(Stream.runCollect(machine.processes.attach(spawn.processId, 0)))
      yield* machine.processes.attach(spawn.processId, 0).pipe(until("up"), Stream.runDrain)
      assert.isAbove(yield* pids(machine), 4)
      yield* machine.processes.kill(spawn.processId)
      assert.strictEqual(yield* pids(machine), 1)
      assert.deepStrictEqual(summary(yield* Fiber.join(reader)).status, killed)
      yield* machine.processes.kill(spawn.processId)
    }))

  test("leaves what it started in the background running, and its own exit known", (machine) =>
    Effect.gen(function* () {
      const spawn = script("sleep 1000 > /dev/null 2>&1 & echo started")
      assert.deepStrictEqual((yield* run(machine, spawn)).status, exited(0))
      assert.strictEqual(yield* pids(machine), 2)
      yield* machine.processes.kill(spawn.processId)
      assert.strictEqual(yield* pids(machine), 1)
    }))

  test("ends 100 ms after its output went quiet, when something else holds it open", (machine) =>
    Effect.gen(function* () {
      const reader = yield* Effect.forkChild(run(machine, script("sleep 1000 & echo out")))
      yield* TestClock.adjust(99)
      assert.strictEqual(reader.pollUnsafe(), undefined)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(reader), { out: "out\n", err: "", status: exited(0) })
    }))

  test("is one with the same content under its id, and a conflict with another", (machine) =>
    Effect.gen(function* () {
      const spawn = script("echo once >> count; echo out", { processId: processId("same") })
      const first = yield* run(machine, spawn)
      assert.deepStrictEqual(yield* run(machine, spawn), first)
      assert.strictEqual((yield* sh(machine, "cat count")).out, "once\n")
      const conflict = yield* Effect.flip(machine.processes.start({ ...spawn, argv: ["true"] }))
      assert.deepInclude(conflict, { _tag: "Conflict", kind: "process", id: "same" })
      const other = yield* Effect.flip(machine.processes.start({ ...spawn, env: { PATH: "/bin" } }))
      assert.strictEqual(other._tag, "Conflict")
    }))

  test("that is no longer kept is not made again by running it twice", (machine) =>
    Effect.gen(function* () {
      const first = script("echo ran >> ran")
      yield* run(machine, first)
      for (let count = 0; count < 260; count++) yield* run(machine, program(["true"]))
      assert.notInclude(
        (yield* machine.processes.list).map(({ processId }) => processId),
        first.processId
      )
      assert.strictEqual((yield* Effect.flip(machine.processes.start(first)))._tag, "Conflict")
      assert.strictEqual((yield* sh(machine, "cat ran")).out, "ran\n")
    }))

  test("that cannot be started says why", (machine) =>
    Effect.gen(function* () {
      const refused = Effect.fnUntraced(function* (...args: Parameters<typeof program>) {
        const error = yield* Effect.flip(machine.processes.start(program(...args)))
        return error._tag === "SpawnFailed" ? error.reason : error._tag
      })
      yield* machine.files.write(`${home}/text`, bytes("no program"), { mode: 0o755, user: "user" })
      yield* machine.files.write(`${home}/lost`, bytes("#!/no/such/interpreter\n"), {
        mode: 0o755,
        user: "user"
      })
      assert.strictEqual(yield* refused(["nosuch"]), "not-found")
      assert.strictEqual(yield* refused(["/no/such"]), "not-found")
      assert.strictEqual(yield* refused([`${home}/lost`]), "not-found")
      assert.strictEqual(yield* refused(["/tmp"]), "permission")
      assert.strictEqual(yield* refused(["/etc/passwd"]), "permission")
      assert.strictEqual(yield* refused([`${home}/text`]), "not-executable")
      assert.strictEqual(yield* refused(["true"], { cwd: "/none" }), "bad-cwd")
      assert.strictEqual(yield* refused(["true"], { cwd: "/etc/passwd" }), "bad-cwd")
      assert.strictEqual(yield* refused(["true"], { cwd: "/root" }), "bad-cwd")
      assert.strictEqual(yield* refused(["echo", "x".repeat(1024 * 1024)]), "argument-list-too-long")
      assert.deepStrictEqual(yield* machine.processes.list, [])
    }))

  it.effect("is counted against the limit of processes", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const machine = yield* provision({ limits: { pids: 8 } })
        const bomb = script(
          "f() { f | f & }; f; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo never"
        )
        const outcome = yield* Effect.forkChild(run(machine, bomb))
        yield* settle
        yield* TestClock.adjust(2000)
        const { err, out } = yield* Fiber.join(outcome)
        assert.include(err, "Cannot fork")
        assert.strictEqual(out, "")
        assert.isAtMost(yield* pids(machine), 8)
        yield* machine.processes.kill(bomb.processId)
        assert.strictEqual((yield* sh(machine, "echo well")).out, "well\n")
      })
    ).pipe(Effect.provide(layer()))
  )

  it.effect("is ended when the machine's memory is used up", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const machine = yield* provision({ limits: { memoryBytes: 16 * 1024 * 1024 } })
        assert.deepStrictEqual((yield* run(machine, program(["tail", "/dev/zero"]))).status, killed)
        assert.strictEqual((yield* sh(machine, "head -c 100 /dev/zero | tail -c 3 | wc -c")).out, "3\n")
      })
    ).pipe(Effect.provide(layer()))
  )
})

describe("taking a start back", () => {
  test("before it comes makes that it never starts anything", (machine) =>
    Effect.gen(function* () {
      const spawn = script("touch ran", { identity: 1 })
      assert.strictEqual(yield* machine.processes.cancel(spawn, "request"), "nothing")
      const refused = yield* Effect.flip(machine.processes.start(spawn))
      assert.deepInclude(refused, { _tag: "Conflict", reason: "the start of this process was cancelled" })
      assert.deepStrictEqual(yield* machine.processes.list, [])
      assert.strictEqual((yield* sh(machine, "ls")).out, "")
    }))

  test("kills all that it started, and nothing that another start has given its id", (machine) =>
    Effect.gen(function* () {
      const spawn = script("setsid sleep 1000 & sleep 1000", { identity: 1 })
      yield* machine.processes.start(spawn)
      yield* settle
      assert.strictEqual(yield* machine.processes.cancel({ ...spawn, identity: 2 }, "request"), "nothing")
      assert.isAbove(yield* pids(machine), 2)
      assert.strictEqual(yield* machine.processes.cancel(spawn, "request"), "program")
      assert.strictEqual(yield* pids(machine), 1)
      assert.strictEqual(yield* machine.processes.cancel(spawn, "request"), "nothing")
    }))

  test("because its time is up is told with its exit, if it had not exited before", (machine) =>
    Effect.gen(function* () {
      const timedOut = (spawn: SpawnRequest) =>
        Effect.map(Stream.runLast(machine.processes.attach(spawn.processId, 0)), (last) =>
          last._tag === "Some" && last.value._tag === "Exited" ? last.value.timedOut : undefined
        )
      const late = script("sleep 1000")
      yield* machine.processes.start(late)
      assert.strictEqual(yield* machine.processes.cancel(late, "limit"), "program")
      assert.isTrue(yield* timedOut(late))
      const before = script("sleep 1000 > /dev/null 2>&1 &")
      yield* run(machine, before)
      assert.strictEqual(yield* machine.processes.cancel(before, "limit"), "descendants")
      assert.isFalse(yield* timedOut(before))
    }))

  test("is refused, and said so, when so many never came that one would be forgotten", (machine) =>
    Effect.gen(function* () {
      for (let index = 0; index < 16_384; index++) {
        yield* machine.processes.cancel({ processId: processId(`c${index}`), identity: 0 }, "request")
      }
      const refused = yield* Effect.flip(
        machine.processes.cancel({ processId: processId("more"), identity: 0 }, "request")
      )
      assert.strictEqual(refused._tag, "ResourceExhausted")
      yield* machine.processes.cancel({ processId: processId("c0"), identity: 0 }, "request")
    }))
})

describe("what a program leaves behind", () => {
  test("adds to its output for a second and a MiB, however slowly that is read", (machine) =>
    Effect.gen(function* () {
      const spawn = script("yes & echo front", { journalBytes: 65536 })
      const reader = yield* Effect.forkChild(
        machine.processes.run(spawn).pipe(
          Stream.tap((event) => (event._tag === "Output" ? Effect.sleep(5000) : Effect.void)),
          Stream.runCollect
        )
      )
      yield* settle
      yield* TestClock.adjust("1 hour")
      const events = yield* Fiber.join(reader)
      const last = events.at(-1)
      assert.isTrue(last?._tag === "Exited" && last.treeAlive)
      assert.isBelow(last?._tag === "Exited" ? last.cursor : 0, 3 * 1024 * 1024)
      const listed = (yield* machine.processes.list).at(0)
      assert.deepStrictEqual([listed?.end, listed?.treeAlive], [last?._tag === "Exited" && last.cursor, true])
      yield* machine.processes.kill(spawn.processId)
    }))
})

describe("signals", () => {
  test("end a program that does not handle them, and say so", (machine) =>
    Effect.gen(function* () {
      for (const [signal, number] of [
        ["SIGTERM", 15],
        ["SIGINT", 2],
        ["SIGHUP", 1],
        ["SIGUSR1", 10]
      ] as const) {
        const spawn = program(["sleep", "1000"])
        yield* machine.processes.start(spawn)
        yield* machine.processes.signal(spawn.processId, signal)
        const { status } = summary(yield* Stream.runCollect(machine.processes.attach(spawn.processId, 0)))
        assert.deepStrictEqual(status, { _tag: "Signaled", signal, number })
        yield* machine.processes.signal(spawn.processId, signal)
      }
      const unknown = yield* Effect.flip(machine.processes.signal(processId("none"), "SIGTERM"))
      assert.deepInclude(unknown, { _tag: "NotFound", kind: "process" })
    }))

  test("stop and continue a program; what came meanwhile comes then", (machine) =>
    Effect.gen(function* () {
      const spawn = script("while true; do sleep 1; echo tick; done")
      yield* machine.processes.start(spawn)
      const end = Effect.map(machine.processes.list, ([info]) => info?.end)
      yield* TestClock.adjust(2500)
      assert.strictEqual(yield* end, 10)
      yield* machine.processes.signal(spawn.processId, "SIGSTOP")
      yield* TestClock.adjust(10_000)
      assert.strictEqual(yield* end, 10)
      yield* machine.processes.signal(spawn.processId, "SIGCONT")
      yield* TestClock.adjust(1000)
      assert.strictEqual(yield* end, 20)
      yield* machine.processes.signal(spawn.processId, "SIGSTOP")
      yield* machine.processes.signal(spawn.processId, "SIGTERM")
      assert.strictEqual(yield* pids(machine), 3)
      yield* machine.processes.signal(spawn.processId, "SIGCONT")
      assert.strictEqual(yield* pids(machine), 1)
    }))
})

describe("output", () => {
  test("waits for its slowest reader, who then gets every byte", (machine) =>
    Effect.gen(function* () {
      const spawn = script("seq 20000; echo end", { journalBytes: 4096 })
      const collected: Array<ProcessEvent> = []
      yield* machine.processes.run(spawn).pipe(
        Stream.runForEach((event) =>
          Effect.sync(() => {
            collected.push(event)
          })
        )
      )
      const lines = summary(collected).out.split("\n")
      assert.deepStrictEqual(
        [lines.length, lines[0], lines[19_999], lines[20_000]],
        [20_002, "1", "20000", "end"]
      )
      assert.isFalse(collected.some((event) => event._tag === "Truncated"))
    }))

  test("is overwritten while nobody reads, and a late reader is told", (machine) =>
    Effect.gen(function* () {
      const spawn = script("seq 20000", { journalBytes: 4096 })
      yield* machine.processes.start(spawn)
      yield* Effect.yieldNow
      yield* TestClock.adjust(1)
      const events = yield* Stream.runCollect(machine.processes.attach(spawn.processId, 0))
      const total = (yield* machine.processes.list)[0]?.end ?? 0
      assert.deepStrictEqual(events[1], { _tag: "Truncated", from: 0, to: total - 4096 })
      assert.strictEqual(summary(events).out.length, 4096)
      assert.deepInclude(events.at(-1), { _tag: "Exited", status: exited(0), cursor: total })
    }))

  test("goes on from any cursor", (machine) =>
    Effect.gen(function* () {
      const spawn = script("printf 0123456789")
      yield* run(machine, spawn)
      for (const cursor of [0, 4, 9, 10]) {
        const events = yield* Stream.runCollect(machine.processes.attach(spawn.processId, cursor))
        assert.strictEqual(summary(events).out, "0123456789".slice(cursor))
        assert.deepInclude(events.at(-1), { _tag: "Exited", cursor: 10 })
      }
      assert.strictEqual(
        (yield* Effect.flip(Stream.runDrain(machine.processes.attach(processId("none"), 0))))._tag,
        "NotFound"
      )
    }))

  test("is kept of the last 256 programs that ended", (machine) =>
    Effect.gen(function* () {
      const first = script("echo first")
      yield* run(machine, first)
      for (let index = 0; index < 300; index++) yield* run(machine, program(["true"]))
      assert.strictEqual((yield* machine.processes.list).length, 257)
      assert.strictEqual(
        (yield* Effect.flip(Stream.runDrain(machine.processes.attach(first.processId, 0))))._tag,
        "NotFound"
      )
    }))
})

describe("standard input", () => {
  test("is taken by offset: repeats are acknowledged, gaps refused, the end is the end", (machine) =>
    Effect.gen(function* () {
      const spawn = program(["cat"], { stdin: true })
      const { processId } = spawn
      yield* machine.processes.start(spawn)
      const write = (offset: number, text: string) =>
        machine.processes.writeStdin(processId, offset, bytes(text))
      assert.strictEqual(yield* write(0, "abc"), 3)
      assert.strictEqual(yield* write(0, "abc"), 3)
      assert.strictEqual(yield* write(2, "cde"), 5)
      assert.deepInclude(yield* Effect.flip(write(6, "x")), { _tag: "InvalidArgument", field: "offset" })
      yield* machine.processes.closeStdin(processId)
      yield* machine.processes.closeStdin(processId)
      assert.strictEqual(yield* write(0, "abcde"), 5)
      assert.deepInclude(yield* Effect.flip(write(5, "f")), { _tag: "InvalidArgument", field: "stdin" })
      assert.strictEqual(
        summary(yield* Stream.runCollect(machine.processes.attach(processId, 0))).out,
        "abcde"
      )
    }))

  test("waits while the program does not read", (machine) =>
    Effect.gen(function* () {
      const spawn = script("sleep 10; cat | wc -c", { stdin: true })
      const { processId } = spawn
      yield* machine.processes.start(spawn)
      const chunk = new Uint8Array(100_000)
      let offset = yield* machine.processes.writeStdin(processId, 0, chunk)
      offset = yield* machine.processes.writeStdin(processId, offset, chunk)
      assert.strictEqual(offset, 128 * 1024)
      const writer = yield* Effect.forkChild(machine.processes.writeStdin(processId, offset, chunk))
      yield* TestClock.adjust(9000)
      assert.strictEqual(writer.pollUnsafe(), undefined)
      yield* TestClock.adjust(1000)
      assert.isAbove(yield* Fiber.join(writer), offset)
    }))

  test("that is not taken within the transport's limit is a timeout", (machine) =>
    Effect.gen(function* () {
      const spawn = program(["sleep", "1000"], { stdin: true })
      yield* machine.processes.start(spawn)
      yield* machine.processes.writeStdin(spawn.processId, 0, new Uint8Array(128 * 1024))
      const write = machine.processes.writeStdin(spawn.processId, 128 * 1024, bytes("x"))
      const writer = yield* Effect.forkChild(Effect.flip(write))
      yield* TestClock.adjust("30 seconds")
      assert.deepInclude(yield* Fiber.join(writer), {
        _tag: "Timeout",
        limit: "transport",
        outcome: "unknown"
      })
    }))
})

describe("a terminal", () => {
  const terminal = (argv: readonly [string, ...Array<string>]) =>
    program(argv, { pty: { rows: 24, cols: 80 }, stdin: true })
  const shown = (machine: Machine, spawn: ReturnType<typeof terminal>) =>
    Effect.map(Stream.runCollect(machine.processes.attach(spawn.processId, 0)), summary)
  const type = Effect.fnUntraced(function* (
    machine: Machine,
    spawn: ReturnType<typeof terminal>,
    ...keys: ReadonlyArray<string>
  ) {
    let offset = 0
    for (const key of keys) {
      offset = yield* machine.processes.writeStdin(spawn.processId, offset, bytes(key))
      yield* TestClock.adjust(1)
    }
  })

  test("echoes, edits lines, and tells the end", (machine) =>
    Effect.gen(function* () {
      const spawn = terminal(["cat"])
      yield* machine.processes.start(spawn)
      yield* type(machine, spawn, "abX\x7fc\r", "\x04")
      assert.deepStrictEqual(yield* shown(machine, spawn), {
        out: "abX\b \bc\r\nabc\r\n",
        err: "",
        status: exited(0)
      })
    }))

  test("sends the interrupt to what runs on it", (machine) =>
    Effect.gen(function* () {
      const spawn = terminal(["sleep", "1000"])
      yield* machine.processes.start(spawn)
      yield* type(machine, spawn, "\x03")
      assert.deepStrictEqual(yield* shown(machine, spawn), {
        out: "^C",
        err: "",
        status: { _tag: "Signaled", signal: "SIGINT", number: 2 }
      })
    }))

  test("runs a shell with a prompt, and shows its size after a change", (machine) =>
    Effect.gen(function* () {
      const spawn = terminal(["sh"])
      yield* machine.processes.start(spawn)
      yield* settle
      yield* type(machine, spawn, "stty size\r")
      yield* machine.processes.resize(spawn.processId, { rows: 50, cols: 132 })
      yield* machine.processes.writeStdin(spawn.processId, 10, bytes("stty size; tty\rexit 3\r"))
      assert.deepStrictEqual(yield* shown(machine, spawn), {
        out: "$ stty size\r\n24 80\r\n$ stty size; tty\r\nexit 3\r\n50 132\r\n/dev/pts/0\r\n$ ",
        err: "",
        status: exited(3)
      })
      const none = script("true")
      yield* run(machine, none)
      const refused = yield* Effect.flip(machine.processes.resize(none.processId, { rows: 1, cols: 1 }))
      assert.strictEqual(refused._tag, "InvalidArgument")
    }))

  test("does not end with an interrupted command, but with the shell", (machine) =>
    Effect.gen(function* () {
      const spawn = terminal(["sh"])
      yield* machine.processes.start(spawn)
      yield* settle
      yield* type(machine, spawn, "sleep 1000\r", "\x03", "echo $?\r", "\x04")
      const { out, status } = yield* shown(machine, spawn)
      assert.include(out, "130\r\n")
      assert.deepStrictEqual(status, exited(0))
    }))
})
