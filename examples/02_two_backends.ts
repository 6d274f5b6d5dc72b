/**
 * The same program on two backends: only the Layer changes. The memory backend
 * is a simulation on Effect's clock, for tests; the container is the real thing.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Sandboxes } from "fiberbox"
import { Container } from "fiberbox/container"
import { Memory } from "fiberbox/memory"

const program = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.create({ env: { GREETING: "hello" } })
  yield* sandbox.files.write("/home/user/names/a.txt", "ada\n")
  yield* sandbox.files.write("/home/user/names/b.txt", "grace\n")
  const { stdout } = yield* sandbox.commands.run('echo "$GREETING"; cat names/a.txt names/b.txt; exit 0')
  const refused = yield* sandbox.commands.run("exit 3").pipe(
    Effect.as("no error"),
    Effect.catchTag("CommandExit", (error) => Effect.succeed(`exit code ${error.exitCode}`))
  )
  const { entries } = yield* sandbox.files.list("/home/user/names")
  const sizes = entries.map((entry) => `${entry.path} ${entry.size}`)
  return [...stdout.trimEnd().split("\n"), refused, ...sizes].join("\n")
}).pipe(Effect.scoped)

const main = Effect.gen(function* () {
  const container = yield* Effect.provide(program, Container.layer())
  const memory = yield* Effect.provide(program, Memory.layer())
  yield* Console.log(container)
  yield* Console.log(container === memory ? "the same on both" : `but on memory:\n${memory}`)
})

NodeRuntime.runMain(main)
