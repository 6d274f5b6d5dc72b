/**
 * Testing a program that uses sandboxes: the memory backend on `TestClock`, with
 * commands of the test's own and faults on request. Nothing waits, nothing needs
 * root, and every run is the same.
 *
 * In your test suite each of these is an `it.effect` of `@effect/vitest`, which
 * provides the `TestClock`; here they run as a plain program.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Fiber, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { Sandboxes } from "fiberbox"
import { Memory } from "fiberbox/memory"

// --- the program under test ---------------------------------------------------

/** Builds a project in a fresh sandbox; what may succeed when repeated is tried three times. */
const build = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.create({ ttl: { afterMillis: 600_000, action: "kill" } })
  yield* sandbox.files.write("/home/user/project/source.txt", "a program")
  const { stdout } = yield* sandbox.process.run(["compile", "source.txt"], {
    cwd: "/home/user/project",
    timeoutMillis: 120_000
  })
  return stdout
}).pipe(
  Effect.scoped,
  Effect.retry({ times: 2, schedule: Schedule.spaced("10 seconds"), while: (error) => error.isRetryable })
)

// --- the world it runs in ------------------------------------------------------

/** A compiler that takes a minute. */
const world = Memory.layer({
  commands: {
    compile: Effect.fnUntraced(function* ({ argv, files, stdout }) {
      yield* Effect.sleep("1 minute")
      const source = new TextDecoder().decode(yield* files.read(argv[1] ?? ""))
      yield* stdout(`compiled ${source}`)
      return 0
    })
  }
})

// --- the tests ----------------------------------------------------------------

const succeeds = Effect.gen(function* () {
  const building = yield* Effect.forkChild(build)
  yield* TestClock.adjust("61 seconds")
  return yield* Fiber.join(building)
})

const triesAgain = Effect.gen(function* () {
  const faults = yield* Memory.MemoryFaults
  yield* faults.inject("provision", { _tag: "Refuse", reason: "no room" }, { times: 2 })
  const building = yield* Effect.forkChild(build)
  yield* TestClock.adjust("2 minutes")
  return yield* Fiber.join(building)
})

const saysWhatFailed = Effect.gen(function* () {
  const faults = yield* Memory.MemoryFaults
  yield* faults.inject("spawn", { _tag: "Delay", duration: "1 second" })
  const building = yield* Effect.forkChild(Effect.flip(build))
  yield* TestClock.adjust("30 seconds")
  const { sandboxes } = yield* Effect.flatMap(Sandboxes, (service) => service.list())
  for (const { id } of sandboxes) yield* faults.killMachine(id)
  const error = yield* Fiber.join(building)
  return `${error._tag}, may be tried again: ${error.isRetryable}`
})

const test = <A, E>(name: string, effect: Effect.Effect<A, E, Sandboxes | Memory.MemoryFaults>) =>
  effect.pipe(
    Effect.provide(world),
    Effect.provide(TestClock.layer()),
    Effect.flatMap((result) => Console.log(`${name}: ${result}`))
  )

const main = Effect.gen(function* () {
  yield* test("succeeds after a minute that nobody waited for", succeeds)
  yield* test("tries again while there is no room", triesAgain)
  yield* test("says what failed when the machine dies", saysWhatFailed)
})

NodeRuntime.runMain(main)
