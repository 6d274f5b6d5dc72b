/**
 * What a container needs of its agent's client: the port through which the
 * backend speaks with the program inside.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BackendFailed, Connection, SandboxFailed, Timeout } from "../../domain/Errors.ts"
import type { SandboxId } from "../../domain/Ids.ts"
import type { Machine } from "../../services/Machine.ts"

/** A connection to an agent. */
export interface AgentLink extends Pick<Machine, "processes" | "files" | "dial"> {
  /** Completes when the connection is lost. */
  readonly closed: Effect.Effect<void>
}

/** Connects to agents. */
export class AgentConnector extends Context.Service<
  AgentConnector,
  {
    /**
     * Connects to the agent that listens on a unix socket, until the scope
     * closes. `leaseMillis` is how long it shall wait for us when we are gone; 0 is for ever.
     */
    readonly connect: (options: {
      readonly sandboxId: SandboxId
      readonly socket: string
      readonly leaseMillis: number
    }) => Effect.Effect<AgentLink, BackendFailed | Connection | SandboxFailed | Timeout, Scope.Scope>
  }
>()("fiberbox/layers/container/AgentConnector") {}
