import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { SandboxEvent } from "../../src/domain/Event.ts"
import type { RestartPolicy } from "../../src/domain/Sandbox.ts"
import { Memory, MemoryFaults } from "../../src/memory.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, service, temporary } from "../container/support.ts"

const onFailure = (maxRestarts: number): RestartPolicy => ({
  _tag: "OnFailure",
  maxRestarts,
  initialMillis: 100,
  factor: 2,
  maxMillis: 60_000
})
const always: RestartPolicy = { _tag: "Always", initialMillis: 100, factor: 4, maxMillis: 1_000 }

/** Events in one line each. */
const told = ({ body }: SandboxEvent): string => {
  switch (body._tag) {
    case "StatusChanged":
      return `${body.from} > ${body.to}`
    case "RestartScheduled":
      return `restart ${body.attempt} in ${body.delayMillis}`
    default:
      return body._tag
  }
}

const events = (sandbox: Sandbox) =>
  Effect.map(Stream.runCollect(sandbox.events({ once: true })), (all) => all.map(told))

const crash = (sandbox: Sandbox, reason = "crashed") =>
  Effect.andThen(
    MemoryFaults.use((faults) => faults.killMachine(sandbox.id, { reason })),
    // The actor hears of it in turns of its own, which take no time.
    TestClock.adjust(0)
  )

const status = (sandbox: Sandbox) => Effect.map(sandbox.info, (info) => info.status)

const promise = <E>(name: string, body: Effect.Effect<void, E, Sandboxes | MemoryFaults>) =>
  it.effect(name, () => Effect.provide(body, Memory.layer()))

describe("a machine that dies, in memory,", () => {
  promise(
    "is started again after growing waits, and given up after as many as the policy allows",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: onFailure(3) })
      for (const wait of [100, 200, 400]) {
        yield* crash(sandbox)
        yield* TestClock.adjust(wait - 1)
        assert.strictEqual(yield* status(sandbox), "failed", `${wait} ms have not passed`)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* status(sandbox), "running", `${wait} ms have passed`)
      }
      yield* crash(sandbox, "the last straw")
      yield* TestClock.adjust("1 day")
      const { reason, restarts, generation, status: now } = yield* sandbox.info
      assert.deepStrictEqual([now, reason, restarts, generation], ["failed", "the last straw", 3, 4])
      assert.deepStrictEqual(yield* events(sandbox), [
        "Created",
        "provisioning > running",
        ...[1, 2, 3].flatMap((attempt) => [
          "MachineDied",
          "running > failed",
          `restart ${attempt} in ${100 * 2 ** (attempt - 1)}`,
          "failed > provisioning",
          "provisioning > running"
        ]),
        "MachineDied",
        "running > failed"
      ])
    })
  )

  promise(
    "for ever is started again for ever, never later than the longest wait",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: always })
      const waits: Array<string> = []
      for (let n = 0; n < 6; n++) {
        yield* crash(sandbox)
        waits.push((yield* events(sandbox)).at(-1) ?? "")
        yield* TestClock.adjust(1_000 - 1)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* status(sandbox), "running")
      }
      assert.deepStrictEqual(waits.slice(0, 4), [
        "restart 1 in 100",
        "restart 2 in 400",
        "restart 3 in 1000",
        "restart 4 in 1000"
      ])
    })
  )

  promise(
    "after it has run for the longest wait is started as if it had never died before",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: always })
      yield* crash(sandbox)
      yield* TestClock.adjust(100)
      yield* TestClock.adjust(1_000)
      yield* crash(sandbox)
      assert.strictEqual((yield* events(sandbox)).at(-1), "restart 1 in 100")
    })
  )

  promise(
    "stays dead where the policy says never",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached()
      yield* crash(sandbox, "it was tired")
      yield* TestClock.adjust("1 day")
      const info = yield* sandbox.info
      assert.deepStrictEqual([info.status, info.reason, info.restarts], ["failed", "it was tired", 0])
      const error = yield* Effect.flip(sandbox.waitForReady({ timeoutMillis: 1_000 }))
      assert.deepInclude(error, { _tag: "SandboxFailed", reason: "it was tired" })
    })
  )

  promise(
    "takes the calls under way with it, as typed failures, and old handles know the new one",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: onFailure(1) })
      const process = yield* sandbox.process.start(["sleep", "1000"])
      const running = yield* Effect.forkChild(
        Effect.flip(sandbox.process.run(["sleep", "1000"], { timeoutMillis: "none" }))
      )
      yield* TestClock.adjust(0)
      yield* crash(sandbox, "pulled the plug")
      yield* TestClock.adjust(250)
      const error = yield* Fiber.join(running)
      assert.deepInclude(error, { _tag: "SandboxFailed" })
      yield* TestClock.adjust(100)
      assert.strictEqual((yield* Effect.flip(process.kill))._tag, "GenerationChanged")
      assert.strictEqual((yield* sandbox.commands.run("echo alive")).stdout, "alive\n")
    })
  )

  promise(
    "is not started again once somebody has killed its sandbox",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: always })
      yield* crash(sandbox)
      yield* sandbox.kill
      yield* TestClock.adjust("1 hour")
      const page = yield* Sandboxes.list({ statuses: ["killed"] })
      assert.deepStrictEqual(
        page.sandboxes.map(({ id, generation }) => [id, generation]),
        [[sandbox.id, 1]]
      )
    })
  )

  promise(
    "and was given up can be started by hand, with all its restarts before it again",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: onFailure(1) })
      yield* crash(sandbox)
      yield* TestClock.adjust(100)
      yield* crash(sandbox)
      assert.strictEqual(yield* status(sandbox), "failed")
      yield* sandbox.start
      assert.deepInclude(yield* sandbox.info, { status: "running", restarts: 0 })
      yield* crash(sandbox)
      assert.strictEqual((yield* events(sandbox)).at(-1), "restart 1 in 100")
    })
  )
})

describe("a machine that cannot start, in memory,", () => {
  const refuse = (times: number) =>
    MemoryFaults.use((faults) => faults.inject("provision", { _tag: "Refuse", reason: "no room" }, { times }))

  promise(
    "is tried again like one that died, and runs when it can",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: onFailure(5) })
      yield* refuse(2)
      yield* crash(sandbox)
      yield* TestClock.adjust(100)
      yield* TestClock.adjust(200)
      assert.strictEqual(yield* status(sandbox), "failed")
      yield* TestClock.adjust(400)
      assert.strictEqual(yield* status(sandbox), "running")
      assert.deepStrictEqual((yield* events(sandbox)).slice(2), [
        "MachineDied",
        "running > failed",
        "restart 1 in 100",
        "failed > provisioning",
        "provisioning > failed",
        "restart 2 in 200",
        "failed > provisioning",
        "provisioning > failed",
        "restart 3 in 400",
        "failed > provisioning",
        "provisioning > running"
      ])
    })
  )

  promise(
    "leaves its sandbox failed in the end, with the reason, and those who wait for it hear so",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached({ restartPolicy: onFailure(2) })
      yield* refuse(Number.POSITIVE_INFINITY)
      yield* crash(sandbox)
      const waiting = yield* Effect.forkChild(Effect.flip(sandbox.waitForReady({ timeoutMillis: 60_000 })))
      yield* TestClock.adjust(100)
      yield* TestClock.adjust(200)
      yield* TestClock.adjust("1 day")
      const { reason, restarts, status: now } = yield* sandbox.info
      assert.deepStrictEqual([now, restarts], ["failed", 2])
      assert.include(reason, "no room")
      const error = yield* Fiber.join(waiting)
      assert.isTrue(error._tag === "SandboxFailed" && error.reason.includes("no room"))
    })
  )

  promise(
    "after it was stopped makes its sandbox failed, and the caller hears the reason",
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached()
      yield* sandbox.stop()
      yield* refuse(1)
      const error = yield* Effect.flip(sandbox.start)
      assert.include(error.message, "no room")
      const info = yield* sandbox.info
      assert.strictEqual(info.status, "failed")
      assert.include(info.reason, "no room")
      yield* sandbox.start
      assert.deepInclude(yield* sandbox.info, { status: "running", reason: undefined })
    })
  )

  promise(
    "at its creation leaves no sandbox at all",
    Effect.gen(function* () {
      yield* refuse(1)
      const error = yield* Effect.flip(Sandboxes.createDetached({ name: "box" }))
      assert.include(error.message, "no room")
      assert.deepStrictEqual((yield* Sandboxes.list()).sandboxes, [])
      const again = yield* Sandboxes.createDetached({ name: "box" })
      assert.strictEqual(yield* status(again), "running")
    })
  )
})

describe.runIf(canRun)("a container that is killed", () => {
  const small = { limits: { memoryBytes: 64 * 1024 * 1024, diskBytes: 16 * 1024 * 1024 } }

  /** Ends a container as the kernel would: its first process, at once. */
  const killContainer = Effect.fnUntraced(function* (base: string, sandbox: Sandbox) {
    const fs = yield* FileSystem.FileSystem
    const directory = `${base}/state/s/${sandbox.id.slice("sb_".length)}`
    process.kill(Number(yield* fs.readFileString(`${directory}/pid`)), "SIGKILL")
  })

  /** The next change to a status. */
  const becomes = (sandbox: Sandbox, from: string, to: string, times: number) =>
    sandbox.events().pipe(
      Stream.filter((event) => told(event) === `${from} > ${to}`),
      Stream.take(times),
      Stream.runDrain
    )

  it.live(
    "is replaced with its files as they were, as often as its policy says, and then failed for good",
    () =>
      Effect.gen(function* () {
        const base = yield* temporary
        yield* Effect.gen(function* () {
          const sandbox = yield* Sandboxes.createDetached({
            ...small,
            restartPolicy: {
              _tag: "OnFailure",
              maxRestarts: 2,
              initialMillis: 20,
              factor: 3,
              maxMillis: 60_000
            }
          })
          yield* sandbox.files.write("/home/user/kept", "still here")
          for (const attempt of [1, 2]) {
            yield* killContainer(base, sandbox)
            yield* becomes(sandbox, "provisioning", "running", attempt + 1)
            assert.strictEqual((yield* sandbox.commands.run("cat kept")).stdout, "still here")
            const { generation, restarts } = yield* sandbox.info
            assert.deepStrictEqual([restarts, Number(generation)], [attempt, attempt + 1])
          }
          yield* killContainer(base, sandbox)
          yield* becomes(sandbox, "running", "failed", 3)
          const info = yield* sandbox.info
          assert.deepStrictEqual([info.status, info.reason], ["failed", "the machine's agent ended"])
          assert.deepStrictEqual(
            (yield* events(sandbox)).filter((event) => event.startsWith("restart")),
            ["restart 1 in 20", "restart 2 in 60"]
          )
          yield* sandbox.kill
        }).pipe(Effect.provide(service(base)))
        assert.deepStrictEqual(yield* remains(base), [])
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.live("and cannot start again leaves its sandbox failed, with the reason", () =>
    Effect.gen(function* () {
      const base = yield* temporary
      yield* Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const sandbox = yield* Sandboxes.createDetached({
          ...small,
          restartPolicy: {
            _tag: "OnFailure",
            maxRestarts: 1,
            initialMillis: 20,
            factor: 1,
            maxMillis: 60_000
          }
        })
        const disk = `${base}/state/s/${sandbox.id.slice("sb_".length)}/disk.ext4`
        // Another file in its place, that is no disk: the running machine keeps its own.
        yield* fs.writeFileString(`${disk}.none`, "")
        yield* fs.rename(`${disk}.none`, disk)
        yield* killContainer(base, sandbox)
        yield* becomes(sandbox, "provisioning", "failed", 1)
        const info = yield* sandbox.info
        assert.deepStrictEqual([info.status, info.restarts], ["failed", 1])
        assert.isNotEmpty(info.reason ?? "")
        yield* sandbox.kill
      }).pipe(Effect.provide(service(base)))
      assert.deepStrictEqual(yield* remains(base), [])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
