/**
 * A program in the background: start it, go away, come back by its id and read
 * on from where you were. A cursor counts the bytes of both streams together.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Sandboxes } from "fiberbox"
import { Container } from "fiberbox/container"

const decoder = new TextDecoder()

const program = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.create()

  // It reads lines from us and answers each; it runs whether anybody reads or not.
  yield* sandbox.commands.start('while read -r line; do echo "got $line"; done; echo bye', {
    processId: "answers",
    stdin: true
  })

  // Anybody who knows the id can attach.
  const answers = yield* sandbox.process.connect("answers")
  yield* answers.write("one\ntwo\n")
  const first = yield* answers.events().pipe(
    Stream.filter((event) => event._tag === "Output"),
    Stream.takeUntil((event) => decoder.decode(event.data).includes("two")),
    Stream.runCollect
  )
  const last = first.at(-1)
  const cursor = last === undefined ? 0 : last.cursor + last.data.byteLength
  yield* Console.log(`read up to byte ${cursor}, then stopped reading; it still runs`)

  yield* answers.write("three\n")
  yield* answers.closeStdin
  yield* Console.log(`it ended with ${JSON.stringify(yield* answers.exit)}`)

  // Its journal outlives it: read on from the cursor.
  const rest = yield* answers.events({ cursor }).pipe(
    Stream.filter((event) => event._tag === "Output"),
    Stream.map((event) => decoder.decode(event.data)),
    Stream.mkString
  )
  yield* Console.log(`what was missed: ${JSON.stringify(rest)}`)

  // Killing means the whole tree, whatever it detached.
  const server = yield* sandbox.commands.start("setsid sleep 1000 & sleep 1000 & wait")
  yield* server.kill
  const { stdout } = yield* sandbox.process.run(["sh", "-c", "ps -e -o comm= | grep -c '^sleep' || true"])
  yield* Console.log(`sleeping programs left after the kill: ${stdout.trim()}`)
}).pipe(Effect.scoped)

program.pipe(Effect.provide(Container.layer()), NodeRuntime.runMain)
