/**
 * What is decided about a request before it is decoded: whether its caller may
 * ask for the operation at all, whether it is of a size that the operation can
 * have, and when it is the caller's turn, if decoding takes so long that others
 * feel it. Small requests, which nearly all are, pass after one comparison.
 */
import { ByteSize, Context, Effect, Option, Schema } from "effect"
import { HttpIncomingMessage, HttpServerRequest, type HttpServerResponse } from "effect/http"
import { Rpc, type RpcMessage, type RpcServer } from "effect/rpc"
import { type AccessScope, allows } from "../../domain/Access.ts"
import { InvalidArgument, PolicyDenied, ResourceExhausted } from "../../domain/Errors.ts"
import { AroundCalls } from "../../services/Calls.ts"
import { RequestRoom, RequiredScope, type Room } from "../SandboxRpcs.ts"
import { ServedRpcs } from "../ServedRpcs.ts"
import { weigher } from "./BinaryWeight.ts"
import { smallBytes } from "./Frames.ts"
import { refuse } from "./Gate.ts"
import { Held } from "./Held.ts"
import type { Rounds } from "./Rounds.ts"
import { CurrentSession, type Session } from "./Session.ts"
import type { Limits } from "./Settings.ts"
import type { Turns } from "./Turns.ts"
import { fits, maxDepth, type Weight, weighJson } from "./Weight.ts"

type Protocol = RpcServer.Protocol["Service"]
type Response = HttpServerResponse.HttpServerResponse

/** What is decoded without waiting for a turn: it takes a few milliseconds. */
const light = { bytes: 256 * 1024, values: 512 }

/** What a small request takes of its caller's share of a round: so many of them are begun in one that others come in between. */
const requestShare = 8 * 1024

/** JSON is longer than what it carries: four bytes for three, and escapes. */
const jsonFactor = 2

const operations = [...ServedRpcs.requests.values()]
type Operation = (typeof operations)[number]
const scopeOf = (rpc: Operation) => Context.get(rpc.annotations, RequiredScope)
const roomOf = (rpc: Operation | undefined) => Context.get(rpc?.annotations ?? Context.empty(), RequestRoom)
const operationOf = (tag: string | undefined) => operations.find(({ _tag }) => _tag === tag)
const weighBinary = new Map(operations.map((rpc) => [rpc._tag, weigher(rpc.payloadSchema)] as const))

/** The room of whichever request has most of it, of those that a scope allows. */
const mostRoom = (scope: AccessScope): Room => {
  const rooms = operations.filter((rpc) => allows(scope, scopeOf(rpc))).map(roomOf)
  return {
    bytes: Math.max(...rooms.map(({ bytes }) => bytes)),
    values: Math.max(...rooms.map(({ values }) => values)),
    names: Math.max(...rooms.map(({ names }) => names))
  }
}
const rooms = { read: mostRoom("read"), exec: mostRoom("exec"), admin: mostRoom("admin") }

const tooMuch = (what: string, reason: string) =>
  new InvalidArgument({
    field: "request",
    reason: `${what} has ${reason}; pass large input by a file or standard input`
  })

/** Why a request of this operation is refused, if it is. */
const refusalOf = (
  tag: string | undefined,
  scope: AccessScope,
  bytes: number,
  weight: Weight,
  factor: number
): InvalidArgument | PolicyDenied | undefined => {
  const rpc = operationOf(tag)
  if (rpc !== undefined && !allows(scope, scopeOf(rpc))) {
    return new PolicyDenied({ policy: "scope", reason: `${tag} needs a token of scope ${scopeOf(rpc)}` })
  }
  const what = rpc?._tag ?? "a request that names no operation plainly"
  const room = roomOf(rpc)
  if (bytes > factor * room.bytes) {
    return tooMuch(what, `${bytes} bytes, at most ${factor * room.bytes} are possible`)
  }
  if (fits(weight, room)) return undefined
  if (weight.names > room.names) return tooMuch(what, `more than ${room.names} named values`)
  if (weight.values > room.values) return tooMuch(what, `more than ${room.values} values`)
  return tooMuch(what, `lists or records more than ${maxDepth} deep`)
}

/** Effect's binary encoding has bytes where its types have what they encode. */
const isExit = (encoded: unknown): encoded is RpcMessage.ResponseExitEncoded["exit"] =>
  encoded instanceof Uint8Array

const isLight = (bytes: number, { values }: Weight) => bytes <= light.bytes && values <= light.values

/** Decides about requests of WebSocket connections, whose envelopes are decoded already and were small (Frames.ts). */
export const overSocket = (protocol: Protocol, turns: Turns, rounds: Rounds): Effect.Effect<Protocol> =>
  Effect.map(AroundCalls, (around) => {
    const refused = Effect.fnUntraced(function* (
      clientId: number,
      requestId: string | number,
      rpc: Operation,
      error: InvalidArgument | PolicyDenied
    ) {
      const exit = yield* Effect.exit(around(rpc._tag, {})(Effect.fail(error)))
      const encoded = yield* Schema.encodeUnknownEffect(protocol.codecFor(Rpc.exitSchema(rpc)))(exit)
      if (isExit(encoded)) yield* protocol.send(clientId, { _tag: "Exit", requestId, exit: encoded })
    }, Effect.orDie)
    return {
      ...protocol,
      run: (decode) =>
        protocol.run((clientId, message) => {
          if (message._tag !== "Request") return decode(clientId, message)
          const { id, payload, tag } = message
          if (!(payload instanceof Uint8Array) || payload.byteLength <= smallBytes) {
            return Effect.flatMap(CurrentSession, (session) =>
              session === undefined
                ? decode(clientId, message)
                : Effect.andThen(rounds.pass(session.caller.owner, requestShare), decode(clientId, message))
            )
          }
          const rpc = operationOf(tag)
          const weigh = rpc === undefined ? undefined : weighBinary.get(rpc._tag)
          // Its payload is not looked at.
          if (rpc === undefined || weigh === undefined) return decode(clientId, message)
          return Effect.flatMap(CurrentSession, (session) => {
            if (session === undefined) return Effect.die(new Error("a call came by no session"))
            const { owner, scope } = session.caller
            const weight = weigh(payload, roomOf(rpc))
            const refusal = refusalOf(tag, scope, payload.byteLength, weight, 1)
            if (refusal !== undefined) return refused(clientId, id, rpc, refusal)
            return isLight(payload.byteLength, weight)
              ? decode(clientId, message)
              : turns.during(owner, () => decode(clientId, message))
          })
        })
    }
  })

/** Ends the turn of a plain HTTP request as soon as its body is decoded, and not only when it is answered. */
export const overHttp = (protocol: Protocol): Protocol => ({
  ...protocol,
  run: (decode) =>
    protocol.run((clientId, message) =>
      message._tag === "Eof"
        ? Effect.andThen(
            Effect.flatMap(CurrentSession, (session) => Effect.sync(() => session?.turn?.end())),
            decode(clientId, message)
          )
        : decode(clientId, message)
    )
})

/** How many bytes the body of a request may have: as it says, or any number. */
const announced = ({ headers }: HttpServerRequest.HttpServerRequest): number =>
  headers["transfer-encoding"] === undefined
    ? Number(headers["content-length"] ?? 0)
    : Number.POSITIVE_INFINITY

/** Takes the room of a body before it is read, until the request is answered; `settle` keeps what it has of it. */
const room = ({ requests }: Session, bytes: number) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      let taken = bytes > smallBytes ? bytes : 0
      if (!requests.take(taken)) {
        const reason = `too little is left for ${bytes} bytes of what requests of this caller may hold`
        return Effect.fail(new ResourceExhausted({ resource: "requests", reason, retryAfterMillis: 1_000 }))
      }
      const settle = (kept: number) => {
        const least = Math.min(taken, kept)
        requests.give(taken - least)
        taken = least
      }
      return Effect.succeed({ settle })
    }),
    ({ settle }) => Effect.sync(() => settle(0))
  )

/** Counts an answer that is whole, until it is taken or its connection has ended, as part of what its caller may have waiting. */
const counted = (response: Response) =>
  Effect.gen(function* () {
    const { body } = response
    const session = yield* CurrentSession
    if (session === undefined || body._tag !== "Uint8Array") return response
    const held = yield* Effect.acquireRelease(
      Effect.sync(() => new Held(session.output)),
      (held) => Effect.sync(() => held.clear())
    )
    if (held.ahead(body.contentLength)) return response
    held.clear()
    const reason = "as much as may wait for this caller waits already: take those answers first"
    return yield* new ResourceExhausted({ resource: "answers", reason, retryAfterMillis: 1_000 })
  })

/** Decides about plain HTTP requests, each one document of JSON, before they are answered. */
export const beforeHttp = <R>(
  answer: Effect.Effect<Response, never, R>,
  turns: Turns,
  rounds: Rounds,
  { messageBytes }: Limits
) =>
  Effect.map(AroundCalls, (around) =>
    Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      const session = yield* CurrentSession
      if (session === undefined) return yield* Effect.die(new Error("a request came by no session"))
      const { owner, scope } = session.caller
      const most = jsonFactor * Math.min(messageBytes, rooms[scope].bytes)
      const held = yield* room(session, Math.min(most, announced(request)))
      const body = yield* Effect.option(
        Effect.provideService(request.arrayBuffer, HttpIncomingMessage.MaxBodySize, ByteSize.bytes(most))
      )
      if (Option.isNone(body)) {
        return refuse(tooMuch("a request by this token", `more than the ${most} bytes that are possible`))
      }
      const bytes = new Uint8Array(body.value)
      held.settle(bytes.byteLength)
      if (bytes.byteLength <= smallBytes) {
        yield* rounds.pass(owner, requestShare)
        return yield* answer
      }
      /** Weighs and refuses; what must not be done at once with much of it is done in a turn. */
      const decide = Effect.suspend(() => {
        const weight = weighJson(bytes, rooms[scope])
        const refusal = refusalOf(weight.tag, scope, bytes.byteLength, weight, jsonFactor)
        if (refusal === undefined) return Effect.succeed(weight)
        const fail = Effect.fail(refusal)
        return weight.tag === undefined ? fail : Effect.mapError(around(weight.tag, {})(fail), () => refusal)
      })
      const inTurn = (work: Effect.Effect<Response, InvalidArgument | PolicyDenied, R>) =>
        turns.during(owner, (turn) => {
          session.turn = turn
          return work
        })
      if (bytes.byteLength > light.bytes) return yield* inTurn(Effect.andThen(decide, answer))
      const weight = yield* decide
      return yield* isLight(bytes.byteLength, weight) ? answer : inTurn(answer)
    }).pipe(
      Effect.flatMap(counted),
      Effect.catch((refusal) => Effect.succeed(refuse(refusal)))
    )
  )
