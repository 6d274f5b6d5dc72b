/**
 * The handle on one sandbox. It survives restarts of the sandbox's machine;
 * process handles do not.
 */
import { Effect, Schema, Stream } from "effect"
import type { Timeout } from "../domain/Errors.ts"
import type { SandboxEvent } from "../domain/Event.ts"
import type { LeaseId, ProcessId, ReaderId, SandboxId, UploadId } from "../domain/Ids.ts"
import type { Metrics } from "../domain/Metrics.ts"
import { Expiry, Millis, type SandboxInfo, UpdateRequest } from "../domain/Sandbox.ts"
import type { LifecycleError, MachineOperationError, OperationError } from "../rpc/SandboxRpcs.ts"
import { type FilesApi, makeFiles } from "./Files.ts"
import { decodeInput } from "./Input.ts"
import { type CommandApi, makeProcesses, type ProcessApi, type PtyApi } from "./Processes.ts"
import type { Client } from "./SandboxClient.ts"

/** Everything a sandbox can be asked. A command for the status it is in succeeds; an impossible one is `InvalidState`. */
export interface Sandbox {
  readonly id: SandboxId
  /** The sandbox as it stands. */
  readonly info: Effect.Effect<SandboxInfo, OperationError>
  /** Starts a machine for a stopped or failed sandbox; its disk is as it was left. */
  readonly start: Effect.Effect<SandboxInfo, LifecycleError>
  /** Ends the machine and keeps the disk; of a sandbox that has failed it ends the restarts. Programs get SIGTERM and `graceMillis` (default 5,000) before SIGKILL. */
  readonly stop: (options?: { readonly graceMillis?: number }) => Effect.Effect<SandboxInfo, LifecycleError>
  /** Replaces the machine by a new one on the same disk. */
  readonly restart: Effect.Effect<SandboxInfo, LifecycleError>
  /** Stops every process where it stands. */
  readonly pause: Effect.Effect<SandboxInfo, LifecycleError>
  readonly resume: Effect.Effect<SandboxInfo, LifecycleError>
  /**
   * Ends the sandbox for good and removes all that it holds. Never waits behind anything: its programs end, and it
   * counts as killed, whatever else fails. A `BackendFailed` tells what is still to be done, which goes on by itself and may be asked for again.
   */
  readonly kill: Effect.Effect<void, LifecycleError>
  /** Sets or (with `null`) removes the time to live, counted from now, and the idle limit. A time to live that was used up begins anew so. */
  readonly setExpiry: (limits: {
    readonly ttl?: Expiry | null
    readonly idle?: Expiry | null
  }) => Effect.Effect<SandboxInfo, LifecycleError>
  /** Waits until it runs; `Timeout` of the `wait` limit after `timeoutMillis` (default 60,000). */
  readonly waitForReady: (options?: {
    readonly timeoutMillis?: number
  }) => Effect.Effect<SandboxInfo, LifecycleError | Timeout>
  /** Changes environment, labels, ports or start command. */
  readonly update: (update: typeof UpdateRequest.Encoded) => Effect.Effect<SandboxInfo, LifecycleError>
  /** What happened and happens to it, from after a sequence number (default: all that is kept). */
  readonly events: (options?: {
    readonly after?: number
    /** End with the events that exist now. */
    readonly once?: boolean
  }) => Stream.Stream<SandboxEvent, OperationError>
  readonly metrics: Effect.Effect<Metrics, MachineOperationError>
  readonly commands: CommandApi
  readonly process: ProcessApi
  readonly pty: PtyApi
  readonly files: FilesApi
}

/** Where a handle takes the ids it makes up. */
export interface NewIds {
  readonly process: () => ProcessId
  readonly reader: () => ReaderId
  readonly upload: () => UploadId
}

const decodeUpdate = decodeInput(UpdateRequest, "update")
const decodeWait = decodeInput(Schema.Struct({ timeoutMillis: Schema.optional(Millis) }), "")
const decodeLimits = decodeInput(
  Schema.Struct({
    ttl: Schema.optional(Schema.NullOr(Expiry)),
    idle: Schema.optional(Schema.NullOr(Expiry))
  }),
  "expiry"
)
const decodeStop = decodeInput(Schema.Struct({ graceMillis: Schema.optional(Schema.Natural) }), "")
const decodeEvents = decodeInput(
  Schema.Struct({ after: Schema.optional(Schema.Natural), once: Schema.optional(Schema.Boolean) }),
  ""
)

/** A handle over a client of the contract; `lease` holds what its calls run. */
export const makeSandbox = (
  client: Client,
  id: SandboxId,
  newIds: NewIds,
  lease: LeaseId | undefined
): Sandbox => {
  const target = { sandboxId: id }
  return {
    id,
    info: client.GetInfo(target),
    start: client.ChangeStatus({ ...target, command: "start" }),
    stop: (options = {}) =>
      Effect.flatMap(decodeStop(options), ({ graceMillis }) =>
        client.ChangeStatus({ ...target, command: "stop", graceMillis })
      ),
    restart: client.ChangeStatus({ ...target, command: "restart" }),
    pause: client.ChangeStatus({ ...target, command: "pause" }),
    resume: client.ChangeStatus({ ...target, command: "resume" }),
    kill: Effect.asVoid(client.ChangeStatus({ ...target, command: "kill" })),
    setExpiry: Effect.fn("Sandbox.setExpiry")(function* (limits) {
      const { ttl, idle } = yield* decodeLimits(limits)
      return yield* client.SetExpiry({
        ...target,
        ...(ttl !== undefined && { ttl }),
        ...(idle !== undefined && { idle })
      })
    }),
    waitForReady: Effect.fn("Sandbox.waitForReady")(function* (options = {}) {
      const { timeoutMillis = 60_000 } = yield* decodeWait(options)
      return yield* client.WaitForReady({ ...target, timeoutMillis })
    }),
    update: Effect.fn("Sandbox.update")(function* (update) {
      return yield* client.Update({ ...target, update: yield* decodeUpdate(update) })
    }),
    events: (options = {}) =>
      Stream.unwrap(
        Effect.map(decodeEvents(options), (options) => client.FollowEvents({ ...target, ...options }))
      ),
    metrics: client.GetMetrics(target),
    ...makeProcesses(client, id, newIds, lease),
    files: makeFiles(client, id, newIds.upload)
  }
}
