/**
 * A backend: a place that can run machines. What a new kind of place must
 * provide, and nothing more.
 */

import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { Capability, IsolationLevel } from "../domain/Capability.ts"
import type {
  BackendFailed,
  InvalidArgument,
  NotFound,
  ResourceExhausted,
  SandboxFailed,
  Timeout,
  Unsupported
} from "../domain/Errors.ts"
import type { Generation, SandboxId } from "../domain/Ids.ts"
import type { SandboxSpec } from "../domain/Sandbox.ts"
import type { Machine } from "./Machine.ts"

/** Which machine to make: the sandbox, its incarnation and its specification. */
export interface MachineRequest {
  readonly sandboxId: SandboxId
  readonly generation: Generation
  readonly spec: SandboxSpec
  /** Whether the machine shall end by itself when its service is gone for good (its sandbox is not detached). */
  readonly detached: boolean
  /** Whether an earlier machine of the sandbox has left a disk: when that is missing, no new one takes its place. Default: no. */
  readonly hasDisk?: boolean | undefined
  /**
   * Run when what was written last never reached the sandbox's disk, before that disk is used again: until this has
   * ended, a service that dies is told anew. It says why.
   */
  readonly onLoss?: ((reason: string) => Effect.Effect<void>) | undefined
}

/** How making a machine can fail. Nothing of it is left then. */
export type ProvisionError =
  | BackendFailed
  | InvalidArgument
  | NotFound
  | ResourceExhausted
  | SandboxFailed
  | Timeout
  | Unsupported

/** What a backend finds of its own after a restart of the service. */
export interface MachineRef {
  readonly sandboxId: SandboxId
  /** Of the running machine; undefined when only a disk or remains are there. */
  readonly generation: Generation | undefined
}

/** A place that can run machines. */
export class Backend extends Context.Service<
  Backend,
  {
    /** Its name in results and errors: `container`, `memory`, ... */
    readonly name: string
    readonly isolation: IsolationLevel
    readonly capabilities: ReadonlySet<Capability>
    /**
     * Checks that a specification can be served and enforced here, changing
     * nothing: the image exists, limits are below the machine's and enforceable.
     */
    readonly validate: (
      spec: SandboxSpec
    ) => Effect.Effect<void, InvalidArgument | NotFound | Unsupported | BackendFailed>
    /**
     * Makes a machine, or takes over the running one of the same sandbox and
     * generation. Reuses the sandbox's disk when there is one; where there must be one and
     * is none, `NotFound` of the kind `disk`. The scope holds
     * the service's end (connections, fibers): closing it leaves the machine
     * running. Interruption or failure leaves nothing of the new machine.
     */
    readonly provision: (request: MachineRequest) => Effect.Effect<Machine, ProvisionError, Scope.Scope>
    /** Takes over a running machine; `NotFound` when it does not run (any more). */
    readonly adopt: (
      request: MachineRequest
    ) => Effect.Effect<Machine, NotFound | BackendFailed | Timeout, Scope.Scope>
    /** Ends whatever machine a sandbox has, whoever holds it; its disk stays. Unknown ones succeed. */
    readonly end: (sandboxId: SandboxId) => Effect.Effect<void, BackendFailed | Timeout>
    /** Ends whatever machine a sandbox has and removes all that it keeps, disk included. Unknown ones succeed. */
    readonly remove: (sandboxId: SandboxId) => Effect.Effect<void, BackendFailed | Timeout>
    /**
     * Succeeds when a machine could be made now, as far as can be told in a few milliseconds and without making
     * one: what it needs is there, may be used and has room. The message says what somebody has to put right.
     * `Unsupported` when it cannot be as this program and this computer are: a service does not start then.
     */
    readonly ready: Effect.Effect<void, BackendFailed | ResourceExhausted | Unsupported>
    /** All that exists under this instance's name. */
    readonly list: Effect.Effect<ReadonlyArray<MachineRef>, BackendFailed>
  }
>()("fiberbox/services/Backend") {}
