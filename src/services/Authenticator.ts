/**
 * Who a token belongs to, and what it allows.
 */
import { Context, type Effect, type Redacted, Schema } from "effect"
import type { Authentication, BackendFailed } from "../domain/Errors.ts"
import type { Owner } from "../domain/Ids.ts"

/**
 * What a token allows: `read` looks (info, lists, events, output, files),
 * `exec` also creates, runs and changes, `admin` also manages keys and the
 * service. Each includes those before it.
 */
export const AccessScope = Schema.Literals(["read", "exec", "admin"])
export type AccessScope = typeof AccessScope.Type

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
  }
>()("fiberbox/services/Authenticator") {}
