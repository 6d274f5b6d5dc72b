/**
 * Conformance: the record of what happened to a sandbox.
 */
import { Effect, Fiber, Stream } from "effect"
import type { SandboxEvent } from "../../domain/Event.ts"
import { canBecome } from "../../domain/Status.ts"
import { area, holds, refused, same, withSandbox } from "./Case.ts"

/** The statuses a run of events leads through; each step must be one the table allows. */
const statuses = (events: ReadonlyArray<SandboxEvent>): ReadonlyArray<string> => {
  const path: Array<string> = []
  for (const { body } of events) {
    if (body._tag !== "StatusChanged") continue
    holds(canBecome(body.from, body.to), `${body.from} may not become ${body.to}`)
    const last = path.at(-1)
    holds(last === undefined || last === body.from, `after ${last} came a change from ${body.from}`)
    if (last === undefined) path.push(body.from)
    path.push(body.to)
  }
  return path
}

const events = area("events")

const basic = events({
  "events come in one unbroken order, from the creation on": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.update({ labels: { a: "b" } })
      const all = yield* Stream.runCollect(sandbox.events({ once: true }))
      same(
        all.map((event) => event.sequence),
        all.map((_, index) => index + 1)
      )
      same(all[0]?.body, { _tag: "Created" })
      holds(
        all.every((event, index) => event.at >= (all[index - 1]?.at ?? 0) && event.sandboxId === sandbox.id),
        "times do not go back, and all belong to the sandbox"
      )
      same(statuses(all), ["provisioning", "running"])
      same(all.at(-1)?.body, { _tag: "Updated" })
    })
  ),

  "a reader resumes after the last event it saw": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const all = yield* Stream.runCollect(sandbox.events({ once: true }))
      const [first] = all
      const rest = yield* Stream.runCollect(sandbox.events({ after: first?.sequence ?? 0, once: true }))
      same(rest, all.slice(1))
      same(yield* Stream.runCollect(sandbox.events({ after: all.length, once: true })), [])
    })
  ),

  "a follower sees what happens as it happens, until the end": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const follower = yield* sandbox
        .events()
        .pipe(Stream.runCollect, Effect.forkScoped({ startImmediately: true }))
      yield* sandbox.restart
      yield* sandbox.kill
      const seen = yield* Fiber.join(follower)
      same(statuses(seen), ["provisioning", "running", "restarting", "running", "killed"])
      same(
        seen.map((event) => event.sequence),
        seen.map((_, index) => index + 1)
      )
      same(yield* Stream.runCollect(sandbox.events({ once: true })), seen)
    })
  ),

  "what was refused leaves no event": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const before = yield* Stream.runCollect(sandbox.events({ once: true }))
      yield* refused(sandbox.update({ ports: [0] }), "InvalidArgument")
      yield* sandbox.start
      yield* sandbox.resume
      same(yield* Stream.runCollect(sandbox.events({ once: true })), before)
    })
  )
})

const stopping = events(
  {
    "stop and start leave their whole path": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.stop({ graceMillis: 0 })
        yield* sandbox.start
        const all = yield* Stream.runCollect(sandbox.events({ once: true }))
        same(statuses(all), ["provisioning", "running", "stopping", "stopped", "provisioning", "running"])
        const generations = all.map((event) => event.generation)
        same(
          generations,
          generations.toSorted((a, b) => a - b),
          "generations only rise"
        )
      })
    )
  },
  ["stop"]
)

const pausing = events(
  {
    "pause and resume leave their path": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.pause
        yield* sandbox.resume
        const all = yield* Stream.runCollect(sandbox.events({ once: true }))
        same(statuses(all), ["provisioning", "running", "paused", "running"])
      })
    )
  },
  ["pause"]
)

export const eventCases = [...basic, ...stopping, ...pausing]
