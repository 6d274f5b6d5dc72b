/**
 * Whom a connection belongs to, and what is under way on it.
 */
import { Context } from "effect"
import type { Caller } from "../../services/Authenticator.ts"
import type { Budget } from "../../services/Budget.ts"
import type { Turn } from "./Turns.ts"

/** One WebSocket connection, or one HTTP request. */
export interface Session {
  readonly caller: Caller
  readonly transport: "websocket" | "http"
  /** Calls and streams of this connection, and of all of its caller, that have begun and not ended. */
  running: number
  readonly ofCaller: { running: number }
  /** Readers of the programs of each sandbox. */
  readonly readers: Map<string, number>
  /** What may wait for its readers, and to be sent, beyond the little that each of them may have. */
  readonly output: Budget
  /** What its caller may have sent that is not dealt with, beyond the little that each connection may. */
  readonly requests: Budget
  /** The turn in which a large plain HTTP request is decoded. */
  turn?: Turn | undefined
}

/** The session that the present call came by. Undefined where nothing was admitted. */
export const CurrentSession = Context.Reference<Session | undefined>("fiberbox/rpc/server/CurrentSession", {
  defaultValue: () => undefined
})
