/**
 * Calls that are given up at any moment, over every way there is to a sandbox:
 * a second later nothing of them runs. `FIBERBOX_INTERRUPTS` says how many of
 * each kind over each way.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import { Config, Context, Effect, Exit, Fiber, Layer, Option, Random, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { SandboxesClient } from "../../src/client.ts"
import { Container } from "../../src/container.ts"
import { Fiberbox } from "../../src/promise.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRunContainers } from "../canRunContainers.ts"
import { aliceToken, onlyAlice, serving } from "../rpc/support.ts"

const counts = Effect.gen(function* () {
  const wanted = yield* Config.option(Config.Int("FIBERBOX_INTERRUPTS"))
  return Option.getOrElse(wanted, () => 12)
})

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "fb-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A service of containers, reached in the same process and over a connection. */
const start = Effect.gen(function* () {
  const baseDir = yield* temporary
  const service = InProcess.client.pipe(
    Layer.provide(InProcess.actors({ onClose: "kill" })),
    Layer.provide(Container.parts({ baseDir }))
  )
  const inside = Sandboxes.layer.pipe(Layer.provide(SecureRandom.layerWebCrypto), Layer.provideMerge(service))
  const context = yield* Layer.build(serving().pipe(Layer.provideMerge(Layer.merge(inside, onlyAlice))))
  const { url } = Context.get(context, Server.ServerAddress)
  const reach = (transport: "websocket" | "http") =>
    Effect.map(Layer.build(SandboxesClient.layer({ url, token: aliceToken, transport })), (context) =>
      Context.get(context, Sandboxes)
    )
  return { url, inside: Context.get(context, Sandboxes), reach }
})

/** How many living processes of this machine have a text in their command line. */
const running = (marker: string): number =>
  readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      return readFileSync(`/proc/${name}/cmdline`, "latin1").includes(marker)
    } catch {
      return false
    }
  }).length

/** No other program of this machine is called so. */
const newMarker = Effect.map(
  Random.nextIntBetween(100_000, 999_999),
  (number) => `300.${process.pid}${number}`
)

/** What is given up: a call, and what ends the program of one that was faster. */
interface Kind {
  readonly name: string
  readonly call: (sandbox: Sandbox, marker: string) => Effect.Effect<Effect.Effect<unknown, unknown>, unknown>
}

const kinds: ReadonlyArray<Kind> = [
  {
    name: "run",
    call: (sandbox, marker) =>
      Effect.as(sandbox.process.run(["sleep", marker], { timeoutMillis: "none" }), Effect.void)
  },
  {
    name: "run with standard input",
    call: (sandbox, marker) =>
      Effect.as(sandbox.process.run(["sleep", marker], { timeoutMillis: "none", stdin: "x" }), Effect.void)
  },
  {
    name: "stream",
    call: (sandbox, marker) =>
      Effect.as(
        Stream.runDrain(
          sandbox.commands.stream(`sleep ${marker} & setsid sleep ${marker}`, { timeoutMillis: "none" })
        ),
        Effect.void
      )
  },
  {
    name: "start",
    call: (sandbox, marker) => Effect.map(sandbox.process.start(["sleep", marker]), (process) => process.kill)
  },
  {
    name: "pty.open",
    call: (sandbox, marker) =>
      Effect.map(
        sandbox.pty.open({ argv: ["sleep", marker], size: { rows: 24, cols: 80 }, background: true }),
        (pty) => pty.kill
      )
  }
]

/** Gives a call up after 0 to 8 ms; one that was faster has its program ended by its handle. */
const giveUp = Effect.fnUntraced(function* (kind: Kind, sandbox: Sandbox, marker: string) {
  const fiber = yield* Effect.forkChild(kind.call(sandbox, marker))
  yield* Effect.sleep(yield* Random.nextBetween(0, 8))
  yield* Fiber.interrupt(fiber)
  const exit = yield* Fiber.await(fiber)
  if (Exit.isSuccess(exit)) yield* exit.value
  else assert.isTrue(Exit.hasInterrupts(exit), "it failed by itself")
})

describe.runIf(canRunContainers)("a call that is given up at any moment", () => {
  for (const way of ["in process", "websocket", "http"] as const) {
    it.live(
      `leaves nothing that runs a second later, ${way === "in process" ? way : `over ${way}`}`,
      () =>
        Effect.gen(function* () {
          const count = yield* counts
          const { inside, reach } = yield* start
          const sandboxes = way === "in process" ? inside : yield* reach(way)
          const sandbox = yield* sandboxes.create()
          const left: Record<string, number> = {}
          for (const kind of kinds) {
            const marker = yield* newMarker
            yield* Effect.forEach(
              Array.from({ length: count }, (_, index) => index),
              () => giveUp(kind, sandbox, marker),
              { concurrency: 4, discard: true }
            )
            // What is promised is a time.
            yield* Effect.sleep("1 second")
            left[kind.name] = running(marker)
          }
          assert.deepStrictEqual(left, Object.fromEntries(kinds.map(({ name }) => [name, 0])))
        }).pipe(Effect.scoped),
      3_600_000
    )
  }

  it.live(
    "leaves nothing that runs a second later, of promises whose signal is aborted",
    () =>
      Effect.gen(function* () {
        const count = yield* counts
        const { url } = yield* start
        const marker = yield* newMarker
        const delays = yield* Effect.forEach(Array.from({ length: count }), () => Random.nextBetween(0, 8))
        yield* Effect.promise(async () => {
          await using fiberbox = await Fiberbox.open({ url, token: aliceToken })
          await using sandbox = await fiberbox.create()
          for (const delay of delays) {
            const calls = (signal: AbortSignal) => [
              sandbox.process.run(["sleep", marker], { timeoutMillis: "none", signal }),
              sandbox.process.start(["sleep", marker], { signal }).then((process) => process.kill()),
              sandbox.pty
                .open({ argv: ["sleep", marker], size: { rows: 24, cols: 80 }, background: true }, { signal })
                .then((pty) => pty.kill())
            ]
            const controller = new AbortController()
            const settled = Promise.allSettled(calls(controller.signal))
            await setTimeout(delay)
            controller.abort()
            await settled
          }
          await setTimeout(1000)
          assert.strictEqual(running(marker), 0)
        })
      }).pipe(Effect.scoped),
    3_600_000
  )
})
