/**
 * Conformance: ending a program ends all that came from it.
 */
import { Effect, Fiber, Stream } from "effect"
import { area, holds, home, same, unique, withSandbox } from "./Case.ts"
import { eventually, population, running, untilOutput } from "./Programs.ts"

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

    "giving a call up at any moment leaves none of its processes": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        const size = { rows: 24, cols: 80 }
        const calls = [
          sandbox.commands.run(daemons, { timeoutMillis: "none" }),
          sandbox.commands.run(daemons, { timeoutMillis: "none", stdin: "x" }),
          Stream.runDrain(Stream.merge(sandbox.commands.stream(daemons), Stream.fail(new Error("given up")))),
          Effect.flatMap(sandbox.commands.start(daemons), (process) => process.kill),
          Effect.flatMap(sandbox.pty.open({ size }), (pty) => pty.kill)
        ]
        for (let moment = 0; moment < 8; moment++) {
          yield* Effect.forEach(
            calls,
            Effect.fnUntraced(function* (call) {
              const fiber = yield* Effect.forkScoped(call)
              yield* Effect.sleep(moment)
              yield* Fiber.interrupt(fiber)
            }),
            { concurrency: "unbounded", discard: true }
          )
          same(yield* eventually(population(sandbox), (now) => now === before), before)
        }
      })
    ),

    "a start that was taken back starts nothing when it comes": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        const processId = yield* unique("p")
        const run = sandbox.commands.run(`touch ${home}/ran; sleep 1000`, { processId })
        const fiber = yield* Effect.forkScoped(run, { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        yield* sandbox.files.remove(`${home}/ran`).pipe(Effect.ignore)
        yield* Effect.exit(Effect.timeoutOption(run, 5000))
        same(yield* sandbox.files.exists(`${home}/ran`), false)
        same(yield* population(sandbox), before)
      })
    ),

    "a time limit ends what a program has left behind": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        const result = yield* sandbox.process.run(["sh", "-c", "yes & setsid sleep 1000 & echo front"], {
          timeoutMillis: 3000
        })
        holds(result.stdout.includes("front\n"), "the program itself came to its end")
        same(yield* eventually(population(sandbox), (now) => now === before), before)
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
