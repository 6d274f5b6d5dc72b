/**
 * The contract served to other programs: over WebSocket at `/rpc` and over plain
 * HTTP at `/rpc/http`, on one port.
 *
 * WebSocket connections speak Effect's binary encoding with acknowledgements, so
 * that a slow reader slows its own streams and nothing else. Plain HTTP has no
 * acknowledgements: a stream is held up by its connection, and goes on at its
 * cursor when that breaks.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Context, type Duration, Effect, Layer } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import { BackendFailed } from "../domain/Errors.ts"
import type { AccessScope } from "../services/Authenticator.ts"
import * as Binary from "./Binary.ts"
import { httpPath, ServedRpcs, socketPath } from "./ServedRpcs.ts"
import * as Access from "./server/Access.ts"
import * as Admission from "./server/Admission.ts"
import { type Door, makeDoor } from "./server/Door.ts"
import { wholeFrames } from "./server/Frames.ts"
import { type Gate as GateService, makeGate, refuse } from "./server/Gate.ts"
import { makeRounds, type Rounds } from "./server/Rounds.ts"
import * as Served from "./server/Served.ts"
import { type Limits, limitsOf, type ServerOptions } from "./server/Settings.ts"
import { makeTurns, type Turns } from "./server/Turns.ts"
import { makeUpgrades } from "./server/Upgrades.ts"

export type { ServerLimits, ServerOptions } from "./server/Settings.ts"

/** What lets requests in. */
export class Gate extends Context.Service<Gate, GateService>()("fiberbox/rpc/Server/Gate") {}

/** A running server's address. */
export class ServerAddress extends Context.Service<
  ServerAddress,
  {
    /** Where it listens, as `http://host:port`. */
    readonly url: string
  }
>()("fiberbox/rpc/ServerAddress") {}

/** How a server that runs is ended, step by step. Closing its layer does both. */
export class ServerEnd extends Context.Service<
  ServerEnd,
  {
    /** Frees the port: nobody new comes in, and who is connected stays. */
    readonly leave: Effect.Effect<void>
    /**
     * Ends every connection, whatever is under way on it and whether or not its peer answers. Answers that were given
     * have so long to be taken.
     */
    readonly cut: (grace: Duration.Input) => Effect.Effect<void>
  }
>()("fiberbox/rpc/ServerEnd") {}

const defaultPort = 7777

/** How long requests may still take when a server is closed that nobody has drained. */
const defaultDrain = "500 millis"

/** How often in a row nothing may be found that is still to be sent, and how far apart. */
const sentLooks = 5
const lookTime = "10 millis"

/** How long a peer may take to hear that a connection ends. */
const partTime = "250 millis"

/** The kernel frees a destroyed connection at once; this is for when it does not. */
const cutTime = "500 millis"

const overSocket = Effect.fnUntraced(function* (
  router: HttpRouter.HttpRouter,
  limits: Limits,
  turns: Turns,
  rounds: Rounds
) {
  const gate = yield* Gate
  const upgrades = yield* makeUpgrades(limits)
  const protocol = yield* RpcServer.makeProtocolSocketServer.pipe(
    Effect.provideService(SocketServer.SocketServer, upgrades.server),
    Effect.provide(
      Layer.effect(
        RpcSerialization.RpcSerialization,
        Effect.map(RpcSerialization.RpcSerialization, wholeFrames)
      ).pipe(Layer.provide(Binary.layer(limits.messageBytes)))
    )
  )
  yield* RpcServer.make(ServedRpcs, { disableFatalDefects: true }).pipe(
    Effect.provideService(RpcServer.Protocol, yield* Admission.overSocket(protocol, turns, rounds)),
    Effect.forkScoped
  )
  yield* router.add("GET", socketPath, gate.admitted("read", "websocket", upgrades.accept))
})

const overHttp = Effect.fnUntraced(function* (
  router: HttpRouter.HttpRouter,
  limits: Limits,
  turns: Turns,
  rounds: Rounds
) {
  const gate = yield* Gate
  const { httpEffect, protocol } = yield* RpcServer.makeProtocolWithHttpEffect().pipe(
    Effect.provide(RpcSerialization.layerNdjsonWith({ maxBufferSize: limits.messageBytes * 2 }))
  )
  yield* RpcServer.make(ServedRpcs, { disableFatalDefects: true }).pipe(
    Effect.provideService(RpcServer.Protocol, Admission.overHttp(protocol)),
    Effect.forkScoped
  )
  const answer = yield* Admission.beforeHttp(httpEffect, turns, rounds, limits)
  yield* router.add("POST", httpPath, gate.admitted("read", "http", answer))
})

/** No page and no other name reaches any route, whoever added it. */
const onlyOurs = (router: HttpRouter.HttpRouter) =>
  Effect.flatMap(Gate, (gate) =>
    router.addGlobalMiddleware((answer) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) => {
        const refusal = gate.misled(headers)
        return refusal === undefined ? answer : Effect.succeed(refuse(refusal))
      })
    )
  )

const ok = HttpServerResponse.text("ok\n")
const notReady = (reasons: ReadonlyArray<string>) =>
  HttpServerResponse.text(["not ready", ...reasons, ""].join("\n"), { status: 503 })

const contract = ({ unready = Effect.succeed([]) }: ServerOptions, limits: Limits) =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      yield* onlyOurs(router)
      const turns = yield* makeTurns
      const rounds = makeRounds()
      yield* overSocket(router, limits, turns, rounds)
      yield* overHttp(router, limits, turns, rounds)
      // Anybody may ask these: the answers say nothing but whether, and why not.
      yield* router.add("GET", "/health", ok)
      yield* router.add(
        "GET",
        "/ready",
        Effect.map(unready, (reasons) => (reasons.length === 0 ? ok : notReady(reasons)))
      )
    })
  )

/** Ends the server in bounded time: connections get a moment to end by themselves, and no more. */
const ending = (door: Door, drain: Duration.Input) =>
  Layer.effect(
    ServerEnd,
    Effect.gen(function* () {
      const leave = Effect.sync(door.leave)
      const gate = yield* Gate
      const isSent = () => gate.isAnswered() && door.isFlushed()
      // An answer that was given is written some turns later.
      const sent = Effect.gen(function* () {
        for (let looks = 0; looks < sentLooks; looks = isSent() ? looks + 1 : 0) yield* Effect.sleep(lookTime)
      })
      const cut = Effect.fnUntraced(function* (grace: Duration.Input) {
        yield* Effect.timeoutOption(sent, grace)
        door.end()
        yield* Effect.timeoutOption(door.empty, partTime)
        door.cut()
        yield* Effect.timeoutOption(door.empty, cutTime)
      })
      const drained = Effect.timeoutOption(door.empty, drain)
      yield* Effect.addFinalizer(() => leave.pipe(Effect.andThen(drained), Effect.andThen(cut(partTime))))
      return { leave, cut }
    })
  )

/**
 * A route of a service's own, for {@link layer}: served to callers whose token
 * allows at least `scope`, refused to all others.
 */
export const route = <E, R>(
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: `/${string}`,
  scope: AccessScope,
  answer: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
) =>
  HttpRouter.use((router) =>
    Effect.flatMap(Gate, (gate) => router.add(method, path, gate.admitted(scope, "http", answer)))
  )

/**
 * Serves a client of the contract, usually the handlers of this process, to
 * callers that the authenticator recognises. `routes` adds to what is served:
 * layers of {@link route} and of Effect's `HttpRouter`. A port that is taken is
 * `BackendFailed`.
 */
export const layer = <E = never, R = never>(
  options: ServerOptions = {},
  routes: Layer.Layer<never, E, R> = Layer.empty
) =>
  Layer.unwrap(
    Effect.withFiber((fiber) => {
      const limits = limitsOf(options.limits)
      const runFork = Effect.runForkWith(fiber.context)
      const door = makeDoor(limits, (reason) => {
        runFork(Effect.logWarning(`connections are not taken: ${reason}`))
      })
      const { host = "127.0.0.1", port = defaultPort } = options
      const listening = NodeHttpServer.layer(() => door.server, {
        host,
        port,
        disablePreemptiveShutdown: true,
        websocket: { maxPayload: limits.messageBytes, perMessageDeflate: false }
      }).pipe(
        Layer.catch(({ cause }) => {
          const reason = cause instanceof Error ? cause.message : String(cause)
          return Layer.effectContext(
            Effect.fail(
              new BackendFailed({ backend: "service", operation: "listen", reason, outcome: "not-started" })
            )
          )
        })
      )
      const handlers = Layer.merge(Served.layer(options), Access.layer(limits))
      const server = Layer.effect(
        ServerAddress,
        HttpServer.addressFormattedWith((url) => Effect.succeed({ url }))
      )
      const served = HttpRouter.serve(Layer.merge(contract(options, limits), routes), {
        disableLogger: true,
        disableListenLog: true
      })
      return Effect.succeed(
        ending(door, options.drain ?? defaultDrain).pipe(
          Layer.provideMerge(Layer.merge(served, server)),
          Layer.provide(handlers),
          Layer.provide(Layer.effect(Gate, makeGate(options, door))),
          Layer.provide(listening)
        )
      )
    })
  )
