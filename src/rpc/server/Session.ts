/**
 * Whom a connection belongs to, and what is under way on it.
 */
import { Context } from "effect"
import type { Caller } from "../../services/Authenticator.ts"

/** One WebSocket connection, or one HTTP request. */
export interface Session {
  readonly caller: Caller
  readonly transport: "websocket" | "http"
  /** Calls and streams that have begun and not ended. */
  running: number
}

/** The session that the present call came by. Undefined where nothing was admitted. */
export const CurrentSession = Context.Reference<Session | undefined>("fiberbox/rpc/server/CurrentSession", {
  defaultValue: () => undefined
})
