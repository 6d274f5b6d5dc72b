/**
 * A program for tests to put under strain: a backend in the directory of its
 * first argument and with the runtime of its second, which says whether a machine could be made, or with
 * a fourth argument whether one was; it holds all of its descriptors meanwhile when the third is `full`.
 */
import { closeSync, openSync, writeSync } from "node:fs"
import { Cause, Effect, Layer, Option } from "effect"
import { Generation, makeSandboxId } from "../../../src/domain/Ids.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Base, backend, platform, specOf } from "./support.ts"

const [, , path = "", runtime = "runc", load = "", make = ""] = process.argv
const base = Layer.succeed(Base, { path })

const takeAll = () => {
  const taken: Array<number> = []
  try {
    for (;;) taken.push(openSync("/dev/null", "r"))
  } catch {
    return taken
  }
}

const main = Effect.gen(function* () {
  const { provision, ready, remove } = yield* Backend
  const sandboxId = yield* makeSandboxId("test")
  const request = { sandboxId, generation: Generation.make(1), spec: specOf(), detached: false }
  const taken = yield* Effect.sync(() => (load === "full" ? takeAll() : []))
  const exit = yield* Effect.exit(make === "" ? ready : Effect.scoped(provision(request)))
  yield* Effect.sync(() => taken.forEach(closeSync))
  yield* Effect.ignore(remove(sandboxId))
  const said =
    exit._tag === "Success"
      ? "ready"
      : Option.match(Cause.findErrorOption(exit.cause), {
          onNone: () => Cause.pretty(exit.cause),
          onSome: (error) => `${error._tag}: ${error.message}`
        })
  yield* Effect.sync(() => writeSync(1, `${said}\n`))
}).pipe(
  Effect.provide(
    backend({ state: "s", container: { runtime } }).pipe(
      Layer.provideMerge(base),
      Layer.provideMerge(platform)
    )
  )
)

Effect.runFork(main)
