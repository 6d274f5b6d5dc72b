/**
 * The listening socket. Connections that have not shown who they are count as
 * strangers: there is room for so many, and a new one takes the place of the
 * oldest, so that a flood of them keeps nobody out who has a token.
 */
import { createServer, type Server } from "node:http"
import type { Socket } from "node:net"
import { Duration } from "effect"
import type { Limits } from "./Settings.ts"

/** How often Node looks for requests that take too long, in milliseconds. */
const checkMillis = 1_000
const maxHeaderBytes = 16 * 1024

/** An HTTP server that does not listen yet, and its strangers. */
export interface Door {
  readonly server: Server
  /** A connection has shown a valid token. */
  readonly recognise: (socket: Socket) => void
}

/** Makes the server. */
export const makeDoor = (limits: Limits): Door => {
  const millis = (duration: Duration.Input) => Duration.toMillis(Duration.fromInputUnsafe(duration))
  const server = createServer({
    headersTimeout: Math.min(millis(limits.headers), millis(limits.request)),
    requestTimeout: millis(limits.request),
    connectionsCheckingInterval: Math.min(checkMillis, millis(limits.headers)),
    maxHeaderSize: maxHeaderBytes,
    noDelay: true
  })
  server.maxConnections = limits.connections
  /** In order of arrival. */
  const strangers = new Set<Socket>()

  server.on("connection", (socket) => {
    strangers.add(socket)
    socket.once("close", () => strangers.delete(socket))
    if (strangers.size <= limits.strangers) return
    for (const oldest of strangers) {
      strangers.delete(oldest)
      oldest.destroy()
      break
    }
  })
  return { server, recognise: (socket) => strangers.delete(socket) }
}
