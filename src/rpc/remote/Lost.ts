/**
 * What a transport adds to the ways a call can fail: its answer was lost.
 */
import { Data } from "effect"
import type {
  Authentication,
  Connection,
  InvalidArgument,
  PolicyDenied,
  ResourceExhausted
} from "../../domain/Errors.ts"
import type { ClientWith } from "../../services/SandboxClient.ts"

/** A call whose answer does not come. `not-started` only when it provably never left this program. */
export class Lost extends Data.TaggedError("Lost")<{
  readonly reason: string
  readonly outcome: "not-started" | "unknown"
}> {
  override get message(): string {
    return this.reason
  }
}

/** Whether an error is a lost answer. */
export const isLost = (error: unknown): error is Lost => error instanceof Lost

/** Asking again is of no use: the service does not let the caller in, is none, or cannot take what is asked. */
export type Refused = Authentication | PolicyDenied | ResourceExhausted | InvalidArgument | Connection

/** A client of the contract over one transport, its losses not yet dealt with. */
export type Carrier = ClientWith<Lost | Refused>
