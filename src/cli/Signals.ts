/**
 * What the command line does when it is told to end: Ctrl-C, SIGTERM, SIGHUP, SIGQUIT.
 *
 * The first signal goes to the program in the sandbox, which has a moment to end
 * by itself; then, or at the second signal, everything is taken down. However
 * often it is told, it never leaves without having cleaned up.
 */
import { Effect, Fiber, Option, Queue, type Scope } from "effect"
import { signalNumbers } from "../domain/Process.ts"

const watched = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const
/** A request to end. */
export type EndSignal = (typeof watched)[number]

/** The signals that arrive from now on, until the scope closes; none of them ends this process meanwhile. */
export const listen: Effect.Effect<Queue.Dequeue<EndSignal>, never, Scope.Scope> = Effect.gen(function* () {
  const queue = yield* Queue.unbounded<EndSignal>()
  const offer = (signal: NodeJS.Signals) => {
    for (const known of watched) if (known === signal) Queue.offerUnsafe(queue, known)
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      for (const signal of watched) process.on(signal, offer)
    }),
    () =>
      Effect.sync(() => {
        for (const signal of watched) process.off(signal, offer)
      })
  )
  return queue
})

/** How long a program has between the signal and its end; within a second of it everything is to be gone. */
const graceMillis = 300

/** What is done with a running program. */
export interface Control {
  /** Passes a signal on to it; nothing when it does not run. */
  readonly forward: (signal: EndSignal) => Option.Option<Effect.Effect<void>>
  /** How it ended, if it has. */
  readonly exitCode: () => number | undefined
}

/**
 * Runs `main`, which runs a program and cleans up after it, under these
 * signals. When it has not ended soon after the first one, it is interrupted and
 * its finalizers are waited for. The exit code is the program's own if that ended
 * by itself, otherwise 128 plus the signal's number.
 */
export const underSignals = <E, R>(
  main: Effect.Effect<number, E, R>,
  control: Control
): Effect.Effect<number, E, R> =>
  Effect.gen(function* () {
    const signals = yield* listen
    const fiber = yield* Effect.forkChild(main)
    const ended = Fiber.await(fiber)
    const told = Queue.take(signals)
    const first = yield* Effect.raceFirst(Effect.as(ended, Option.none()), Effect.asSome(told))
    if (Option.isNone(first)) return yield* Fiber.join(fiber)

    const forwarded = control.forward(first.value)
    if (Option.isSome(forwarded)) {
      yield* Effect.forkChild(forwarded.value)
      yield* Effect.raceFirst(ended, told).pipe(Effect.timeoutOption(graceMillis))
    }
    yield* Fiber.interrupt(fiber)
    // What failed now failed because of the signal, which a terminal also sends to what we started on the host.
    return control.exitCode() ?? 128 + signalNumbers[first.value]
  }).pipe(Effect.scoped)
