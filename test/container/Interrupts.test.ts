/**
 * Calls that are given up at any moment, over every way there is to a sandbox:
 * a second later nothing of them runs. `FIBERBOX_INTERRUPTS` says how many of
 * each kind over each way.
 */
import { readdirSync, readFileSync } from "node:fs"
import { setTimeout } from "node:timers/promises"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Exit, Fiber, Option, Random, Stream } from "effect"
import { Fiberbox } from "../../src/promise.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { aliceToken } from "../rpc/support.ts"
import { canRun, served, temporary } from "./support.ts"

const counts = Effect.gen(function* () {
  const wanted = yield* Config.option(Config.Int("FIBERBOX_INTERRUPTS"))
  return Option.getOrElse(wanted, () => 12)
})

const start = Effect.flatMap(temporary, (base) => served(base)).pipe(Effect.provide(NodeServices.layer))

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

describe.runIf(canRun)("a call that is given up at any moment", () => {
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
