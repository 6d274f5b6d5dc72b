/**
 * A program for tests to kill: an ephemeral instance that says its id, starts
 * two machines, says `ready` and waits.
 */
import { Effect, Layer } from "effect"
import { Instance } from "../../../src/services/Instance.ts"
import { Base, backend, platform, sandbox } from "./support.ts"

const base = Layer.succeed(Base, { path: process.argv[2] ?? "" })

const main = Effect.gen(function* () {
  const { id } = yield* Instance
  yield* Effect.sync(() => process.stdout.write(`${id}\n`))
  yield* Effect.all([sandbox(), sandbox()], { concurrency: 2 })
  yield* Effect.sync(() => process.stdout.write("ready\n"))
  yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(backend().pipe(Layer.provideMerge(base), Layer.provideMerge(platform))))

Effect.runFork(main)
