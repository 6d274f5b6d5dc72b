/**
 * How a service is reached, and how much anybody may ask of it.
 */
import type { Duration, Effect } from "effect"
import { maxRequestBytes } from "../SandboxRpcs.ts"

/** Bounds on what callers may do to a service; each protects everybody else. */
export interface ServerLimits {
  /** Connections at one time, all callers together; default 4,096. */
  readonly connections?: number | undefined
  /** Connections, and requests over plain HTTP, of one caller at one time; default 1,024. */
  readonly connectionsPerCaller?: number | undefined
  /** Connections that have not shown a valid token yet; when there are more, the oldest is closed. Default 512. */
  readonly strangers?: number | undefined
  /** Calls and streams of one connection at one time; default 1,024. */
  readonly requestsPerConnection?: number | undefined
  /** The same for all connections of one caller; default 5,120. Calls that end programs have as much again, here and for a connection. */
  readonly requestsPerCaller?: number | undefined
  /** The most bytes of one message to the service; default, and least that clients rely on: 4 MiB and some for its envelope. */
  readonly messageBytes?: number | undefined
  /** Answers that wait for one connection, in bytes; a caller that does not read them is not read from either. Default 2 MiB. */
  readonly waitingBytes?: number | undefined
  /** Output that waits for the readers of one connection, and answers for it to be sent, beyond the little that each may have, in bytes; default 16 MiB. */
  readonly outputBytesPerConnection?: number | undefined
  /** The same for all connections of one caller; default 64 MiB. */
  readonly outputBytesPerCaller?: number | undefined
  /** The same for all callers together; default 256 MiB. */
  readonly outputBytes?: number | undefined
  /** Large requests of one caller that are held at one time, until they are decoded over WebSocket, answered over plain HTTP, in bytes; default 64 MiB. */
  readonly requestBytesPerCaller?: number | undefined
  /** The same for all callers together; default 256 MiB. */
  readonly requestBytes?: number | undefined
  /** Readers of the programs of one sandbox on one connection, so that some are left for others; default 512. */
  readonly readersPerSandbox?: number | undefined
  /** Readers of programs of one caller at one time; default 4,096. */
  readonly readersPerCaller?: number | undefined
  /** How long a caller may leave its answers unread before its connection is closed; default 60 seconds. */
  readonly stalled?: Duration.Input | undefined
  /** How long a connection may be silent, pings included; default 60 seconds. */
  readonly silent?: Duration.Input | undefined
  /** How long the headers of a request may take; default 10 seconds. */
  readonly headers?: Duration.Input | undefined
  /** How long a whole request may take to arrive; default 30 seconds. */
  readonly request?: Duration.Input | undefined
  /** How long output is held for a reader whose connection was cut; default 30 seconds, over plain HTTP a tenth of it. */
  readonly held?: Duration.Input | undefined
}

/** How a service is set up. */
export interface ServerOptions {
  /** The address to listen on; default 127.0.0.1. */
  readonly host?: string | undefined
  /** The port; default 7777, 0 takes a free one. */
  readonly port?: number | undefined
  /** Names and addresses besides loopback and `host` under which callers reach the service, as in the `Host` header, without port. */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** Web origins that may call, as in the `Origin` header; none by default. */
  readonly origins?: ReadonlyArray<string> | undefined
  /** What sandboxes may be made of; default: what the backend knows by name, but not this machine's own files. */
  readonly images?:
    | {
        /** Whether callers may use `host`, this machine's own programs. */
        readonly host?: boolean | undefined
        /** Directories below which `dir:` images may be named. */
        readonly roots?: ReadonlyArray<string> | undefined
      }
    | undefined
  /** How often the token of an open connection is looked at again; default 10 seconds. */
  readonly recheck?: Duration.Input | undefined
  /** How long requests may still take when the service ends; default 0.5 seconds. */
  readonly drain?: Duration.Input | undefined
  /** Why the service wants no requests now, a line for each reason, as `/ready` tells; default: it always wants them. */
  readonly unready?: Effect.Effect<ReadonlyArray<string>> | undefined
  readonly limits?: ServerLimits | undefined
}

/** The limits where nothing else is said. */
export const defaultLimits = {
  connections: 4096,
  connectionsPerCaller: 1024,
  strangers: 512,
  requestsPerConnection: 1024,
  requestsPerCaller: 5120,
  messageBytes: maxRequestBytes + 64 * 1024,
  waitingBytes: 2 * 1024 * 1024,
  outputBytesPerConnection: 16 * 1024 * 1024,
  outputBytesPerCaller: 64 * 1024 * 1024,
  outputBytes: 256 * 1024 * 1024,
  requestBytesPerCaller: 64 * 1024 * 1024,
  requestBytes: 256 * 1024 * 1024,
  readersPerSandbox: 512,
  readersPerCaller: 4096,
  stalled: "60 seconds",
  silent: "60 seconds",
  headers: "10 seconds",
  request: "30 seconds",
  held: "30 seconds"
} as const satisfies ServerLimits

/** All limits, given or default. */
export type Limits = { readonly [Name in keyof ServerLimits]-?: Exclude<ServerLimits[Name], undefined> }

/** Fills in the defaults. */
export const limitsOf = (given: ServerLimits = {}): Limits => ({
  connections: given.connections ?? defaultLimits.connections,
  connectionsPerCaller: given.connectionsPerCaller ?? defaultLimits.connectionsPerCaller,
  strangers: given.strangers ?? defaultLimits.strangers,
  requestsPerConnection: given.requestsPerConnection ?? defaultLimits.requestsPerConnection,
  requestsPerCaller: given.requestsPerCaller ?? defaultLimits.requestsPerCaller,
  messageBytes: given.messageBytes ?? defaultLimits.messageBytes,
  waitingBytes: given.waitingBytes ?? defaultLimits.waitingBytes,
  outputBytesPerConnection: given.outputBytesPerConnection ?? defaultLimits.outputBytesPerConnection,
  outputBytesPerCaller: given.outputBytesPerCaller ?? defaultLimits.outputBytesPerCaller,
  outputBytes: given.outputBytes ?? defaultLimits.outputBytes,
  requestBytesPerCaller: given.requestBytesPerCaller ?? defaultLimits.requestBytesPerCaller,
  requestBytes: given.requestBytes ?? defaultLimits.requestBytes,
  readersPerSandbox: given.readersPerSandbox ?? defaultLimits.readersPerSandbox,
  readersPerCaller: given.readersPerCaller ?? defaultLimits.readersPerCaller,
  stalled: given.stalled ?? defaultLimits.stalled,
  silent: given.silent ?? defaultLimits.silent,
  headers: given.headers ?? defaultLimits.headers,
  request: given.request ?? defaultLimits.request,
  held: given.held ?? defaultLimits.held
})
