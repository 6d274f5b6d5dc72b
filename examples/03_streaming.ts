/**
 * Output as it comes, and input as it is needed. A slow reader slows the program
 * down, so nothing piles up; ending the stream early kills the program.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Sandboxes } from "fiberbox"
import { Container } from "fiberbox/container"

const program = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.create()

  // Every event of a run, in order: Started, Output (bytes of either stream), Exited.
  yield* sandbox.commands.stream("for i in 1 2 3; do echo line $i; done; echo problem >&2; exit 4").pipe(
    Stream.runForEach((event) => {
      switch (event._tag) {
        case "Started":
          return Console.log(`started under ${event.isolation}`)
        case "Output":
          return Console.log(`${event.stream}: ${JSON.stringify(new TextDecoder().decode(event.data))}`)
        case "Truncated":
          return Console.log(`lost ${event.to - event.from} bytes`)
        case "Exited":
          return Console.log(`ended: ${JSON.stringify(event.status)}`)
      }
    })
  )

  // An endless program, read until we have enough.
  const bytes = yield* sandbox.process.stream(["yes"], { maxOutputBytes: "none" }).pipe(
    Stream.filter((event) => event._tag === "Output"),
    Stream.map((event) => event.data.byteLength),
    Stream.scan(
      () => 0,
      (total, size) => total + size
    ),
    Stream.takeUntil((total) => total >= 1_000_000),
    Stream.runLast
  )
  yield* Console.log(`read at least 1000000 bytes of an endless program: ${bytes._tag === "Some"}`)

  // Input from a stream.
  const numbers = Stream.range(1, 100_000).pipe(
    Stream.map((n) => `${n}\n`),
    Stream.encodeText
  )
  const { stdout } = yield* sandbox.process.run(["wc", "-l"], { stdin: numbers })
  yield* Console.log(`counted ${stdout.trim()} lines`)
}).pipe(Effect.scoped)

program.pipe(Effect.provide(Container.layer()), NodeRuntime.runMain)
