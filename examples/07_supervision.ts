/**
 * Supervision is data: a sandbox says whether and how soon a machine that died is
 * started again, how long it may live and idle, and tells everything that
 * happens to it as numbered events.
 *
 * Here on the memory backend, where a machine dies on request.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Fiber, Stream } from "effect"
import { type SandboxEvent, Sandboxes } from "fiberbox"
import { Memory } from "fiberbox/memory"

const tell = ({ body, generation, sequence }: SandboxEvent) => {
  switch (body._tag) {
    case "StatusChanged":
      return `${sequence}: ${body.from} -> ${body.to} (machine ${generation})`
    case "RestartScheduled":
      return `${sequence}: restart ${body.attempt} in ${body.delayMillis} ms`
    case "MachineDied":
      return `${sequence}: the machine died: ${body.reason}`
    default:
      return `${sequence}: ${body._tag}`
  }
}

const program = Effect.gen(function* () {
  const faults = yield* Memory.MemoryFaults
  const sandbox = yield* Sandboxes.create({
    // The first restart comes after 50 ms, the second after 100 ms; a third death in a row is final.
    restartPolicy: { _tag: "OnFailure", maxRestarts: 2, initialMillis: 50, factor: 2, maxMillis: 1000 },
    idle: { afterMillis: 3_600_000, action: "stop" },
    labels: { example: "supervision" }
  })
  yield* sandbox.files.write("/home/user/work.txt", "unfinished")

  // Whoever follows the events sees them in order, from the first on.
  const follower = yield* sandbox.events().pipe(
    Stream.takeUntil(({ body }) => body._tag === "StatusChanged" && body.to === "killed"),
    Stream.runForEach((event) => Console.log(tell(event))),
    Effect.forkChild
  )

  // A call that is under way when the machine dies fails with a typed error that says so.
  const call = yield* Effect.forkChild(sandbox.commands.run("sleep 60"))
  yield* sandbox.process.list.pipe(Effect.repeat({ until: (processes) => processes.some(isSleep) }))
  yield* faults.killMachine(sandbox.id, { reason: "power failure" })
  yield* Fiber.join(call).pipe(
    Effect.catchTag("SandboxFailed", ({ outcome, reason }) =>
      Console.log(`the call: ${reason} (outcome ${outcome})`)
    )
  )

  // The policy starts a new machine on the same disk. Handles on the sandbox go on.
  const { generation, restarts } = yield* sandbox.waitForReady()
  const work = yield* sandbox.files.readText("/home/user/work.txt")
  yield* Console.log(`machine ${generation} after ${restarts} restart, with its disk: ${work}`)

  yield* sandbox.kill
  yield* Fiber.join(follower)
}).pipe(Effect.scoped)

const isSleep = ({ argv }: { readonly argv: ReadonlyArray<string> }) => argv.join(" ").includes("sleep 60")

program.pipe(Effect.provide(Memory.layer()), NodeRuntime.runMain)
