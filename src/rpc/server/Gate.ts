/**
 * Who comes in. Every request shows under which name it reached the service, and
 * a web page shows its origin: a page in somebody's browser can reach a service
 * on loopback, but cannot hide either. Then the token decides.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Effect, Redacted, Schema, type Scope } from "effect"
import { type Headers, HttpServerRequest, HttpServerResponse } from "effect/http"
import { allows } from "../../domain/Access.ts"
import { PolicyDenied, ResourceExhausted } from "../../domain/Errors.ts"
import type { Owner } from "../../domain/Ids.ts"
import { type AccessScope, Authenticator, type Caller, CurrentCaller } from "../../services/Authenticator.ts"
import { type Budget, makeBudget } from "../../services/Budget.ts"
import { Principal } from "../../services/Principal.ts"
import { Refusal, statusOf } from "../remote/Refusal.ts"
import type { Door } from "./Door.ts"
import { CurrentSession, type Session } from "./Session.ts"
import { type Limits, limitsOf, type ServerOptions } from "./Settings.ts"

type Response = HttpServerResponse.HttpServerResponse
type Request = HttpServerRequest.HttpServerRequest

/** What lets requests in. */
export interface Gate {
  /** The refusal of a request that came by a wrong name or from a web page. */
  readonly misled: (headers: Headers.Headers) => Refusal | undefined
  /** Whether nothing is left to be sent of answers over plain HTTP whose calls have ended. */
  readonly isAnswered: () => boolean
  /** Serves a request whose token allows at least `scope`, as its caller. */
  readonly admitted: <E, R>(
    scope: AccessScope,
    transport: Session["transport"],
    serve: Effect.Effect<Response, E, R>
  ) => Effect.Effect<Response, E, R | Request | Scope.Scope>
}

const encode = Schema.encodeSync(Schema.toCodecJson(Refusal))
const hostPattern = /^(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?$/i
const loopbackPattern = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i
const wildcards = new Set(["0.0.0.0", "::", "[::]"])
const bearerPattern = /^Bearer +(\S+) *$/i

/** The answer to a refused request. The connection is not kept. */
export const refuse = (refusal: Refusal): Response =>
  HttpServerResponse.jsonUnsafe(encode(refusal), {
    status: statusOf(refusal),
    headers: {
      connection: "close",
      ...(refusal._tag === "Authentication" && { "www-authenticate": "Bearer" })
    }
  })

const unavailable = HttpServerResponse.text("the service cannot check tokens at the moment\n", {
  status: 503,
  headers: { connection: "close" }
})

const tokenOf = (headers: Headers.Headers): Redacted.Redacted<string> | undefined => {
  const token = bearerPattern.exec(headers["authorization"] ?? "")?.[1]
  return token === undefined ? undefined : Redacted.make(token)
}

/** Whether a `Host` header and an `Origin` header are the service's own. */
const makeMisled = ({ host = "127.0.0.1", hosts = [], origins = [] }: ServerOptions): Gate["misled"] => {
  const bracketed = (name: string) => (name.includes(":") && !name.startsWith("[") ? `[${name}]` : name)
  const own = wildcards.has(host) ? hosts : [host, ...hosts]
  const names = new Set(own.map((name) => bracketed(name).toLowerCase()))
  const allowed = new Set(origins)
  return (headers) => {
    const name = hostPattern.exec(headers["host"] ?? "")?.[1]?.toLowerCase()
    if (name === undefined || !(loopbackPattern.test(name) || names.has(name))) {
      return new PolicyDenied({ policy: "host", reason: "the service is not known under this name" })
    }
    const origin = headers["origin"]
    return origin === undefined || allowed.has(origin)
      ? undefined
      : new PolicyDenied({ policy: "origin", reason: `pages of ${origin} may not call this service` })
  }
}

/** What one caller has open and under way, and its shares of what may be held of requests and for readers. */
interface Share {
  connections: number
  readonly ofCaller: Session["ofCaller"]
  readonly output: Budget
  readonly requests: Budget
}

/** Counts what callers have open; gives each connection its part of what may be held, and what its caller has under way. */
const makePlaces = (limits: Limits) => {
  const shares = new Map<Owner, Share>()
  const output = makeBudget(limits.outputBytes)
  const requests = makeBudget(limits.requestBytes)
  const leave = ({ owner }: Caller, share: Share) =>
    Effect.sync(() => {
      share.connections--
      // Readers whose connection was cut may be held, and count.
      if (share.connections === 0 && share.output.taken() === 0 && share.ofCaller.running === 0) {
        shares.delete(owner)
      }
    })
  const enter = ({ owner }: Caller) =>
    Effect.suspend(() => {
      const share = shares.get(owner) ?? {
        connections: 0,
        ofCaller: { running: 0 },
        output: makeBudget(limits.outputBytesPerCaller, output),
        requests: makeBudget(limits.requestBytesPerCaller, requests)
      }
      if (share.connections >= limits.connectionsPerCaller) {
        const reason = `${share.connections} connections of this caller are open`
        return Effect.fail(
          new ResourceExhausted({ resource: "connections", reason, retryAfterMillis: 1_000 })
        )
      }
      share.connections++
      shares.set(owner, share)
      return Effect.succeed(share)
    })
  return (caller: Caller) =>
    Effect.map(
      Effect.acquireRelease(enter(caller), (share) => leave(caller, share)),
      ({ ofCaller, output, requests }) => ({
        ofCaller,
        output: makeBudget(limits.outputBytesPerConnection, output),
        requests
      })
    )
}

/** The gate of a service. */
export const makeGate = Effect.fnUntraced(function* (options: ServerOptions, door: Door) {
  const authenticator = yield* Authenticator
  const place = makePlaces(limitsOf(options.limits))
  /** Requests over plain HTTP, until all of the answer has been sent. */
  const requests = new Set<Session>()

  /** Ends the connection when its token is not what it was any more. */
  const recheck = (request: Request, token: Redacted.Redacted<string> | undefined, caller: Caller) =>
    Effect.raceFirst(
      Effect.sleep(options.recheck ?? "10 seconds"),
      authenticator.revoked ?? Effect.never
    ).pipe(
      Effect.andThen(Effect.suspend(() => authenticator.authenticate(token))),
      Effect.map((now) => now.owner === caller.owner && now.scope === caller.scope),
      Effect.catchTags({
        Authentication: () => Effect.succeed(false),
        BackendFailed: () => Effect.succeed(true)
      }),
      Effect.repeat({ while: (isSame) => isSame }),
      Effect.andThen(Effect.sync(() => NodeHttpServerRequest.toIncomingMessage(request).socket.destroy())),
      Effect.forkScoped
    )

  const enter = Effect.fnUntraced(function* (
    request: Request,
    scope: AccessScope,
    transport: Session["transport"]
  ) {
    const token = tokenOf(request.headers)
    const caller = yield* authenticator.authenticate(token)
    if (!allows(caller.scope, scope)) {
      return yield* new PolicyDenied({ policy: "scope", reason: `this needs a token of scope ${scope}` })
    }
    const parts = yield* place(caller)
    door.recognise(NodeHttpServerRequest.toIncomingMessage(request).socket)
    yield* recheck(request, token, caller)
    const session: Session = { caller, transport, running: 0, readers: new Map(), ...parts }
    if (transport === "websocket") return session
    return yield* Effect.acquireRelease(
      Effect.sync(() => {
        requests.add(session)
        return session
      }),
      () => Effect.sync(() => requests.delete(session))
    )
  })

  const gate: Gate = {
    misled: makeMisled(options),
    isAnswered: () => [...requests].every(({ running }) => running > 0),
    admitted: (scope, transport, serve) =>
      Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
        Effect.matchEffect(enter(request, scope, transport), {
          onFailure: (error) => Effect.succeed(error._tag === "BackendFailed" ? unavailable : refuse(error)),
          onSuccess: (session) =>
            serve.pipe(
              Effect.provideService(CurrentSession, session),
              Effect.provideService(CurrentCaller, session.caller),
              Effect.provideService(Principal, session.caller.owner)
            )
        })
      )
  }
  return gate
})
