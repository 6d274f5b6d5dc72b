/**
 * Every failure is a typed error. Each says what went wrong (its tag and fields),
 * whether trying again may help (`isRetryable`), and whether it happened
 * (`outcome`: not-started, completed or unknown).
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Sandboxes } from "fiberbox"
import { Container } from "fiberbox/container"

const program = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.create()

  // The command ran and failed: what it wrote is in the error.
  yield* sandbox.commands
    .run("echo half; echo oops >&2; exit 7")
    .pipe(
      Effect.catchTag("CommandExit", ({ exitCode, stderr, stdout }) =>
        Console.log(`exit ${exitCode}, stdout ${JSON.stringify(stdout)}, stderr ${JSON.stringify(stderr)}`)
      )
    )

  // The command could not be started at all: nothing ran.
  yield* sandbox.process
    .run(["no-such-program"])
    .pipe(
      Effect.catchTag("SpawnFailed", ({ outcome, reason }) => Console.log(`${reason}, outcome ${outcome}`))
    )

  // It took too long: it and everything it started is gone.
  yield* sandbox.commands
    .run("echo begun; sleep 60", { timeoutMillis: 300 })
    .pipe(
      Effect.catchTag("Timeout", ({ limit, stdout }) =>
        Console.log(`the ${limit} limit, after ${JSON.stringify(stdout)}`)
      )
    )

  // A file that is not there.
  yield* sandbox.files
    .readText("/home/user/nothing.txt")
    .pipe(Effect.catchTag("FileFailed", ({ path, reason }) => Console.log(`${path}: ${reason}`)))

  // Several at once, and the rest passes on.
  yield* sandbox.pause
  yield* sandbox.commands.run("true").pipe(
    Effect.catchTags({
      InvalidState: ({ operation, status }) => Console.log(`cannot ${operation} while ${status}`),
      CommandExit: () => Console.log("not reached")
    })
  )
  yield* sandbox.resume

  // A bad request changes nothing, and names the field.
  yield* Sandboxes.create({ limits: { memoryBytes: 0 } }).pipe(
    Effect.catchTag("InvalidArgument", ({ field, reason }) => Console.log(`${field}: ${reason}`))
  )
}).pipe(Effect.scoped)

program.pipe(Effect.provide(Container.layer()), NodeRuntime.runMain)
