/**
 * What a service's operator does with the service itself, as a group beside
 * the contract of sandboxes. All of it needs the scope `admin`.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { KeyId, KeyInfo, MintedKey, MintRequest } from "../domain/Access.ts"
import { AuditEntry } from "../domain/Audit.ts"
import {
  Authentication,
  BackendFailed,
  Conflict,
  Connection,
  InvalidArgument,
  NotFound,
  PolicyDenied,
  ResourceExhausted,
  Timeout,
  Unsupported
} from "../domain/Errors.ts"
import { SandboxId } from "../domain/Ids.ts"
import { AdoptRequest, Remnant } from "../domain/Remains.ts"
import { SandboxInfo } from "../domain/Sandbox.ts"
import { Watched } from "./Watched.ts"

const common = [
  Authentication,
  BackendFailed,
  Connection,
  InvalidArgument,
  NotFound,
  PolicyDenied,
  ResourceExhausted
] as const

/** How an operation on the service itself can fail. */
export const AdminError = Schema.Union(common)
export type AdminError = typeof AdminError.Type

const ListKeys = Rpc.make("ListKeys", { success: Schema.Array(KeyInfo), error: AdminError })

/** The answer is the only place where the key's token is ever told. */
const MintKey = Rpc.make("MintKey", { payload: MintRequest, success: MintedKey, error: AdminError })

const RevokeKey = Rpc.make("RevokeKey", { payload: { keyId: KeyId }, error: AdminError })

const FollowAudit = Rpc.make("FollowAudit", {
  payload: {
    /** Only entries after this number; default 0, all that are kept. */
    after: Schema.optional(Schema.Natural),
    /** End after the entries that exist now, instead of waiting for more. */
    once: Schema.optional(Schema.Boolean)
  },
  success: AuditEntry,
  error: AdminError,
  stream: true
})

/** How an operation on what is left of sandboxes can fail. */
export const RemainsError = Schema.Union([...common, Conflict, ResourceExhausted, Timeout, Unsupported])
export type RemainsError = typeof RemainsError.Type

const ListRemains = Rpc.make("ListRemains", { success: Schema.Array(Remnant), error: RemainsError })

const AdoptRemains = Rpc.make("AdoptRemains", {
  payload: AdoptRequest,
  success: SandboxInfo,
  error: RemainsError
})

const RemoveRemains = Rpc.make("RemoveRemains", {
  payload: { sandboxId: SandboxId },
  error: RemainsError
})

/** Keys and audit of a service, and what it found that its store does not know. */
export class AdminRpcs extends RpcGroup.make(
  ListKeys,
  MintKey,
  RevokeKey,
  FollowAudit,
  ListRemains,
  AdoptRemains,
  RemoveRemains
) {}

/** The group as it is served, over plain HTTP at {@link adminPath}. */
export class ServedAdminRpcs extends AdminRpcs.middleware(Watched) {}

/** Where it is served: POST, one JSON document a line. */
export const adminPath = "/rpc/admin"
