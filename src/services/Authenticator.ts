/**
 * Who a token belongs to, and what it allows.
 */
import { Context, type Effect, type Redacted } from "effect"
import { AccessScope } from "../domain/Access.ts"
import type { Authentication, BackendFailed } from "../domain/Errors.ts"
import { localOwner, type Owner } from "../domain/Ids.ts"

export { AccessScope }

/** Somebody who was recognised. */
export interface Caller {
  /** Whose sandboxes it sees and makes. */
  readonly owner: Owner
  readonly scope: AccessScope
  /** What the audit calls it: a key's id, or a token's subject. */
  readonly name: string
}

/** Recognises callers. */
export class Authenticator extends Context.Service<
  Authenticator,
  {
    /** The caller a bearer token belongs to. None, a forged, an expired or a revoked one is `Authentication`. */
    readonly authenticate: (
      token: Redacted.Redacted<string> | undefined
    ) => Effect.Effect<Caller, Authentication | BackendFailed>
    /** Waits until a token may have been revoked: then every open connection is looked at again. Left out: they are looked at from time to time. */
    readonly revoked?: Effect.Effect<void> | undefined
  }
>()("fiberbox/services/Authenticator") {}

/** The caller of the present call: an embedding program, unless a server's authentication says otherwise. */
export const CurrentCaller = Context.Reference<Caller>("fiberbox/services/CurrentCaller", {
  defaultValue: () => ({ owner: localOwner, scope: "admin", name: "local" })
})
