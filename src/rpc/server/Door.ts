/**
 * The listening socket and its connections, which it can end whatever their
 * peers do. Those that have not shown who they are count as strangers: there
 * is room for so many, and a new one takes the place of the oldest, so that a
 * flood of them keeps nobody out who has a token.
 */
import { createServer, type Server } from "node:http"
import type { Socket } from "node:net"
import { Duration, Effect } from "effect"
import type { Limits } from "./Settings.ts"

/** How often Node looks for requests that take too long, in milliseconds. */
const checkMillis = 1_000
const maxHeaderBytes = 16 * 1024

/** An HTTP server that does not listen yet, and its strangers. */
export interface Door {
  readonly server: Server
  /** A connection has shown a valid token. */
  readonly recognise: (socket: Socket) => void
  /** Frees the port, for whoever comes next. Requests under way go on; connections on which there are none are closed. */
  readonly leave: () => void
  /** Whether all that was written is on its way. */
  readonly isFlushed: () => boolean
  /** Says on all connections that nothing more comes. What is on its way still arrives. */
  readonly end: () => void
  /** Ends all connections, whatever is under way on them and whether or not anybody reads. */
  readonly cut: () => void
  /** Waits until there is no connection. */
  readonly empty: Effect.Effect<void>
}

/** How often it is told that no connection could be taken, in milliseconds. */
const complainMillis = 10_000

/** Makes the server; `complain` is told, now and then, why connections are not taken. */
export const makeDoor = (limits: Limits, complain: (reason: string) => void): Door => {
  const millis = (duration: Duration.Input) => Duration.toMillis(Duration.fromInputUnsafe(duration))
  const server = createServer({
    headersTimeout: Math.min(millis(limits.headers), millis(limits.request)),
    requestTimeout: millis(limits.request),
    connectionsCheckingInterval: Math.min(checkMillis, millis(limits.headers)),
    maxHeaderSize: maxHeaderBytes,
    noDelay: true
  })
  server.maxConnections = limits.connections
  const connections = new Set<Socket>()
  const waiting = new Set<() => void>()
  /** In order of arrival. */
  const strangers = new Set<Socket>()
  let leaving = false
  let complainedAt = 0

  // Without descriptors left (EMFILE) one connection is lost, and not the service.
  server.on("error", (error) => {
    if (!server.listening || performance.now() - complainedAt < complainMillis) return
    complainedAt = performance.now()
    complain(error.message)
  })
  server.on("request", (_, response) => {
    // What is asked next goes to whoever listens then.
    if (leaving) response.shouldKeepAlive = false
  })
  server.on("connection", (socket) => {
    connections.add(socket)
    strangers.add(socket)
    socket.once("close", () => {
      connections.delete(socket)
      strangers.delete(socket)
      if (connections.size === 0) for (const resume of waiting) resume()
    })
    if (strangers.size <= limits.strangers) return
    for (const oldest of strangers) {
      strangers.delete(oldest)
      oldest.destroy()
      break
    }
  })
  return {
    server,
    recognise: (socket) => strangers.delete(socket),
    leave: () => {
      leaving = true
      server.close()
    },
    isFlushed: () => [...connections].every(({ writableLength }) => writableLength === 0),
    end: () => {
      for (const socket of connections) socket.end()
    },
    cut: () => {
      for (const socket of connections) socket.destroy()
    },
    empty: Effect.callback<void>((resume) => {
      if (connections.size === 0) return resume(Effect.void)
      const done = () => resume(Effect.void)
      waiting.add(done)
      return Effect.sync(() => waiting.delete(done))
    })
  }
}
