/**
 * WebSocket connections, as a server of sockets that are bounded both ways: a
 * caller that does not read its answers is not read from, and in the end cut
 * off; one that is silent is, too.
 */

import type { Socket as NetSocket } from "node:net"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Clock, Context, Deferred, Duration, Effect } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Socket, SocketServer } from "effect/socket"
import { elapsedMillis, monotonicMillis } from "../../services/Alarms.ts"
import type { Limits } from "./Settings.ts"

type Handler = (socket: Socket.Socket) => Effect.Effect<unknown>

const stalledError = new Socket.SocketError({
  reason: new Socket.SocketWriteError({ cause: new Error("the answers are not read") })
})

/** Waits until little is left to be sent; a peer that takes nothing for too long is cut off. */
const drainedOf = (
  connection: NetSocket,
  waitingBytes: number,
  stalled: Duration.Input
): Effect.Effect<void, Socket.SocketError> => {
  const drain = Effect.callback<void>((resume) => {
    const done = () => {
      connection.off("drain", done)
      connection.off("close", done)
      resume(Effect.void)
    }
    connection.on("drain", done)
    connection.on("close", done)
    if (connection.destroyed) done()
    return Effect.sync(() => {
      connection.off("drain", done)
      connection.off("close", done)
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: stalled,
      orElse: () =>
        Effect.suspend(() => {
          connection.destroy()
          return Effect.fail(stalledError)
        })
    })
  )
  return Effect.suspend(() => (connection.writableLength <= waitingBytes ? Effect.void : drain))
}

/** A socket that takes and gives no more than its peer keeps up with; `seen` is told of everything that arrives. */
const bounded = (
  socket: Socket.Socket,
  drained: Effect.Effect<void, Socket.SocketError>,
  seen: () => void
): Socket.Socket =>
  Socket.make({
    reader: Effect.map(socket.reader, (reader) => ({
      ...reader,
      pull: Effect.andThen(
        drained,
        Effect.map(reader.pull, (frames) => {
          seen()
          return frames
        })
      )
    })),
    writer: Effect.map(socket.writer, (writer) => ({
      write: (chunk) => Effect.andThen(drained, writer.write(chunk)),
      writeAll: (chunks) => Effect.andThen(drained, writer.writeAll(chunks))
    }))
  })

/** A socket server whose sockets come from upgraded requests, and what upgrades them. */
export const makeUpgrades = Effect.fnUntraced(function* (limits: Limits) {
  const { address } = yield* HttpServer.HttpServer
  const handler = yield* Deferred.make<Handler>()
  const silentMillis = Duration.toMillis(Duration.fromInputUnsafe(limits.silent))

  const server = SocketServer.SocketServer.of({
    address,
    run: <R, E, A>(handle: (socket: Socket.Socket) => Effect.Effect<A, E, R>) =>
      Effect.contextWith((context: Context.Context<R>) => {
        const isolated: Handler = (socket) =>
          // What ends one connection is no matter of the others.
          Effect.updateContext(Effect.exit(handle(socket)), (own: Context.Context<never>) =>
            Context.merge(context, own)
          )
        return Effect.andThen(Deferred.succeed(handler, isolated), Effect.never)
      })
  })

  const accept = Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const connection = NodeHttpServerRequest.toIncomingMessage(request).socket
    const socket = yield* Effect.orDie(request.upgrade)
    let seenAt = yield* elapsedMillis
    const clock = yield* Clock.Clock
    const listen = Effect.gen(function* () {
      while (monotonicMillis(clock) - seenAt < silentMillis) yield* Effect.sleep(silentMillis / 4)
      connection.destroy()
    })
    yield* Effect.forkScoped(listen)
    const handle = yield* Deferred.await(handler)
    yield* handle(
      bounded(socket, drainedOf(connection, limits.waitingBytes, limits.stalled), () => {
        seenAt = monotonicMillis(clock)
      })
    )
    return HttpServerResponse.empty()
  })

  return { server, accept }
})
