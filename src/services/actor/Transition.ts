/**
 * What a transition of a sandbox's life is, how it fails, and why it may happen by itself.
 */
import { Cause, type Effect } from "effect"
import { type Conflict, type Connection, type InvalidState, SandboxFailed } from "../../domain/Errors.ts"
import type { EventBody } from "../../domain/Event.ts"
import type { ExpiryAction, SandboxInfo } from "../../domain/Sandbox.ts"
import type { ProvisionError } from "../Backend.ts"
import type { Become } from "./Journal.ts"

/** How a command on a sandbox's life can fail. */
export type LifecycleFailure = ProvisionError | InvalidState | SandboxFailed | Connection | Conflict

/** A part of a sandbox's life. */
export type Transition = Effect.Effect<void, LifecycleFailure>

/** What a command on a sandbox's life comes to. */
export type Changed = Effect.Effect<SandboxInfo, LifecycleFailure>

/** A time limit that has passed. */
export type Passed =
  | { readonly what: "ttl"; readonly action: ExpiryAction; readonly expiresAt: number }
  | { readonly what: "idle"; readonly action: ExpiryAction }

/** The event of a limit whose action has been carried out. */
export const expired = ({ what }: Passed): EventBody => ({ _tag: "Expired", what })

/** What is written together with the effect of a limit. One that was set anew in the meantime stays. */
export const becauseOf = (limit: Passed): Become => ({
  reason: limit.what === "ttl" ? "its time to live has passed" : "it was idle for longer than it may",
  before: [expired(limit)],
  change: (record) =>
    limit.what === "ttl" && record.expiresAt === limit.expiresAt ? { expiresAt: undefined } : {}
})

/** A cause in words. */
export const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  if (error instanceof SandboxFailed) return error.reason
  return error instanceof Error ? error.message : String(error)
}
