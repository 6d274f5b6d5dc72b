/**
 * Agents that stand still, as processes that were stopped do: what was to end in
 * their sandboxes ends all the same, from outside.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Random, Result, Schedule, Stream } from "effect"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, processesIn, remains, service, temporary } from "./support.ts"

type Argv = readonly ["sleep", string]

/** What is asked of a program that never ends by itself, and what comes of it when its agent stands still. */
interface Kind {
  readonly name: string
  readonly ask: (sandbox: Sandbox, argv: Argv) => Effect.Effect<unknown, unknown>
}

const timeoutMillis = 2_000

/** Calls of which the program's limit makes an end. */
const limited: ReadonlyArray<Kind> = [
  { name: "run", ask: ({ process }, argv) => process.run(argv, { timeoutMillis }) },
  { name: "stream", ask: ({ process }, argv) => Stream.runDrain(process.stream(argv, { timeoutMillis })) },
  {
    name: "start",
    ask: ({ process }, argv) => Effect.flatMap(process.start(argv, { timeoutMillis }), ({ exit }) => exit)
  },
  {
    name: "pty",
    ask: ({ pty }, argv) =>
      Effect.flatMap(pty.open({ argv, size: { rows: 24, cols: 80 }, timeoutMillis }), ({ exit }) => exit)
  }
]

const reason = "the machine did not answer within 25000 ms"

describe.runIf(canRun)("an agent that stands still", () => {
  it.live(
    "keeps no program from its end: neither by its limit nor because somebody wants it",
    () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const base = yield* temporary
        yield* Effect.gen(function* () {
          const sandboxes = yield* Sandboxes
          /** Stops the agent of a sandbox as soon as its program runs. */
          const freeze = ({ id }: Sandbox, [, time]: Argv) =>
            processesIn(id.slice(3)).pipe(
              Effect.repeat({
                schedule: Schedule.spaced("5 millis"),
                until: (found) => found.includes(`sleep ${time}`)
              }),
              Effect.andThen(fs.readFileString(`${base}/state/s/${id.slice(3)}/pid`)),
              Effect.map((pid) => process.kill(Number(pid), "SIGSTOP"))
            )
          /** The program and its agent are gone, and the record says why. */
          const isOver = Effect.fnUntraced(function* ({ id }: Sandbox, name: string) {
            const info = yield* Effect.repeat(sandboxes.get(id), {
              schedule: Schedule.spaced("5 millis"),
              until: ({ status }) => status === "failed"
            })
            assert.strictEqual(info.reason, reason, name)
            assert.deepStrictEqual(yield* processesIn(id.slice(3)), [], name)
          })
          const newArgv = Effect.map(
            Random.nextIntBetween(100_000, 999_999),
            (number): Argv => ["sleep", `${number}`]
          )
          const byLimit = Effect.fnUntraced(function* ({ name, ask }: Kind) {
            const argv = yield* newArgv
            const sandbox = yield* sandboxes.create()
            const [error] = yield* Effect.all([Effect.flip(ask(sandbox, argv)), freeze(sandbox, argv)], {
              concurrency: "unbounded"
            })
            assert.deepInclude(error, {
              _tag: "Timeout",
              limit: "command",
              millis: timeoutMillis,
              outcome: "unknown"
            })
            yield* isOver(sandbox, name)
          })
          const byWish = Effect.fnUntraced(function* () {
            const argv = yield* newArgv
            const sandbox = yield* sandboxes.create()
            const { kill } = yield* sandbox.process.start(argv)
            yield* freeze(sandbox, argv)
            yield* kill
            yield* isOver(sandbox, "kill")
          })
          const ends = [...limited.map(byLimit), byWish()]
          const results = yield* Effect.all(
            ends.map((end) => Effect.result(Effect.scoped(end))),
            {
              concurrency: "unbounded"
            }
          )
          for (const result of results) if (Result.isFailure(result)) assert.fail(String(result.failure))
        }).pipe(Effect.provide(service(base)))
        assert.deepStrictEqual(yield* remains(base), [])
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    60_000
  )
})
