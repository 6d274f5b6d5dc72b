/**
 * Where sandboxes are recorded: written before a machine is made and before a
 * reply promises anything, so that a killed service finds all it owes.
 */

import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type {
  BackendFailed,
  Conflict,
  InvalidArgument,
  PolicyDenied,
  ResourceExhausted
} from "../domain/Errors.ts"
import type { EventBody, SandboxEvent } from "../domain/Event.ts"
import { AttemptId, IdempotencyKey, LeaseId, type Owner, type SandboxId } from "../domain/Ids.ts"
import { type ListRequest, SandboxInfo, Timestamp } from "../domain/Sandbox.ts"
import type { Status } from "../domain/Status.ts"
import type { Admission } from "./Quotas.ts"

/** What is kept of a sandbox: all that callers see, and what only the service needs. */
export const SandboxRecord = Schema.Struct({
  ...SandboxInfo.fields,
  /** The lease it ends with, when a client elsewhere holds it. */
  lease: Schema.optional(LeaseId),
  /** The key of the request that created it, or the name of the attempt when it had none. */
  idempotencyKey: Schema.optional(IdempotencyKey),
  /** The attempt that created it. */
  attempt: Schema.optional(AttemptId),
  /** Digest of the create request, to tell a repeat from another content under the same key. */
  requestDigest: Schema.String,
  /** When it was killed; the record is kept for a day after that. */
  killedAt: Schema.optional(Timestamp),
  /**
   * Stands in for a record that cannot be read: what the store knows of the sandbox besides. It is `failed`, its
   * specification is not the true one, and it can be killed but not otherwise changed.
   */
  unreadable: Schema.optional(Schema.Literal(true))
})
export type SandboxRecord = typeof SandboxRecord.Type

/** How long the record of a killed sandbox is kept, in milliseconds. */
export const tombstoneMillis = 24 * 60 * 60 * 1000

/** The most records of killed sandboxes that a purge leaves, also within {@link tombstoneMillis}: the newest. */
export const tombstonesKept = 50_000

/** The events kept per sandbox; older ones are dropped. */
export const eventsKept = 1000

/** The events kept of a sandbox that is killed. */
export const lastEventsKept = 20

/** How many events are kept of a sandbox in this status. */
export const keptIn = (status: Status): number => (status === "killed" ? lastEventsKept : eventsKept)

/** What the store knows of an id, also where the record cannot be read. */
export interface Known {
  /** When the sandbox was killed; undefined while it was not. */
  readonly killedAt: Timestamp | undefined
}

/** How a change in the store fails: `ResourceExhausted` of the resource `store` when its disk is full. */
export type WriteError = BackendFailed | ResourceExhausted

/**
 * The store. A failing disk is `BackendFailed`, and so is one that does not answer in time: every operation
 * ends within some seconds. A record that cannot be read is its sandbox's trouble only: it comes as a stand-in
 * (see `SandboxRecord.unreadable`), and the log names it.
 */
export class SandboxStore extends Context.Service<
  SandboxStore,
  {
    /**
     * Records a new sandbox together with its `Created` event. When a record
     * of the same owner and idempotency key exists, that one is returned (or a
     * `Conflict` if its digest differs); a name in use by a sandbox that is not killed is a `Conflict`.
     * A new one has to pass the admission, which sees what is taken in the same transaction.
     */
    readonly create: (
      record: SandboxRecord,
      admission?: Admission | undefined
    ) => Effect.Effect<
      { readonly record: SandboxRecord; readonly existed: boolean },
      Conflict | BackendFailed | ResourceExhausted | PolicyDenied
    >
    readonly get: (id: SandboxId) => Effect.Effect<SandboxRecord | undefined, BackendFailed>
    /** The sandbox that an owner's request with this key created, killed or not. */
    readonly byKey: (
      owner: Owner,
      key: IdempotencyKey
    ) => Effect.Effect<SandboxRecord | undefined, BackendFailed>
    /** By id, name or slug, among an owner's sandboxes that are not killed; by id also killed ones. */
    readonly find: (owner: Owner, idOrName: string) => Effect.Effect<SandboxRecord | undefined, BackendFailed>
    /** In order of creation (then id), which the opaque cursor resumes. A text that is no cursor is `InvalidArgument`. */
    readonly list: (
      owner: Owner,
      request: ListRequest
    ) => Effect.Effect<
      { readonly records: ReadonlyArray<SandboxRecord>; readonly next: string | undefined },
      InvalidArgument | BackendFailed
    >
    /** All that are not killed, of every owner. */
    readonly alive: Effect.Effect<ReadonlyArray<SandboxRecord>, BackendFailed>
    /** How many are in each status, of every owner; killed ones are not counted. */
    readonly count: Effect.Effect<ReadonlyMap<Status, number>, BackendFailed>
    /** Those of the ids that are recorded. */
    readonly known: (
      ids: ReadonlyArray<SandboxId>
    ) => Effect.Effect<ReadonlyMap<SandboxId, Known>, BackendFailed>
    /** Replaces a record and appends events, in one transaction. Returns the events as numbered. */
    readonly save: (
      record: SandboxRecord,
      events: ReadonlyArray<EventBody>
    ) => Effect.Effect<ReadonlyArray<SandboxEvent>, WriteError>
    /** The kept events after a sequence number, in order, at most `limit`. */
    readonly events: (
      id: SandboxId,
      after: number,
      limit: number
    ) => Effect.Effect<ReadonlyArray<SandboxEvent>, BackendFailed>
    /**
     * Removes the records (and events) of sandboxes killed before a time, and of the oldest killed ones beyond
     * {@link tombstonesKept}, but for those named in `except`; returns how many. It goes in small steps, between which others have their turn.
     */
    readonly purge: (
      killedBefore: Timestamp,
      except?: ReadonlyArray<SandboxId>
    ) => Effect.Effect<number, WriteError>
  }
>()("fiberbox/services/SandboxStore") {}
