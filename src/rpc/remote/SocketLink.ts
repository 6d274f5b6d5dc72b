/**
 * A link over one WebSocket connection. When the connection ends, so does the
 * link; what was under way on it is lost.
 */
import * as NodeWS from "@effect/platform-node/NodeWS"
import { type Duration, Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import { RpcClient, RpcClientError } from "effect/rpc"
import { Socket } from "effect/socket"
import { HoldsProcess } from "../../services/HoldsProcess.ts"
import * as Binary from "../Binary.ts"
import { maxRequestBytes } from "../SandboxRpcs.ts"
import { ServedRpcs } from "../ServedRpcs.ts"
import { makeAcknowledgements, queued } from "./Acknowledgements.ts"
import type { Link } from "./Carried.ts"
import { Lost, type Refused } from "./Lost.ts"
import { maxRefusalBytes, refusalOf, tooLarge } from "./Refusal.ts"

/** Where and as whom to connect. */
export interface SocketLinkOptions {
  /** ws:// or wss:// */
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
  /** How often the connection is tried out, and how long it may stay silent then; default 5 seconds. */
  readonly pingInterval?: Duration.Input | undefined
}

/** How long a connection may take to be made, in milliseconds. */
const openMillis = 10_000

/** The most bytes of one message from the service: a long list of files is its largest. */
const maxMessageBytes = 64 * 1024 * 1024

const notOpened = (cause: unknown) =>
  new Lost({
    reason: `no connection: ${cause instanceof Error ? cause.message || cause.name : String(cause)}`,
    outcome: "not-started"
  })

/** Opens a WebSocket; a service that refuses says why. */
const open = (
  { url, token }: SocketLinkOptions,
  holdsProcess: boolean
): Effect.Effect<NodeWS.WebSocket, Lost | Refused> =>
  Effect.callback((resume) => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${Redacted.value(token)}` }
    const socket = new NodeWS.WebSocket(url, {
      headers,
      handshakeTimeout: openMillis,
      maxPayload: maxMessageBytes,
      perMessageDeflate: false
    })
    if (!holdsProcess) socket.once("upgrade", (response) => response.socket.unref())
    socket.once("open", () => {
      // Nothing is read before the reader is there.
      socket.pause()
      resume(Effect.succeed(socket))
    })
    socket.once("unexpected-response", (request, response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (text: string) => {
        body += text
        if (body.length > maxRefusalBytes) request.destroy()
      })
      response.once("close", () => {
        request.destroy()
        resume(Effect.fail(refusalOf(response.statusCode ?? 0, body)))
      })
    })
    socket.on("error", (cause) => resume(Effect.fail(notOpened(cause))))
    return Effect.sync(() => socket.terminate())
  })

const serialization = Binary.layer(maxMessageBytes)

/** Connects. The link lives as long as the connection and the scope. */
export const openSocketLink = Effect.fnUntraced(function* (
  options: SocketLinkOptions
): Effect.fn.Return<Link, Lost | Refused, Scope.Scope> {
  const webSocket = yield* Effect.acquireRelease(open(options, yield* HoldsProcess), (socket) =>
    Effect.sync(() => socket.close(1000))
  )
  let isAlive = true
  let isLeft = false
  const hooks = RpcClient.ConnectionHooks.of({
    onConnect: Effect.void,
    onDisconnect: Effect.sync(() => {
      isAlive = false
    })
  })
  const socket = yield* Socket.fromWebSocket(Effect.succeed(webSocket))
  const protocol = yield* RpcClient.makeProtocolSocket({
    pingInterval: options.pingInterval,
    retryPolicy: Schedule.recurs(0)
  }).pipe(
    Effect.provideService(Socket.Socket, socket),
    Effect.provideService(RpcClient.ConnectionHooks, hooks),
    Effect.provide(yield* Layer.build(serialization))
  )
  const acknowledgements = makeAcknowledgements(limited(protocol))
  const { generateRequestId, stream } = acknowledgements
  const client = yield* Effect.provideService(
    RpcClient.make(ServedRpcs, { generateRequestId }),
    RpcClient.Protocol,
    acknowledgements.protocol
  )
  return {
    client,
    stream,
    queue: queued,
    isAlive: () => isAlive && !isLeft && isOpen(webSocket),
    leave: () => {
      isLeft = true
    },
    retire: Effect.suspend(() => {
      if (!isLeft) webSocket.terminate()
      return Effect.andThen(closed(webSocket), Effect.sleep(retireMillis))
    }),
    lost
  }
})

const isOpen = (socket: NodeWS.WebSocket) => socket.readyState === socket.OPEN

/** How long a link whose connection has ended may take to tell its calls so, in milliseconds. */
const retireMillis = 1_000

/** Waits for the end of the connection. */
const closed = (socket: NodeWS.WebSocket) =>
  Effect.callback<void>((resume) => {
    const done = () => resume(Effect.void)
    if (socket.readyState === socket.CLOSED) return done()
    socket.once("close", done)
    return Effect.sync(() => socket.off("close", done))
  })

const isTooLarge = (payload: unknown) => payload instanceof Uint8Array && payload.byteLength > maxRequestBytes

/** Sends nothing that would only make the service end the connection. */
const limited = (inner: RpcClient.Protocol["Service"]): RpcClient.Protocol["Service"] => ({
  ...inner,
  send: (clientId, message, transferables) =>
    message._tag === "Request" && isTooLarge(message.payload)
      ? Effect.fail(
          new RpcClientError.RpcClientError({
            reason: new RpcClientError.RpcClientDefect({ message: tooLarge.message, cause: tooLarge })
          })
        )
      : inner.send(clientId, message, transferables)
})

const lost = ({ reason, message }: RpcClientError.RpcClientError): Lost | Refused =>
  reason._tag === "RpcClientDefect" && reason.cause === tooLarge
    ? tooLarge
    : new Lost({ reason: `the connection was cut (${message})`, outcome: "unknown" })
