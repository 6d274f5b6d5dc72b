/**
 * Making an in-memory backend misbehave, on purpose and on command: everything
 * that can go wrong with a real one, and nothing that cannot.
 */
import { Context, Duration, Effect } from "effect"
import { BackendFailed, Connection, type NotFound, Timeout } from "../../domain/Errors.ts"
import type { SandboxId } from "../../domain/Ids.ts"
import type { MachineExit } from "../../services/Machine.ts"

/** The operations of a backend and its machines that a fault can be put into. */
export type FaultPoint =
  | "provision"
  | "adopt"
  | "remove"
  | "list"
  | "ready"
  | "terminate"
  | "pause"
  | "resume"
  | "metrics"
  | "spawn"
  | "attach"
  | "processes"
  | "signal"
  | "kill"
  | "cancel"
  | "limit"
  | "stdin"
  | "resize"
  | "files"
  | "watch"
  | "dial"

/** How an operation misbehaves. */
export type Fault =
  /** It is refused with `BackendFailed`, and nothing of it happens. */
  | { readonly _tag: "Refuse"; readonly reason?: string }
  /** It happens, but its answer is lost: `Connection` (or `BackendFailed`, where there is none) of unknown outcome. */
  | { readonly _tag: "LoseReply"; readonly reason?: string }
  /** Nothing happens until the operation's own limit has passed: a `Timeout`. */
  | { readonly _tag: "Hang" }
  /** It happens that much later, if it is still wanted then. */
  | { readonly _tag: "Delay"; readonly duration: Duration.Input }

/** Which operations a fault meets. */
export interface FaultScope {
  /** Only those of this sandbox; default: of all. */
  readonly sandboxId?: SandboxId | undefined
  /** How many of them; default: 1, `Infinity` is every one. */
  readonly times?: number | undefined
}

/** The control handle. */
export class MemoryFaults extends Context.Service<
  MemoryFaults,
  {
    /** Puts a fault into an operation. Faults of one operation are met in the order in which they were put in. */
    readonly inject: (point: FaultPoint, fault: Fault, scope?: FaultScope) => Effect.Effect<void>
    /** Takes out the faults not yet met. */
    readonly clear: Effect.Effect<void>
    /** Makes a machine die, as when its first process is killed. `NotFound` when the sandbox has none that runs. */
    readonly killMachine: (sandboxId: SandboxId, exit?: Partial<MachineExit>) => Effect.Effect<void, NotFound>
    /**
     * Drops the connection to a machine: calls that wait fail with `Connection`
     * of unknown outcome, streams are cut. The machine and its journals live on, and the next calls work.
     */
    readonly disconnect: (sandboxId: SandboxId) => Effect.Effect<void, NotFound>
  }
>()("fiberbox/layers/memory/MemoryFaults") {}

/** The longest an operation takes, in milliseconds. */
export interface CallLimits {
  readonly transportMillis: number
  readonly provisionMillis: number
}

interface Injected {
  readonly point: FaultPoint
  readonly fault: Fault
  readonly sandboxId: SandboxId | undefined
  left: number
}

/** The faults that wait to be met. */
export class FaultTable {
  private faults: Array<Injected> = []

  inject(point: FaultPoint, fault: Fault, scope: FaultScope = {}): void {
    this.faults.push({ point, fault, sandboxId: scope.sandboxId, left: scope.times ?? 1 })
  }

  clear(): void {
    this.faults = []
  }

  /** The fault an operation meets now, if any. */
  take(point: FaultPoint, sandboxId: SandboxId | undefined): Fault | undefined {
    if (this.faults.length === 0) return undefined
    const met = this.faults.find(
      (one) => one.point === point && (one.sandboxId === undefined || one.sandboxId === sandboxId)
    )
    if (met === undefined) return undefined
    met.left--
    if (met.left <= 0) this.faults = this.faults.filter((one) => one !== met)
    return met.fault
  }
}

/** A failure of this backend. */
export const memoryFailed = (
  operation: string,
  reason: string,
  outcome: BackendFailed["outcome"]
): BackendFailed => new BackendFailed({ backend: "memory", operation, reason, outcome })

/** An operation with a fault in it. `lost` is how a lost reply is told. */
export const withFault = <A, E, R, L>(
  fault: Fault,
  operation: string,
  limit: Pick<Timeout, "limit" | "millis" | "outcome">,
  lost: (reason: string) => L,
  run: Effect.Effect<A, E, R>
): Effect.Effect<A, E | L | BackendFailed | Timeout, R> => {
  switch (fault._tag) {
    case "Refuse":
      return Effect.fail(memoryFailed(operation, fault.reason ?? "refused", "not-started"))
    case "LoseReply":
      return Effect.andThen(run, Effect.fail(lost(fault.reason ?? "the reply was lost")))
    case "Hang":
      return Effect.andThen(Effect.sleep(Duration.millis(limit.millis)), Effect.fail(new Timeout(limit)))
    case "Delay":
      return Effect.andThen(Effect.sleep(fault.duration), run)
  }
}

/** A reply lost on the way to a machine. */
export const connectionLost = (reason: string): Connection => new Connection({ reason, outcome: "unknown" })
