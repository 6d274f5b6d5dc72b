/**
 * The way from a service to an in-memory machine: where calls meet faults, a
 * paused or ended machine, a dropped connection and the transport's limit.
 */
import { Duration, Effect, type Scope } from "effect"
import { Connection, Timeout } from "../../domain/Errors.ts"
import type { MachineError } from "../../services/Machine.ts"
import {
  type CallLimits,
  connectionLost,
  type FaultPoint,
  type FaultTable,
  withFault
} from "./MemoryFaults.ts"
import type { RunningMachine } from "./RunningMachine.ts"
import { waitFor } from "./Wakeup.ts"

/** Something on a machine that is held until it is let go of. */
export interface Held {
  readonly close: () => void
}

/**
 * Opens something for as long as the scope is open. What `keep` was given is closed
 * with the scope even when the call fails afterwards: its reply may have been lost.
 */
export const holding = <A extends Held, E>(
  open: (keep: (opened: A) => A) => Effect.Effect<A, E>
): Effect.Effect<A, E, Scope.Scope> =>
  Effect.suspend(() => {
    let held: A | undefined
    const keep = (opened: A): A => {
      held = opened
      return opened
    }
    return Effect.andThen(
      Effect.addFinalizer(() => Effect.sync(() => held?.close())),
      open(keep)
    )
  })

export class Calls {
  readonly machine: RunningMachine
  private readonly faults: FaultTable
  private readonly limits: CallLimits
  private readonly isDead: () => boolean

  constructor(options: {
    readonly machine: RunningMachine
    readonly faults: FaultTable
    readonly limits: CallLimits
    /** Whether the service that holds this is gone. */
    readonly isDead: () => boolean
  }) {
    this.machine = options.machine
    this.faults = options.faults
    this.limits = options.limits
    this.isDead = options.isDead
  }

  /** A call to the inside of the machine: to its agent, which stands still while the machine is paused. */
  call<A, E>(point: FaultPoint, run: Effect.Effect<A, E>): Effect.Effect<A, E | MachineError> {
    return this.outside(
      point,
      Effect.suspend(
        (): Effect.Effect<A, E | MachineError> =>
          this.machine.kernel.paused ? Effect.andThen(this.waitFor(this.thawed), run) : run
      )
    )
  }

  private get thawed(): Effect.Effect<boolean> {
    const { kernel } = this.machine
    return waitFor(kernel.thawed, () => (kernel.paused ? undefined : true))
  }

  /** A call that works from outside, on a paused machine too. */
  outside<A, E>(point: FaultPoint, run: Effect.Effect<A, E>): Effect.Effect<A, E | MachineError> {
    return Effect.suspend((): Effect.Effect<A, E | MachineError> => {
      const { machine } = this
      if (this.isDead())
        return Effect.fail(new Connection({ reason: "the service was killed", outcome: "not-started" }))
      if (machine.exit !== undefined) return Effect.fail(machine.gone("not-started"))
      const fault = this.faults.take(point, machine.sandboxId)
      if (fault === undefined) return run
      const limit = { limit: "transport", millis: this.limits.transportMillis, outcome: "unknown" } as const
      // Looked at again when it happens at last: the machine may have ended meanwhile.
      const later = Effect.suspend(
        (): Effect.Effect<A, E | MachineError> =>
          machine.exit === undefined ? run : Effect.fail(machine.gone("not-started"))
      )
      return Effect.raceFirst(withFault(fault, point, limit, connectionLost, later), machine.cut)
    })
  }

  /** Waits for something in the machine, no longer than the connection and the transport's limit. */
  waitFor<A, E>(wait: Effect.Effect<A, E>): Effect.Effect<A, E | MachineError> {
    const millis = this.limits.transportMillis
    return Effect.raceFirst(wait, this.machine.cut).pipe(
      Effect.timeoutOrElse({
        duration: Duration.millis(millis),
        orElse: () => Effect.fail(new Timeout({ limit: "transport", millis, outcome: "unknown" }))
      })
    )
  }
}
