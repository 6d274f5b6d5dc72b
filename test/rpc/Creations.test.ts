/**
 * Creations that are given up: at any moment and over every way, nothing is left.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Random,
  Scheduler,
  type Scope
} from "effect"
import { SecureRandom } from "effect/crypto"
import { SandboxesClient } from "../../src/client.ts"
import { Connection } from "../../src/domain/Errors.ts"
import { AttemptId, IdempotencyKey } from "../../src/domain/Ids.ts"
import { Memory } from "../../src/memory.ts"
import { Fiberbox } from "../../src/promise.ts"
import { Server } from "../../src/server.ts"
import { CallerLease, SandboxClient } from "../../src/services/SandboxClient.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { aliceToken, memory, onlyAlice, serving } from "./support.ts"

const interrupts = Effect.map(Config.option(Config.Int("FIBERBOX_INTERRUPTS")), (count) =>
  Option.getOrElse(count, () => 100)
)

/** `Sandboxes` of whom the test is about, and of somebody who looks. */
interface Way {
  readonly url: string
  readonly sandboxes: Sandboxes["Service"]
  readonly witness: Sandboxes["Service"]
}

const overConnection = Effect.fnUntraced(function* (transport: "websocket" | "http") {
  const context = yield* Layer.build(serving().pipe(Layer.provide(Layer.merge(memory, onlyAlice))))
  const { url } = Context.get(context, Server.ServerAddress)
  const reach = Effect.map(
    Layer.build(Layer.fresh(SandboxesClient.layer({ url, token: aliceToken, transport }))),
    (context) => Context.get(context, Sandboxes)
  )
  return { url, sandboxes: yield* reach, witness: yield* reach } satisfies Way
})

const inProcess = Effect.map(Layer.build(Memory.layer()), (context) => {
  const sandboxes = Context.get(context, Sandboxes)
  return { url: "", sandboxes, witness: sandboxes } satisfies Way
})

const ways: ReadonlyArray<readonly [name: string, way: Effect.Effect<Way, unknown, Scope.Scope>]> = [
  ["in process", inProcess],
  ["over WebSocket", overConnection("websocket")],
  ["over HTTP", overConnection("http")]
]

/**
 * At once for the first of every twelve rounds, before anything has begun; then after some turns of the
 * event loop, for what ends within this process, or some milliseconds, for what crosses a connection.
 */
const moment = Effect.fnUntraced(function* (round: number) {
  const at = round % 12
  if (at < 6) return yield* Effect.replicateEffect(Effect.yieldNow, at * 5, { discard: true })
  yield* Effect.sleep(at - 5 - (yield* Random.next))
})

/** What never waits would run to its end at once: it gives way every few steps instead, so that it can be met half-way. */
const givingWay = Effect.provideService(Scheduler.MaxOpsBeforeYield, 20)

/** Nothing is left a second later. */
const nothingLeft = (witness: Sandboxes["Service"], what: string) =>
  Effect.gen(function* () {
    yield* Effect.sleep("1 second")
    const { sandboxes } = yield* witness.list({ limit: 1000 })
    assert.strictEqual(sandboxes.length, 0, what)
  })

describe("a creation that is interrupted at a random moment leaves nothing", () => {
  for (const [name, way] of ways) {
    it.live(
      name,
      () =>
        Effect.gen(function* () {
          const { sandboxes, witness } = yield* way
          const times = yield* interrupts
          let interrupted = 0
          let handedOut = 0
          for (let round = 0; round < times; round++) {
            const creating = yield* Effect.forkChild(sandboxes.createDetached())
            const held = Effect.andThen(sandboxes.create(), () => {
              handedOut++
              return Effect.never
            })
            const scoped = yield* Effect.forkChild(givingWay(Effect.scoped(held)))
            yield* moment(round)
            yield* Effect.all([Fiber.interrupt(creating), Fiber.interrupt(scoped)], { concurrency: 2 })
            const exit = yield* Fiber.await(creating)
            if (Exit.isSuccess(exit)) yield* exit.value.kill
            else interrupted++
          }
          assert.isAbove(interrupted, 0)
          assert.isBelow(handedOut, times)
          yield* nothingLeft(witness, `after ${interrupted} interrupts of createDetached`)
        }).pipe(Effect.scoped),
      600_000
    )
  }

  for (const method of ["create", "createDetached"] as const) {
    it.live(
      `with the signal of a promise: ${method}`,
      () =>
        Effect.gen(function* () {
          const { url, witness } = yield* overConnection("websocket")
          const times = yield* interrupts
          const fiberbox = yield* Effect.acquireRelease(
            Effect.promise(() => Fiberbox.open({ url, token: aliceToken })),
            (fiberbox) => Effect.promise(fiberbox.close)
          )
          for (let round = 0; round < times; round++) {
            const controller = new AbortController()
            const made = fiberbox[method]({ signal: controller.signal }).then(
              (sandbox) => sandbox.kill(),
              () => {}
            )
            yield* moment(round)
            controller.abort()
            yield* Effect.promise(() => made)
          }
          yield* nothingLeft(witness, `after ${times} aborted calls of ${method}`)
        }).pipe(Effect.scoped),
      600_000
    )
  }
})

const ids = SecureRandom.layerWebCrypto
const answerLost = new Connection({ reason: "the answer was lost", outcome: "unknown" })
const attempt = AttemptId.make("an-attempt-of-a-test")
const contract = Effect.map(Layer.build(memory), (context) => Context.get(context, SandboxClient))

describe("an attempt to create a sandbox", () => {
  it.live("that was cancelled before it arrives is refused", () =>
    Effect.gen(function* () {
      const client = yield* contract
      yield* client.CancelCreate({ attempt })
      const error = yield* Effect.flip(client.CreateSandbox({ request: {}, detached: true, attempt }))
      assert.deepStrictEqual([error._tag, error.outcome], ["Conflict", "not-started"])
      yield* client.CreateSandbox({
        request: {},
        detached: true,
        attempt: AttemptId.make("another-attempt-of-it")
      })
    }).pipe(Effect.scoped)
  )

  it.live("is gone once it was cancelled after it had succeeded, and its key is free", () =>
    Effect.gen(function* () {
      const client = yield* contract
      const idempotencyKey = IdempotencyKey.make("mine")
      const creation = { request: { idempotencyKey }, detached: true, attempt }
      const { id } = yield* client.CreateSandbox(creation)
      yield* client.CancelCreate({ attempt, idempotencyKey })
      assert.strictEqual((yield* client.FindSandbox({ idOrName: id })).status, "killed")
      const again = yield* client.CreateSandbox({
        ...creation,
        attempt: AttemptId.make("another-attempt-of-it")
      })
      assert.notStrictEqual(again.id, id)
      assert.strictEqual(again.status, "running")
    }).pipe(Effect.scoped)
  )

  it.live("that found the sandbox of another with its key leaves it alone when it is cancelled", () =>
    Effect.gen(function* () {
      const client = yield* contract
      const idempotencyKey = IdempotencyKey.make("shared")
      const creation = { request: { idempotencyKey }, detached: true }
      const { id } = yield* client.CreateSandbox({ ...creation, attempt })
      const second = AttemptId.make("another-attempt-of-it")
      assert.strictEqual((yield* client.CreateSandbox({ ...creation, attempt: second })).id, id)
      yield* client.CancelCreate({ attempt: second, idempotencyKey })
      assert.strictEqual((yield* client.GetInfo({ sandboxId: id })).status, "running")
    }).pipe(Effect.scoped)
  )

  it.live("that is repeated returns the same sandbox, and says so when that was killed since", () =>
    Effect.gen(function* () {
      const client = yield* contract
      const creation = { request: {}, detached: true, attempt }
      const { id } = yield* client.CreateSandbox(creation)
      assert.strictEqual((yield* client.CreateSandbox(creation)).id, id)
      yield* client.ChangeStatus({ sandboxId: id, command: "kill" })
      const error = yield* Effect.flip(client.CreateSandbox(creation))
      assert.deepStrictEqual([error._tag, error.outcome], ["SandboxFailed", "completed"])
    }).pipe(Effect.scoped)
  )
})

describe("a creation whose answer is lost for good", () => {
  it.live("is taken back as soon as the service can be reached", () =>
    Effect.gen(function* () {
      const client = yield* contract
      const lost = yield* Deferred.make<void>()
      const unreachable = SandboxClient.of({
        ...client,
        CreateSandbox: (payload) => Effect.andThen(client.CreateSandbox(payload), Effect.fail(answerLost)),
        CancelCreate: (payload) =>
          Effect.tap(client.CancelCreate(payload), () => Deferred.succeed(lost, undefined))
      })
      const sandboxes = Context.get(
        yield* Layer.build(
          Sandboxes.layer.pipe(
            Layer.provide(Layer.succeed(SandboxClient, unreachable)),
            Layer.provide(Layer.succeed(CallerLease, undefined)),
            Layer.provide(ids)
          )
        ),
        Sandboxes
      )
      assert.strictEqual((yield* Effect.flip(sandboxes.createDetached()))._tag, "Connection")
      yield* Deferred.await(lost)
      assert.deepStrictEqual((yield* client.ListSandboxes({})).sandboxes, [])
    }).pipe(Effect.scoped)
  )
})
