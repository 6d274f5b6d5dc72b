/**
 * Files in a sandbox: whole or as streams, always by the rights of a user inside.
 * Writes are atomic: a reader sees the old content or the new.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Stream } from "effect"
import { Sandboxes } from "fiberbox"
import { Container } from "fiberbox/container"

const program = Effect.gen(function* () {
  const { commands, files } = yield* Sandboxes.create()

  // Parents are made. Text, bytes, several at once, with permission bits.
  yield* files.write("/home/user/project/README.md", "# Project\n")
  yield* files.writeMany([
    { path: "/home/user/project/bin/hello", content: "#!/bin/sh\necho hello from a script\n", mode: 0o755 },
    { path: "/home/user/project/data.bin", content: new Uint8Array([0, 1, 254, 255]) }
  ])
  const { stdout } = yield* commands.run("./bin/hello", { cwd: "/home/user/project" })
  yield* Console.log(stdout.trimEnd())

  // A big file goes up as a stream and down in ranges.
  const mebibyte = new Uint8Array(1024 * 1024).fill(0x2e)
  yield* files.writeStream("/home/user/big", Stream.fromIterable(Array(8).fill(mebibyte)))
  yield* Console.log(`big: ${(yield* files.stat("/home/user/big")).size} bytes`)
  const range = yield* files.read("/home/user/big", { offset: 1_000_000, length: 10 })
  yield* Console.log(`ten of them: ${new TextDecoder().decode(range)}`)
  const total = yield* files.stream("/home/user/big").pipe(
    Stream.runFold(
      () => 0,
      (sum, chunk) => sum + chunk.byteLength
    )
  )
  yield* Console.log(`streamed back: ${total} bytes`)

  // Trees.
  const { entries } = yield* files.list("/home/user/project", { depth: 2 })
  for (const entry of entries) yield* Console.log(`${entry.type.padEnd(9)} ${entry.path}`)

  yield* files.rename("/home/user/project", "/home/user/moved")
  yield* files.remove("/home/user/moved", { recursive: true })
  yield* Console.log(`still there: ${yield* files.exists("/home/user/moved")}`)

  // The rights are those of the user inside, and nothing outside can be reached.
  yield* files
    .write("/etc/passwd", "root::0:0::/:/bin/sh\n")
    .pipe(Effect.catchTag("FileFailed", ({ path, reason }) => Console.log(`${path}: ${reason}`)))
}).pipe(Effect.scoped)

program.pipe(Effect.provide(Container.layer()), NodeRuntime.runMain)
