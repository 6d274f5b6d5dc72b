/**
 * WebSocket connections, as a server of sockets that are bounded both ways: a
 * caller that does not read its answers is not read from, and in the end cut
 * off; one that is silent is, too. What all of a caller's connections hold of
 * its messages and of its answers counts together.
 */

import type { Socket as NetSocket } from "node:net"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Clock, Context, Deferred, Duration, Effect, Latch } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Socket, SocketServer } from "effect/socket"
import { elapsedMillis, monotonicMillis } from "../../services/Alarms.ts"
import { Held } from "./Held.ts"
import { CurrentSession } from "./Session.ts"
import type { Limits } from "./Settings.ts"

type Handler = (socket: Socket.Socket) => Effect.Effect<unknown>

/** The most that arrives at once. */
const pieceBytes = 64 * 1024

const stalledError = new Socket.SocketError({
  reason: new Socket.SocketWriteError({ cause: new Error("the answers are not read") })
})

/**
 * `drained` waits until little is left to be sent, and less where the caller's connections have all they may; a peer that
 * takes nothing for too long is cut off. `flows` is to be called whenever the connection has sent all, or is closed.
 */
const drainOf = (connection: NetSocket, mayWait: () => boolean, { waitingBytes, stalled }: Limits) => {
  const flowing = Latch.makeUnsafe(true)
  const drain = Effect.suspend(() => {
    if (!connection.destroyed) flowing.closeUnsafe()
    return flowing.await
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
  const drained: Effect.Effect<void, Socket.SocketError> = Effect.suspend(() => {
    const isLittle = mayWait() ? connection.writableLength <= waitingBytes : !connection.writableNeedDrain
    return isLittle ? Effect.void : drain
  })
  return { drained, flows: () => flowing.openUnsafe() }
}

/** What a connection holds, as part of what its caller's may. */
const makeHolding = Effect.fnUntraced(function* (connection: NetSocket, limits: Limits) {
  const session = yield* CurrentSession
  if (session === undefined) return yield* Effect.die(new Error("a connection came by no session"))
  const answers = new Held(session.output)
  const messages = new Held(session.requests)
  let arrived = 0
  const arrive = ({ byteLength }: Uint8Array) => {
    arrived += byteLength
    // A message cannot be refused before it is whole, and those that waited for room could all wait for each other.
    if (!messages.ahead(arrived)) connection.destroy()
  }
  let mayWait = true
  const wrote = () => {
    mayWait = answers.ahead(connection.writableLength)
  }
  const { drained, flows } = drainOf(connection, () => mayWait, limits)
  const sent = () => {
    wrote()
    flows()
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      // What has arrived is counted before it is taken.
      connection.prependListener("data", arrive)
      connection.on("drain", sent)
      connection.on("close", flows)
    }),
    () =>
      Effect.sync(() => {
        connection.off("data", arrive)
        connection.off("drain", sent)
        connection.off("close", flows)
        answers.clear()
        messages.clear()
      })
  )
  return {
    drained,
    /** Answers were written. */
    wrote: Effect.sync(wrote),
    /** Messages of so many bytes are taken. */
    took: (bytes: number) => {
      // The frames around them were counted, too, and are forgotten with what little there may be of the next message.
      arrived = arrived - bytes > pieceBytes ? arrived - bytes : 0
      messages.ahead(arrived)
      messages.given(bytes)
    },
    /** Those that were taken are dealt with. */
    dealt: () => messages.given(0)
  }
})

type Holding = Effect.Success<ReturnType<typeof makeHolding>>

const sizeOf = (frames: ReadonlyArray<string | Uint8Array>): number =>
  frames.reduce((sum, { length }) => sum + length, 0)

/** A socket that takes and gives no more than its peer keeps up with; `seen` is told of everything that arrives. */
const bounded = (socket: Socket.Socket, { drained, wrote, took, dealt }: Holding, seen: () => void) =>
  Socket.make({
    reader: Effect.map(socket.reader, (reader) => ({
      ...reader,
      pull: Effect.suspend(() => {
        dealt()
        return Effect.andThen(
          drained,
          Effect.map(reader.pull, (frames) => {
            seen()
            took(sizeOf(frames))
            return frames
          })
        )
      })
    })),
    writer: Effect.map(socket.writer, (writer) => ({
      write: (chunk) => Effect.andThen(Effect.andThen(drained, writer.write(chunk)), wrote),
      writeAll: (chunks) => Effect.andThen(Effect.andThen(drained, writer.writeAll(chunks)), wrote)
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
    const holding = yield* makeHolding(connection, limits)
    yield* handle(
      bounded(socket, holding, () => {
        seenAt = monotonicMillis(clock)
      })
    )
    return HttpServerResponse.empty()
  })

  return { server, accept }
})
