/**
 * What the cases do with programs: read their output, wait until they run,
 * count what is left of them.
 */
import { Deferred, Effect, Schedule, Stream } from "effect"
import { InvalidResponse } from "../../domain/Errors.ts"
import type { ProcessEvent } from "../../domain/Process.ts"
import type { MachineOperationError, StartError } from "../../rpc/SandboxRpcs.ts"
import { Output } from "../../services/Output.ts"
import type { Process } from "../../services/Process.ts"
import type { Sandbox } from "../../services/Sandbox.ts"

/** All that a process's journal still holds and will hold, gathered. */
export const outputOf = (
  process: Process,
  options?: Parameters<Process["events"]>[0]
): Effect.Effect<Output, MachineOperationError> => gather(process.events(options))

/** The whole of a stream of events, gathered. */
export const gather = Effect.fnUntraced(function* <E, R>(events: Stream.Stream<ProcessEvent, E, R>) {
  const output = new Output()
  yield* Stream.runForEach(events, (event) => Effect.sync(() => output.add(event)))
  return output
})

/** What a process writes to its standard output until it ends. */
export const textOf = (process: Process): Effect.Effect<string, MachineOperationError> =>
  Effect.map(outputOf(process), (output) => output.captured.stdout)

/** Waits for the first output of a process. */
export const untilOutput = (process: Process) =>
  process.events().pipe(
    Stream.filter((event) => event._tag === "Output"),
    Stream.runHead
  )

/** A command that is being run to its end by a fiber, as `commands.run` does; returns once it has written something. */
export const running = Effect.fnUntraced(function* (sandbox: Sandbox, command: string) {
  const up = yield* Deferred.make<void, StartError | InvalidResponse>()
  const fiber = yield* sandbox.commands.stream(command, { timeoutMillis: "none" }).pipe(
    Stream.tap((event) => (event._tag === "Output" ? Deferred.succeed(up, undefined) : Effect.void)),
    Stream.runDrain,
    Effect.tapCause((cause) => Deferred.failCause(up, cause)),
    Effect.ensuring(Deferred.fail(up, new InvalidResponse({ reason: "it ended and wrote nothing" }))),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Deferred.await(up)
  return fiber
})

/** How many processes and threads the machine has now. */
export const population = (sandbox: Sandbox) => Effect.map(sandbox.metrics, (metrics) => metrics.pids)

/** Asks again, every few milliseconds, until the answer holds; for what has no event of its own. */
export const eventually = <A, E, R>(
  question: Effect.Effect<A, E, R>,
  holds: (answer: A) => boolean
): Effect.Effect<A, E, R> => Effect.repeat(question, { until: holds, schedule: Schedule.spaced(5) })
