/**
 * The port through which the container backend speaks with the program inside
 * a container, and the agent behind it.
 */
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { BackendFailed, Connection, Timeout } from "../../domain/Errors.ts"
import type { Generation } from "../../domain/Ids.ts"
import { type AgentMachine, connectMachine, defaultTransportMillis } from "../agent/AgentMachine.ts"
import { unixSocket } from "../agent/UnixTransport.ts"
import { backendName } from "./Settings.ts"

/** Which agent to connect to, and as what. */
export interface ConnectRequest {
  /** The path of the agent's unix socket. */
  readonly socket: string
  readonly generation: Generation
  /** How long the agent shall wait for us when we are gone before it ends the machine, in milliseconds; 0 is for ever. */
  readonly leaseMillis: number
  /** Whether it stands still, so that its answer is not to be waited for. */
  readonly isPaused: boolean
}

/** Connects to agents. */
export class AgentConnector extends Context.Service<
  AgentConnector,
  {
    /** Connects to an agent until the scope closes. */
    readonly connect: (
      request: ConnectRequest
    ) => Effect.Effect<AgentMachine, BackendFailed | Connection | Timeout, Scope.Scope>
  }
>()("fiberbox/layers/container/AgentConnector") {}

/** Agents behind the unix sockets of their containers. */
export const layer: Layer.Layer<AgentConnector, never, SecureRandom.SecureRandom> = Layer.effect(
  AgentConnector,
  Effect.map(SecureRandom.SecureRandom, (random) => ({
    connect: ({ socket, generation, leaseMillis, isPaused }) =>
      connectMachine(unixSocket(socket), {
        backend: backendName,
        isolation: "container",
        generation,
        leaseMillis,
        isPaused,
        transportMillis: defaultTransportMillis
      }).pipe(Effect.provideService(SecureRandom.SecureRandom, random))
  }))
)
