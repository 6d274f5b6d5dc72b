/**
 * A client for tests to freeze: keeps one sandbox busy with commands, streams
 * and writes, and creates and kills others, until it is asked to end by SIGTERM. Says in a line of
 * JSON how each call went.
 */
import { Effect, Schedule, Stream } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import type { Called } from "./called.ts"

const [url = "", token = "", name = ""] = process.argv.slice(2)

const say = (called: Called) => process.stdout.write(`${JSON.stringify(called)}\n`)

const timed = <A, E extends { readonly message: string }, R>(
  kind: Called["kind"],
  call: Effect.Effect<A, E, R>,
  about: (result: A | undefined) => Partial<Called>
) =>
  Effect.suspend(() => {
    const from = Date.now()
    const began = performance.now()
    return Effect.match(call, {
      onFailure: (error) => ({ error: error.message, result: undefined }),
      onSuccess: (result) => ({ error: undefined, result })
    }).pipe(
      Effect.tap(({ error, result }) =>
        Effect.sync(() => say({ kind, from, millis: performance.now() - began, error, ...about(result) }))
      ),
      Effect.map(({ result }) => result)
    )
  })

const asked = Effect.callback<void>((resume) => {
  process.once("SIGTERM", () => resume(Effect.void))
})

const program = Effect.gen(function* () {
  const kept = yield* Sandboxes.createDetached({ name })
  const about = () => ({ sandbox: kept.id })
  let writes = 0
  const write = Effect.suspend(() => {
    const content = `content ${++writes}`
    return timed("write", kept.files.write("/home/user/f", content), () => ({ sandbox: kept.id, content }))
  })
  const exec = timed("exec", kept.commands.run("echo hello"), about)
  const stream = timed("stream", Stream.runDrain(kept.process.stream(["seq", "20000"])), about)
  const create = Effect.gen(function* () {
    const made = yield* timed("create", Sandboxes.createDetached(), (made) => ({ sandbox: made?.id }))
    if (made !== undefined) yield* timed("kill", made.kill, () => ({ sandbox: made.id }))
  })
  const spaced = Schedule.spaced("20 millis")
  yield* Effect.all(
    [
      Effect.repeat(Effect.andThen(exec, write), spaced),
      Effect.repeat(stream, spaced),
      Effect.repeat(create, spaced)
    ],
    { concurrency: "unbounded" }
  ).pipe(Effect.raceFirst(asked))
}).pipe(Effect.provide(SandboxesClient.layer({ url, token, leaseTtl: "5 minutes" })))

await Effect.runPromise(program)
