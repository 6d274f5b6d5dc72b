/**
 * Programs that nobody wants any more, and what bounds them: whatever the
 * machine does meanwhile, they end.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { ProcessId, ReaderId } from "../../src/domain/Ids.ts"
import type { ProcessSpec } from "../../src/domain/Process.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import { MemoryFaults } from "../../src/layers/memory/MemoryFaults.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"

const ids = Layer.merge(SecureRandom.layerWebCrypto, Digest.layerWebCrypto)

type Misbehave = (faults: MemoryFaults["Service"]) => Effect.Effect<void>

/** A world with a sandbox, the service it has, and how the next one is started. */
const place = Effect.gen(function* () {
  const context = yield* Layer.build(Layer.fresh(Layer.merge(MemoryWorld.layer, MemorySandboxStore.layer)))
  const world = Context.get(context, MemoryWorld)
  /** A service, with a backend of its own in the same world. */
  const service = (misbehave: Misbehave = () => Effect.void) =>
    Effect.gen(function* () {
      const backend = yield* Layer.build(Layer.fresh(MemoryBackend.layerOn()))
      yield* misbehave(Context.get(backend, MemoryFaults))
      const client = yield* Layer.build(
        InProcess.client.pipe(
          Layer.provide(InProcess.actors({ onClose: "leave" })),
          Layer.provide(Layer.succeedContext(backend)),
          Layer.provide(ids),
          Layer.fresh
        )
      )
      return { client: Context.get(client, SandboxClient), faults: Context.get(backend, MemoryFaults) }
    }).pipe(Effect.provide(context))
  const scope = yield* Scope.fork(yield* Effect.scope)
  const { client, faults } = yield* Scope.provide(service(), scope)
  const { id: sandboxId } = yield* client.CreateSandbox({ request: {}, detached: true, lease: undefined })
  const die = Effect.andThen(world.crash, Scope.close(scope, Exit.void))
  /** The service dies, if it has not, and the next one finds what it left. */
  const next = (misbehave?: Misbehave) => Effect.andThen(die, service(misbehave))
  return { client, die, faults, next, sandboxId }
})

/** What a call fails with, while time passes. */
const failing = <A, E extends { readonly _tag: string }>(call: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkScoped(Effect.flip(call), { startImmediately: true })
    yield* TestClock.adjust("1 second")
    return (yield* Fiber.join(fiber))._tag
  })

const sleeper = (name: string, more: Partial<ProcessSpec> = {}): ProcessSpec => ({
  processId: ProcessId.make(name),
  argv: ["sleep", "100000"],
  ...more
})

type Client = SandboxClient["Service"]
type Id = Effect.Success<typeof place>["sandboxId"]

/** The programs that run. */
const alive = (client: Client, sandboxId: Id) =>
  Effect.map(client.ListProcesses({ sandboxId }), (list) =>
    list.filter(({ exit }) => exit === undefined).map(({ processId }) => String(processId))
  )

/** The programs that are told of as ended by their limits. */
const timedOut = (client: Client, sandboxId: Id) =>
  Effect.map(Stream.runCollect(client.FollowEvents({ sandboxId, once: true })), (events) =>
    events.flatMap(({ body }) => (body._tag === "ProcessTimedOut" ? [String(body.processId)] : []))
  )

describe("a start that is taken back", () => {
  it.effect("while the sandbox is paused is ended when it goes on, and refused if it comes then", () =>
    Effect.gen(function* () {
      const { client, sandboxId } = yield* place
      const running = sleeper("running")
      const late = sleeper("late")
      yield* client.StartProcess({ sandboxId, process: running })
      yield* client.ChangeStatus({ sandboxId, command: "pause" })
      yield* client.CancelProcess({ sandboxId, process: running })
      yield* client.CancelProcess({ sandboxId, process: late })
      yield* client.ChangeStatus({ sandboxId, command: "resume" })
      const refused = yield* Effect.flip(client.StartProcess({ sandboxId, process: late }))
      assert.deepInclude(refused, { _tag: "Conflict", kind: "process", id: "late" })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* alive(client, sandboxId), [])
      const still = yield* Effect.flip(client.StartProcess({ sandboxId, process: late }))
      assert.strictEqual(still._tag, "Conflict")
    }).pipe(Effect.scoped)
  )

  it.effect("is ended though the machine's answers are lost, and though it refuses again and again", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      const [lost, refused] = [sleeper("lost"), sleeper("refused")]
      yield* client.StartProcess({ sandboxId, process: lost })
      yield* client.StartProcess({ sandboxId, process: refused })
      yield* faults.inject("cancel", { _tag: "LoseReply" })
      assert.strictEqual(yield* failing(client.CancelProcess({ sandboxId, process: lost })), "Connection")
      yield* faults.inject("cancel", { _tag: "Refuse" }, { times: 5 })
      assert.strictEqual(
        yield* failing(client.CancelProcess({ sandboxId, process: refused })),
        "BackendFailed"
      )
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* alive(client, sandboxId), [])
    }).pipe(Effect.scoped)
  )

  it.effect("and was delayed on its way to the machine starts nothing", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      const process = sleeper("delayed")
      yield* faults.inject("spawn", { _tag: "Delay", duration: "1 minute" })
      const starting = yield* Effect.forkScoped(client.StartProcess({ sandboxId, process }), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 second")
      yield* client.CancelProcess({ sandboxId, process })
      yield* TestClock.adjust("2 minutes")
      const exit = yield* Fiber.await(starting)
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(yield* client.ListProcesses({ sandboxId }), [])
    }).pipe(Effect.scoped)
  )

  it.effect("is known again by who started it, though the sandbox's environment is another now", () =>
    Effect.gen(function* () {
      const { client, next, sandboxId } = yield* place
      const process = sleeper("mine", { env: { A: "1" } })
      yield* client.StartProcess({ sandboxId, process })
      yield* client.Update({ sandboxId, update: { env: { B: "2" } } })
      const { client: later } = yield* next()
      yield* later.CancelProcess({ sandboxId, process: { ...process, env: { A: "2" } } })
      assert.deepStrictEqual(yield* alive(later, sandboxId), ["mine"])
      yield* later.CancelProcess({ sandboxId, process })
      assert.deepStrictEqual(yield* alive(later, sandboxId), [])
    }).pipe(Effect.scoped)
  )

  it.effect("of another incarnation, or in a sandbox that is gone, is so already", () =>
    Effect.gen(function* () {
      const { client, sandboxId } = yield* place
      const process = sleeper("p")
      const { generation } = yield* client.StartProcess({ sandboxId, process })
      yield* client.ChangeStatus({ sandboxId, command: "restart" })
      yield* client.StartProcess({ sandboxId, process })
      yield* client.CancelProcess({ sandboxId, generation, process })
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["p"])
      yield* client.ChangeStatus({ sandboxId, command: "stop" })
      yield* client.CancelProcess({ sandboxId, process })
    }).pipe(Effect.scoped)
  )
})

describe("a time limit", () => {
  it.effect("begins when the start is accepted, whoever reads and however long the machine takes", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      yield* faults.inject("spawn", { _tag: "Delay", duration: "5 seconds" })
      const process = sleeper("slow", { timeoutMillis: 2000 })
      const starting = yield* Effect.forkScoped(client.StartProcess({ sandboxId, process }), {
        startImmediately: true
      })
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(starting)))
      assert.deepStrictEqual(yield* alive(client, sandboxId), [])
    }).pipe(Effect.scoped)
  )

  it.effect("ends a program whose start nobody heard of", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      yield* faults.inject("spawn", { _tag: "LoseReply" })
      const process = sleeper("unheard", { timeoutMillis: 2000 })
      assert.strictEqual(yield* failing(client.StartProcess({ sandboxId, process })), "Connection")
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["unheard"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* alive(client, sandboxId), [])
      assert.deepStrictEqual(yield* timedOut(client, sandboxId), ["unheard"])
    }).pipe(Effect.scoped)
  )

  it.effect("is tried again when the machine does not end the program at once", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      yield* client.StartProcess({ sandboxId, process: sleeper("p", { timeoutMillis: 2000 }) })
      yield* faults.inject("cancel", { _tag: "Refuse" }, { times: 3 })
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* alive(client, sandboxId), [])
      assert.deepStrictEqual(yield* timedOut(client, sandboxId), ["p"])
    }).pipe(Effect.scoped)
  )

  it.effect("that cannot be carried out is no use of the sandbox, whose idle limit passes meanwhile", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      yield* client.SetExpiry({ sandboxId, idle: { afterMillis: 60_000, action: "stop" } })
      yield* client.StartProcess({ sandboxId, process: sleeper("p", { timeoutMillis: 2000 }) })
      yield* faults.inject("cancel", { _tag: "Refuse" }, { times: Number.POSITIVE_INFINITY })
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* client.GetInfo({ sandboxId })).status, "stopped")
    }).pipe(Effect.scoped)
  )

  it.effect("is not another program's whose start was refused under its id", () =>
    Effect.gen(function* () {
      const { client, sandboxId } = yield* place
      yield* client.StartProcess({ sandboxId, process: sleeper("same") })
      const other = sleeper("same", { argv: ["sleep", "5"], timeoutMillis: 1000 })
      assert.strictEqual(
        (yield* Effect.flip(client.StartProcess({ sandboxId, process: other })))._tag,
        "Conflict"
      )
      yield* client.CancelProcess({ sandboxId, process: other })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* alive(client, sandboxId), ["same"])
    }).pipe(Effect.scoped)
  )

  it.effect("goes on with the next service where it was; time paused does not count for it either", () =>
    Effect.gen(function* () {
      const { client, next, sandboxId } = yield* place
      yield* client.StartProcess({ sandboxId, process: sleeper("p", { timeoutMillis: 10_000 }) })
      yield* TestClock.adjust("3 seconds")
      yield* client.ChangeStatus({ sandboxId, command: "pause" })
      yield* TestClock.adjust("1 hour")
      yield* client.ChangeStatus({ sandboxId, command: "resume" })
      yield* TestClock.adjust("3 seconds")
      const { client: later } = yield* next()
      yield* TestClock.adjust("3999 millis")
      assert.deepStrictEqual(yield* alive(later, sandboxId), ["p"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* alive(later, sandboxId), [])
    }).pipe(Effect.scoped)
  )

  it.effect("is known to the next service though the machine does not answer it at first", () =>
    Effect.gen(function* () {
      const { client, next, sandboxId } = yield* place
      yield* client.StartProcess({ sandboxId, process: sleeper("p", { timeoutMillis: 10_000 }) })
      const { client: later } = yield* next((faults) =>
        faults.inject("processes", { _tag: "Refuse" }, { times: 3 })
      )
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual(yield* alive(later, sandboxId), [])
    }).pipe(Effect.scoped)
  )

  it.effect("is kept by the machine, a second later, when the service has died and none comes", () =>
    Effect.gen(function* () {
      const { client, die, next, sandboxId } = yield* place
      yield* client.StartProcess({ sandboxId, process: sleeper("p", { timeoutMillis: 10_000 }) })
      yield* client.StartProcess({ sandboxId, process: sleeper("free") })
      yield* TestClock.adjust("5 seconds")
      yield* die
      yield* TestClock.adjust("6 seconds")
      const { client: later } = yield* next()
      assert.deepStrictEqual(yield* alive(later, sandboxId), ["free"])
    }).pipe(Effect.scoped)
  )
})

describe("a machine that does not answer", () => {
  const mute = (faults: MemoryFaults["Service"]) =>
    Effect.forEach(
      ["spawn", "attach", "processes", "signal", "kill", "cancel", "limit", "stdin", "files"] as const,
      (point) => faults.inject(point, { _tag: "Hang" }, { times: Number.POSITIVE_INFINITY }),
      { discard: true }
    )
  const reason = "the machine did not answer within 25000 ms"

  /** What is told of the ends of the sandbox's machines. */
  const deaths = (client: Client, sandboxId: Id) =>
    Effect.map(Stream.runCollect(client.FollowEvents({ sandboxId, once: true })), (events) =>
      events.flatMap(({ body }) => (body._tag === "MachineDied" ? [body.reason] : []))
    )

  const attach = { maxOutputBytes: 1024 }

  for (const how of ["run", "exec", "attach"] as const) {
    it.effect(
      `is ended with a program whose time has passed, and whoever reads that (${how}) is told so`,
      () =>
        Effect.gen(function* () {
          const { client, faults, sandboxId } = yield* place
          const process = sleeper("p", { timeoutMillis: 4000 })
          const read = Effect.gen(function* () {
            if (how === "exec") {
              return yield* client.ExecProcess({
                sandboxId,
                process,
                attach: { ...attach, reader: ReaderId.make("r") }
              })
            }
            if (how === "run")
              return yield* Stream.runCollect(client.RunProcess({ sandboxId, process, attach }))
            const { processId } = yield* client.StartProcess({ sandboxId, process })
            return yield* Stream.runCollect(client.AttachProcess({ sandboxId, processId, attach }))
          })
          const reading = yield* Effect.forkScoped(Effect.flip(read), { startImmediately: true })
          yield* TestClock.adjust("1 second")
          yield* mute(faults)
          yield* TestClock.adjust("32999 millis")
          assert.isUndefined(reading.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          const error = yield* Fiber.join(reading)
          assert.deepInclude(error, { _tag: "Timeout", limit: "command", millis: 4000, outcome: "unknown" })
          const { status, reason: why } = yield* client.GetInfo({ sandboxId })
          assert.deepStrictEqual([status, why], ["failed", reason])
          assert.deepStrictEqual(yield* deaths(client, sandboxId), [reason])
        }).pipe(Effect.scoped)
    )
  }

  for (const how of ["cancel", "kill"] as const) {
    it.effect(
      `is ended with a program that somebody wants to end (${how}), and its policy starts another`,
      () =>
        Effect.gen(function* () {
          const { client, faults } = yield* place
          const restartPolicy = { _tag: "Always", initialMillis: 1000, factor: 1, maxMillis: 1000 } as const
          const created = yield* client.CreateSandbox({
            request: { restartPolicy },
            detached: true,
            lease: undefined
          })
          const sandboxId = created.id
          const process = sleeper("p")
          const { processId } = yield* client.StartProcess({ sandboxId, process })
          yield* mute(faults)
          const ending = yield* Effect.forkScoped(
            how === "cancel"
              ? client.CancelProcess({ sandboxId, process })
              : client.KillProcess({ sandboxId, processId }),
            { startImmediately: true }
          )
          yield* TestClock.adjust("30 seconds")
          yield* Fiber.join(ending)
          yield* faults.clear
          yield* TestClock.adjust("10 seconds")
          const { generation, status } = yield* client.GetInfo({ sandboxId })
          assert.deepStrictEqual([status, generation], ["running", 2])
          assert.deepStrictEqual(yield* alive(client, sandboxId), [])
          assert.deepStrictEqual(yield* deaths(client, sandboxId), [reason])
        }).pipe(Effect.scoped)
    )
  }

  it.effect(
    "because it is paused lives on, and so does one that answers though it cannot end a program",
    () =>
      Effect.gen(function* () {
        const { client, faults, sandboxId } = yield* place
        const process = sleeper("p", { timeoutMillis: 4000 })
        yield* client.StartProcess({ sandboxId, process })
        yield* client.StartProcess({ sandboxId, process: sleeper("other") })
        yield* faults.inject("cancel", { _tag: "Hang" }, { times: 3 })
        yield* TestClock.adjust("10 seconds")
        yield* client.ChangeStatus({ sandboxId, command: "pause" })
        yield* TestClock.adjust("1 hour")
        yield* client.ChangeStatus({ sandboxId, command: "resume" })
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(yield* alive(client, sandboxId), ["other"])
        assert.deepStrictEqual(yield* timedOut(client, sandboxId), ["p"])
        assert.deepStrictEqual(yield* deaths(client, sandboxId), [])
      }).pipe(Effect.scoped)
  )

  it.effect("or answers, and cannot end a program at the fourth attempt either, is ended with it", () =>
    Effect.gen(function* () {
      const { client, faults, sandboxId } = yield* place
      yield* client.StartProcess({ sandboxId, process: sleeper("p", { timeoutMillis: 4000 }) })
      yield* faults.inject("cancel", { _tag: "Hang" }, { times: Number.POSITIVE_INFINITY })
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(yield* deaths(client, sandboxId), ["the machine could not end a program"])
      assert.strictEqual((yield* client.GetInfo({ sandboxId })).status, "failed")
    }).pipe(Effect.scoped)
  )
})
