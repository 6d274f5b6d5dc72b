/**
 * Programs that are no longer wanted: their starts were taken back, their time
 * is up, their client's lease has lapsed.
 *
 * Each is a debt, paid when the machine says that nothing of the start is left
 * and nothing will come. A machine that is paused or cut off puts it off; until
 * then the start is refused here. One that does not answer, or cannot end a program, is ended.
 */
import { Deferred, Effect, Exit, FiberSet, Schedule } from "effect"
import { ResourceExhausted, type Timeout } from "../../domain/Errors.ts"
import type { MachineOperationError } from "../../rpc/SandboxRpcs.ts"
import type { EndCause, Ended, Start } from "../Machine.ts"

/** The ends that are due. */
export interface Endings {
  /**
   * Ends what was started, is being started or may still come. Returns when nothing of it runs or can run: at once while
   * the sandbox does not run, and then it is ended as soon as the sandbox goes on. A failure says that it could not be done
   * yet: it is tried again as long as there is a machine. {@link ResourceExhausted}: so much is due that this was not noted.
   */
  readonly end: (start: Start, cause: EndCause) => Effect.Effect<void, MachineOperationError>
  /** Whether the end of this start is due. */
  readonly isDue: (start: Start) => boolean
}

/** What ends need of the sandbox. */
export interface EndingOptions {
  readonly cancel: (start: Start, cause: EndCause) => Effect.Effect<Ended, MachineOperationError>
  /** Sees to a machine that has not ended a program in time, or not at the last attempt; tells whether it has ended. */
  readonly unanswered: (timeout: Timeout, isLast: boolean) => Effect.Effect<boolean>
  /** Told of each end that met something. */
  readonly ended: (start: Start, cause: EndCause) => Effect.Effect<void>
  /** Waits until the sandbox runs, or never will again. */
  readonly running: Effect.Effect<void>
}

/** Ends that are due at one time. */
const maxDue = 1024

/** How often a machine that answers may fail to end a program in the time there is for that. */
const maxTimeouts = 4

/** When an end is tried again. */
const backoff = Schedule.min([Schedule.exponential("10 millis"), Schedule.spaced("5 seconds")])

const keyOf = ({ processId, identity }: Start) => `${processId} ${identity}`

/** Whether trying again is of no use: the sandbox was killed, or the machine remembers no more starts that never came. */
const isFinal = ({ _tag }: MachineOperationError) => _tag === "NotFound" || _tag === "ResourceExhausted"

/** Nothing due yet; what is due when the scope closes is forgotten. */
export const makeEndings = Effect.fnUntraced(function* ({
  cancel,
  ended,
  running,
  unanswered
}: EndingOptions) {
  const fork = yield* FiberSet.makeRuntime<never, void>()
  const due = new Map<string, Deferred.Deferred<void, MachineOperationError>>()

  const pay = (start: Start, cause: EndCause, first: Deferred.Deferred<void, MachineOperationError>) => {
    let timeouts = 0
    return cancel(start, cause).pipe(
      Effect.tap((met) => (met === "nothing" ? Effect.void : ended(start, cause))),
      Effect.asVoid,
      Effect.tapErrorTag("Timeout", (timeout) =>
        // With the machine all that ran in it has ended. What may still come is refused by the next one.
        Effect.map(unanswered(timeout, ++timeouts >= maxTimeouts), (isOver) => {
          if (isOver) Deferred.doneUnsafe(first, Exit.void)
        })
      ),
      Effect.tapError((error) =>
        // In a sandbox that does not run, or is no more, nothing runs: the caller need not wait.
        Deferred.done(
          first,
          error._tag === "InvalidState" || error._tag === "NotFound" ? Exit.void : Exit.fail(error)
        )
      ),
      Effect.tapError((error) => (error._tag === "InvalidState" ? running : Effect.void)),
      Effect.retry({ schedule: backoff, until: isFinal }),
      Effect.catchCause((why) => Effect.logDebug(`the end of ${start.processId} is due no more`, why)),
      Effect.ensuring(
        Effect.suspend(() => {
          due.delete(keyOf(start))
          return Deferred.done(first, Exit.void)
        })
      )
    )
  }

  const endings: Endings = {
    end: (start, cause) =>
      Effect.suspend(() => {
        const key = keyOf(start)
        const known = due.get(key)
        if (known !== undefined) return Deferred.await(known)
        if (due.size >= maxDue) {
          const reason = `the ends of ${maxDue} programs are due`
          return Effect.fail(new ResourceExhausted({ resource: "ends", reason }))
        }
        const first = Deferred.makeUnsafe<void, MachineOperationError>()
        due.set(key, first)
        fork(pay(start, cause, first))
        return Deferred.await(first)
      }),
    isDue: (start) => due.has(keyOf(start))
  }
  return endings
})
