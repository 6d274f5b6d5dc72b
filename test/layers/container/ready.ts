/**
 * A program for tests to put under strain: a backend in the directory of its
 * first argument, which says whether a machine could be made, holding all of
 * its descriptors meanwhile when the second argument is `full`.
 */
import { openSync } from "node:fs"
import { Effect, Layer } from "effect"
import { Backend } from "../../../src/services/Backend.ts"
import { Base, backend, platform } from "./support.ts"

const [, , path = "", runtime = "runc", load = ""] = process.argv
const base = Layer.succeed(Base, { path })

const takeAll = () => {
  try {
    for (;;) openSync("/dev/null", "r")
  } catch {
    return
  }
}

const main = Effect.gen(function* () {
  const { ready } = yield* Backend
  if (load === "full") yield* Effect.sync(takeAll)
  const said = yield* Effect.match(ready, {
    onSuccess: () => "ready",
    onFailure: (error) => `${error._tag}: ${error.message}`
  })
  yield* Effect.sync(() => process.stdout.write(`${said}\n`))
}).pipe(
  Effect.provide(
    backend({ state: "s", container: { runtime } }).pipe(
      Layer.provideMerge(base),
      Layer.provideMerge(platform)
    )
  )
)

Effect.runFork(main)
