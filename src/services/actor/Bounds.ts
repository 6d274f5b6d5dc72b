/**
 * What bounds a process from outside: its time limit, and the lease of the
 * client that wants it.
 */
import { Clock, Effect } from "effect"
import type { LeaseId, Owner, ProcessId, SandboxId } from "../../domain/Ids.ts"
import type { ProcessSpec } from "../../domain/Process.ts"
import { Leases } from "../Leases.ts"
import type { Machine } from "../Machine.ts"
import type { Deadlines } from "./Deadlines.ts"
import { readLabel } from "./Label.ts"

/** The bounds of a machine's processes. */
export interface Bounds {
  /** Begins to bound a process that has started. Bounds that have begun stay as they are. */
  readonly begin: (process: Pick<ProcessSpec, "processId" | "timeoutMillis" | "lease">) => Effect.Effect<void>
  /** Forgets a process that has ended; tells whether its time limit ended it. */
  readonly end: (processId: ProcessId) => { readonly timedOut: boolean }
  /** Bounds again what an adopted machine runs, as its labels say. */
  readonly restore: (machine: Machine) => Effect.Effect<void>
  /** Lets no time pass while the machine is paused. */
  readonly suspend: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Forgets all: the machine is gone. */
  readonly clear: Effect.Effect<void>
}

/** The bounds of one sandbox's processes; `kill` is how a lapsed lease ends one. */
export const makeBounds = Effect.fnUntraced(function* (
  sandbox: { readonly id: SandboxId; readonly owner: Owner },
  deadlines: Deadlines,
  kill: (processId: ProcessId) => Effect.Effect<void>
) {
  const leases = yield* Leases
  const { id, owner } = sandbox
  const held = new Map<ProcessId, LeaseId>()

  const hold = (processId: ProcessId, lease: LeaseId) => {
    held.set(processId, lease)
    // Not before it lapses: a machine is adopted while its actor is still being made.
    const release = Effect.suspend(() => kill(processId))
    return leases.hold(owner, lease, `${id}/${processId}`, release)
  }

  const begin: Bounds["begin"] = ({ processId, timeoutMillis, lease }) =>
    Effect.suspend(() => {
      if (timeoutMillis !== undefined) deadlines.start(processId, timeoutMillis)
      return lease === undefined || held.has(processId) ? Effect.void : hold(processId, lease)
    })

  const letGo = (processId: ProcessId) => {
    const lease = held.get(processId)
    if (lease !== undefined) leases.drop(owner, lease, `${id}/${processId}`)
    held.delete(processId)
  }

  const bounds: Bounds = {
    begin,
    end: (processId) => {
      deadlines.cancel(processId)
      letGo(processId)
      return { timedOut: deadlines.expired(processId) }
    },
    suspend: deadlines.suspend,
    resume: deadlines.resume,
    clear: Effect.andThen(
      deadlines.clear,
      Effect.sync(() => [...held.keys()].forEach(letGo))
    ),
    restore: Effect.fnUntraced(
      function* (machine) {
        const now = yield* Clock.currentTimeMillis
        const processes = yield* machine.processes.list
        yield* Effect.forEach(
          processes.filter((process) => process.exit === undefined),
          ({ processId, label, startedAt }) => {
            const { lease, timeoutMillis } = readLabel(label)
            const left =
              timeoutMillis === undefined ? undefined : Math.max(1, timeoutMillis - (now - startedAt))
            return begin({ processId, lease, timeoutMillis: left })
          },
          { discard: true }
        )
      },
      (restored) => Effect.ignore(restored)
    )
  }
  return bounds
})
