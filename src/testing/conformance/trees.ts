/**
 * Conformance: ending a program ends all that came from it.
 */
import { Effect, Fiber, Stream } from "effect"
import { area, same, withSandbox } from "./Case.ts"
import { population, running, untilOutput } from "./Programs.ts"

/** Daemons of every kind: a session of its own, an orphan, one that ignores hang-ups. */
const daemons = "setsid sleep 1000 & (sleep 1000 &) ; echo up; nohup sleep 1000"

export const treeCases = area("trees")(
  {
    "interrupting a run leaves none of its processes": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        const fiber = yield* running(sandbox, daemons)
        yield* Fiber.interrupt(fiber)
        same(yield* population(sandbox), before)
      })
    ),

    "ending the events of a run early leaves none of its processes": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        yield* sandbox.commands.stream(daemons).pipe(
          Stream.filter((event) => event._tag === "Output"),
          Stream.runHead
        )
        same(yield* population(sandbox), before)
      })
    ),

    "killing a program leaves none of its processes": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        const process = yield* sandbox.commands.start(daemons)
        yield* untilOutput(process)
        yield* process.kill
        same(yield* population(sandbox), before)
        same(yield* process.exit, { _tag: "Signaled", signal: "SIGKILL", number: 9 })
      })
    ),

    "killing one program leaves the others": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const other = yield* sandbox.process.start(["cat"], { stdin: true })
        const process = yield* sandbox.commands.start(daemons)
        yield* untilOutput(process)
        yield* process.kill
        yield* other.closeStdin
        same(yield* other.exit, { _tag: "Exited", code: 0 })
      })
    ),

    "a refused run kills nothing of another": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const process = yield* sandbox.process.start(["cat"], { processId: "same", stdin: true })
        yield* Effect.ignore(sandbox.process.run(["sleep", "1"], { processId: "same" }))
        yield* process.closeStdin
        same(yield* process.exit, { _tag: "Exited", code: 0 })
      })
    )
  },
  ["metrics"]
)
