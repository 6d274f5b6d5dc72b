/**
 * The end of a sandbox. It depends on nothing: whatever cannot be done now,
 * recording it or removing what it holds, keeps nothing else from being done and is tried again.
 */
import { Deferred, Effect, Exit, Fiber, FiberHandle } from "effect"
import { BackendFailed } from "../../domain/Errors.ts"
import type { SandboxInfo } from "../../domain/Sandbox.ts"
import { Backend } from "../Backend.ts"
import { traced } from "../Tracing.ts"
import type { Bounds } from "./Bounds.ts"
import { backoffMillis } from "./backoff.ts"
import type { Become, Journal } from "./Journal.ts"
import type { MachineSlot } from "./MachineSlot.ts"
import { infoOf } from "./Requests.ts"
import type { Changed, LifecycleFailure } from "./Transition.ts"

/** How often in a row the backend is asked to remove a sandbox before that is put off. */
const removals = 3
/** How long it is waited for the record before what the sandbox holds is removed without it, in milliseconds. */
const recordMillis = 1_000
/** How long a kill that has done everything else waits to be recorded, in milliseconds. */
const finalRecordMillis = 5_000

/** What killing a sandbox needs to know of its life. */
export interface Life {
  /** Gives up whatever is under way or was going to happen. */
  readonly giveUp: Effect.Effect<void>
  /** Runs when nothing is left. */
  readonly release: Effect.Effect<void>
  /** Whether the actor is being closed, and leaves the rest to the next. */
  readonly isClosing: () => boolean
}

/** How the sandbox of a journal is killed: for good, and by whoever asks once more if something was left. */
export const makeKilling = Effect.fnUntraced(function* (
  journal: Journal,
  slot: MachineSlot,
  bounds: Pick<Bounds, "clear">,
  { giveUp, isClosing, release }: Life
) {
  const backend = yield* Backend
  const actor = yield* Effect.scope
  const later = yield* FiberHandle.make()
  const { id } = journal.current()
  const info = () => infoOf(journal.current())
  let underWay: Deferred.Deferred<SandboxInfo, LifecycleFailure> | undefined
  let failures = 0
  /** That nothing of it is left; a record that says `killed` may be older than the removal, which its service did not live to see. */
  let isGone = false

  const remove = Effect.retry(
    Effect.suspend(() => backend.remove(id)),
    { times: removals - 1, while: (error) => error._tag === "BackendFailed" }
  )

  /** It is killed from the first moment on. */
  const attempt = (why: Become) =>
    Effect.gen(function* () {
      if (journal.current().status !== "killed") yield* journal.note("killed", why)
      const recording = yield* Effect.forkIn(journal.recorded, actor, { startImmediately: true })
      yield* giveUp
      // Its disk outlives the record only if the store is in trouble.
      yield* Effect.timeoutOption(Fiber.await(recording), recordMillis)
      // The way to the machine is closed last, so that calls under way hear that it has ended.
      yield* slot.empty(traced("Backend: remove")(remove))
      yield* bounds.clear
      yield* journal.recorded.pipe(
        Effect.timeoutOrElse({
          duration: finalRecordMillis,
          orElse: () => Effect.fail({ message: "the store does not answer" })
        }),
        Effect.mapError(unrecorded)
      )
      return info()
    })

  const ended = (exit: Exit.Exit<SandboxInfo, LifecycleFailure>): Effect.Effect<void> =>
    Effect.suspend(() => {
      underWay = undefined
      isGone = Exit.isSuccess(exit)
      if (Exit.isSuccess(exit)) return release
      if (isClosing()) return Effect.void
      failures++
      const again = FiberHandle.run(
        later,
        Effect.delay(Effect.ignore(kill()), backoffMillis(failures, 1_000))
      )
      // Of the first failure whoever asked for it is told.
      const told =
        failures === 2
          ? Effect.logWarning(`the end of ${id} is still not complete; trying again`, exit.cause)
          : Effect.void
      return Effect.asVoid(Effect.andThen(told, again))
    })

  const kill = (why: Become = {}): Changed =>
    Effect.suspend(() => {
      if (isGone) return Effect.succeed(info())
      if (underWay !== undefined) return Deferred.await(underWay)
      const done = Deferred.makeUnsafe<SandboxInfo, LifecycleFailure>()
      underWay = done
      return Effect.andThen(
        Effect.forkIn(Deferred.into(Effect.onExit(attempt(why), ended), done), actor),
        Deferred.await(done)
      )
    })
  return kill
})

/** The sandbox has ended, but the next service may not know. */
const unrecorded = ({ message }: { readonly message: string }) =>
  new BackendFailed({
    backend: "store",
    operation: "record that the sandbox was killed",
    reason: `${message}; its programs have ended, and this is tried again until it is recorded`,
    outcome: "unknown"
  })
