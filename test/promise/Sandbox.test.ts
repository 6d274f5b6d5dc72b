import { assert, describe, it } from "@effect/vitest"
import { Effect, Predicate, Stream } from "effect"
import { Memory } from "../../src/memory.ts"
import {
  CommandExit,
  FileFailed,
  InvalidArgument,
  InvalidState,
  NotFound,
  type Process,
  Sandbox,
  SpawnFailed,
  Timeout
} from "../../src/promise.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { rejection } from "./support.ts"

const memory = { backend: "memory" } as const

describe("a sandbox of promises", () => {
  it("runs a command and gives its output as text", async () => {
    await using sandbox = await Sandbox.create(memory)
    const { exitCode, stderr, stdout } = await sandbox.commands.run("echo hello; echo oops >&2")
    assert.deepStrictEqual({ exitCode, stderr, stdout }, { exitCode: 0, stderr: "oops\n", stdout: "hello\n" })
  })

  it("takes the options of the facade beside the place", async () => {
    await using sandbox = await Sandbox.create({ ...memory, name: "named", env: { WHO: "ada" } })
    const { stdout } = await sandbox.commands.run("echo $WHO $WHAT", { env: { WHAT: "counts" } })
    assert.strictEqual(stdout, "ada counts\n")
    assert.strictEqual((await sandbox.info()).name, "named")
  })

  it("has every member of the facade's handle", async () => {
    await using sandbox = await Sandbox.create(memory)
    const shape = (handle: object): ReadonlyArray<string> =>
      Object.entries(handle).flatMap(([name, member]: [string, unknown]) =>
        Predicate.isObject(member) && !Effect.isEffect(member) && !Stream.isStream(member)
          ? shape(member).map((inner) => `${name}.${inner}`)
          : [name]
      )
    const facade = await Effect.runPromise(
      Effect.map(Sandboxes.create(), shape).pipe(Effect.scoped, Effect.provide(Memory.layer()))
    )
    assert.deepStrictEqual(shape(sandbox), facade)
    assert.isAbove(facade.length, 30)
  })

  it("answers with every kind of data as the facade does", async () => {
    await using sandbox = await Sandbox.create(memory)
    await sandbox.files.write("/home/user/a", "text")
    const bytes = await sandbox.files.read("/home/user/a")
    assert.deepStrictEqual(bytes, new TextEncoder().encode("text"))
    assert.strictEqual(await sandbox.files.exists("/home/user/b"), false)
    const { entries } = await sandbox.files.list("/home/user")
    assert.deepStrictEqual(
      entries.map(({ path, size }) => ({ path, size })),
      [{ path: "/home/user/a", size: 4 }]
    )
    assert.isAbove((await sandbox.metrics()).pids, 0)
    const { sandboxes } = await Sandbox.list(memory)
    assert.include(
      sandboxes.map(({ id }) => id),
      sandbox.id
    )
  })

  it("goes through its life by methods", async () => {
    await using sandbox = await Sandbox.create(memory)
    assert.strictEqual((await sandbox.pause()).status, "paused")
    assert.strictEqual((await sandbox.resume()).status, "running")
    assert.strictEqual((await sandbox.stop({ graceMillis: 10 })).status, "stopped")
    assert.strictEqual((await sandbox.start()).status, "running")
    const { expiresAt } = await sandbox.setExpiry({ ttl: { afterMillis: 60_000, action: "stop" } })
    assert.isNumber(expiresAt)
  })
})

describe("what fails", () => {
  it("rejects with the facade's own classes", async () => {
    await using sandbox = await Sandbox.create(memory)
    const exit = await rejection(CommandExit, sandbox.commands.run("echo half; exit 7"))
    assert.instanceOf(exit, Error)
    const { _tag, exitCode, isRetryable, outcome, stdout } = exit
    assert.deepStrictEqual(
      { _tag, exitCode, isRetryable, outcome, stdout },
      { _tag: "CommandExit", exitCode: 7, isRetryable: false, outcome: "completed", stdout: "half\n" }
    )
    await rejection(SpawnFailed, sandbox.process.run(["no-such-program"]))
    await rejection(FileFailed, sandbox.files.readText("/home/user/nothing"))
    await rejection(InvalidArgument, sandbox.files.write("relative", ""))
    await rejection(Timeout, sandbox.commands.run("sleep 60", { timeoutMillis: 20 }))
    await sandbox.pause()
    await rejection(InvalidState, sandbox.commands.run("true"))
  })

  it("rejects in the statics too", async () => {
    await rejection(NotFound, Sandbox.connect("nobody", memory))
    const refused = await rejection(
      InvalidArgument,
      Sandbox.create({ ...memory, limits: { memoryBytes: 0 } })
    )
    assert.strictEqual(refused.field, "limits.memoryBytes")
  })

  it("throws out of a loop over events", async () => {
    await using sandbox = await Sandbox.create(memory)
    const looked = async () => {
      for await (const _ of sandbox.process.stream(["no-such-program"])) assert.fail("an event")
    }
    await rejection(SpawnFailed, looked())
    const web = sandbox.files.stream("/home/user/nothing").toReadableStream()
    await rejection(FileFailed, new Response(web).text())
  })

  it("refuses a place and a signal that are none", async () => {
    const nowhere: object = { backend: "cloud" }
    const place = await rejection(InvalidArgument, Sandbox.create(nowhere))
    assert.strictEqual(place.field, "backend")
    await using sandbox = await Sandbox.create(memory)
    const options: object = { signal: "SIGINT" }
    const signal = await rejection(InvalidArgument, sandbox.commands.run("true", options))
    assert.strictEqual(signal.field, "signal")
  })

  it("is named when it is an argument of the wrong type", async () => {
    await using sandbox = await Sandbox.create(memory)
    const mistaken: Promise<unknown> = Reflect.apply(sandbox.files.write, undefined, ["/home/user/a"])
    assert.strictEqual((await rejection(InvalidArgument, mistaken)).field, "content")
  })
})

describe("a process handle", () => {
  const events = async (process: Process) => {
    const tags: Array<string> = []
    for await (const { _tag } of process) tags.push(_tag)
    return tags
  }

  it("is written to, waited for and read", async () => {
    await using sandbox = await Sandbox.create(memory)
    const process = await sandbox.commands.start("cat", { stdin: true, processId: "cat" })
    await process.write("one ")
    await process.write(new TextEncoder().encode("two"))
    await process.closeStdin()
    assert.deepStrictEqual(await process.wait(), { _tag: "Exited", code: 0 })
    const tags = await events(process)
    assert.strictEqual(tags[0], "Started")
    assert.strictEqual(tags.at(-1), "Exited")
    const again = await sandbox.process.connect("cat")
    assert.strictEqual(again.pid, process.pid)
  })

  it("is killed and signalled", async () => {
    await using sandbox = await Sandbox.create(memory)
    const killed = await sandbox.process.start(["sleep", "1000"])
    await killed.kill()
    assert.deepStrictEqual(await killed.wait(), { _tag: "Signaled", signal: "SIGKILL", number: 9 })
    const signalled = await sandbox.process.start(["sleep", "1000"])
    await signalled.signal("SIGTERM")
    assert.deepStrictEqual(await signalled.wait(), { _tag: "Signaled", signal: "SIGTERM", number: 15 })
  })

  it("of a terminal shows its output and takes its size", async () => {
    await using sandbox = await Sandbox.create(memory)
    const pty = await sandbox.pty.open({ size: { cols: 80, rows: 24 }, argv: ["sh", "-c", "echo hello"] })
    await pty.resize({ cols: 100, rows: 30 })
    assert.include(await new Response(pty.output().toReadableStream()).text(), "hello")
    assert.deepStrictEqual(await pty.wait(), { _tag: "Exited", code: 0 })
  })
})
