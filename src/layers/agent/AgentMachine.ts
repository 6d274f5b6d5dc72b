/**
 * The part of a {@link Machine} that its agent serves: programs, files and
 * connections into it. Pause, limits and the end of the machine are not here:
 * they are the backend's, from outside.
 */
import { Effect, type Scope, Stream } from "effect"
import type { SecureRandom } from "effect/crypto"
import type { IsolationLevel } from "../../domain/Capability.ts"
import { NotFound } from "../../domain/Errors.ts"
import type { Generation } from "../../domain/Ids.ts"
import type { Duplex, Machine } from "../../services/Machine.ts"
import { type AgentClient, connectAgent } from "./AgentClient.ts"
import { type Unreachable, unreachable } from "./AgentFailures.ts"
import { makeFiles } from "./AgentFiles.ts"
import { makeProcesses } from "./AgentProcesses.ts"
import type { AgentError, Connect } from "./AgentSession.ts"
import type { AgentDuplex } from "./Duplex.ts"

/** What the agent cannot know of its machine. */
export interface MachineFacts {
  /** For errors that name the backend. */
  readonly backend: string
  readonly generation: Generation
  readonly isolation: IsolationLevel
  /** How long an answer may take, in milliseconds. */
  readonly transportMillis: number
}

/** The agent's part of a machine, and news of the connection's end. */
export interface AgentMachine extends Pick<Machine, "processes" | "files" | "dial"> {
  /** Completes when the agent has answered our greeting, at once when it has already. */
  readonly greeted: Effect.Effect<void, Unreachable>
  /** Completes when the connection is lost. */
  readonly closed: Effect.Effect<void>
  /** The process that all of a program's tree is below, as the sandbox numbers it, as far as it was heard. */
  readonly supervisorOf: (processId: string) => number | undefined
}

/** An answer the agent owes within this time, if the caller names none. */
export const defaultTransportMillis = 30_000

const toDuplex = (duplex: AgentDuplex, lift: (error: AgentError) => Unreachable): Duplex => ({
  incoming: Stream.mapError(duplex.incoming, lift),
  send: (data) => Effect.mapError(duplex.send(data), lift),
  end: duplex.end
})

const makeDial = (client: AgentClient, facts: MachineFacts): Machine["dial"] => {
  const lift = (error: AgentError) =>
    unreachable(error, { backend: facts.backend, operation: "connect to a port" })
  const isRefused = (error: AgentError) => error._tag === "AgentFailed" && error.code === "refused"
  const dial = (family: 4 | 6, port: number) => client.dial({ family, port }, facts.transportMillis)
  return (port) =>
    dial(4, port).pipe(
      // A program may listen on one of the two loopback addresses only.
      Effect.catchIf(isRefused, (refused) =>
        Effect.mapError(dial(6, port), (error) => (error._tag === "AgentFailed" ? refused : error))
      ),
      Effect.mapError((error) =>
        isRefused(error) ? new NotFound({ kind: "port", id: String(port) }) : lift(error)
      ),
      Effect.map((duplex) => toDuplex(duplex, lift))
    )
}

/** Turns a client into the agent's part of a machine. */
export const makeAgentMachine = (client: AgentClient, facts: MachineFacts): AgentMachine => {
  const { supervisorOf, ...processes } = makeProcesses(client, facts)
  return {
    greeted: Effect.mapError(client.greeted(facts.transportMillis), (error) =>
      unreachable(error, { backend: facts.backend, operation: "greet the agent" })
    ),
    closed: Effect.asVoid(client.closed),
    processes,
    supervisorOf,
    files: makeFiles(client, facts),
    dial: makeDial(client, facts)
  }
}

/**
 * Connects to an agent for as long as the scope lasts, and waits until it has answered, unless `isPaused` says that it
 * stands still. `leaseMillis` is how long it shall wait for a host when this connection is gone before it ends
 * the machine; 0 is for ever.
 */
export const connectMachine = (
  connect: Connect,
  options: MachineFacts & {
    readonly leaseMillis: number
    readonly epoch?: string | undefined
    readonly isPaused?: boolean | undefined
  }
): Effect.Effect<AgentMachine, Unreachable, Scope.Scope | SecureRandom.SecureRandom> =>
  connectAgent(connect, { epoch: options.epoch, leaseMillis: options.leaseMillis }).pipe(
    Effect.mapError((error) =>
      unreachable(error, { backend: options.backend, operation: "connect to the agent" })
    ),
    Effect.map((client) => makeAgentMachine(client, options)),
    Effect.tap((machine) => (options.isPaused === true ? Effect.void : machine.greeted))
  )
