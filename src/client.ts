/**
 * Sandboxes of a fiberbox service elsewhere: the same `Sandboxes`, the same
 * handles, streams and errors.
 *
 * ```ts
 * program.pipe(Effect.provide(SandboxesClient.layer({ url: "http://127.0.0.1:7777", token })))
 * ```
 *
 * A connection that is cut is made again, and streams go on where they were; a
 * call that may or may not have happened says so (`Connection` with the outcome
 * `unknown`). Interrupting a call cancels its work at the service. What this
 * program's scopes hold ends when it dies, as soon as its lease lapses.
 */
import { Context, type Duration, Effect, Layer, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { InvalidArgument } from "./domain/Errors.ts"
import { makeAttemptId, makeLeaseId, makeReaderId } from "./domain/Ids.ts"
import { carried } from "./rpc/remote/Carried.ts"
import { makeConnector } from "./rpc/remote/Connector.ts"
import { openHttpLink } from "./rpc/remote/HttpLink.ts"
import { keepLease } from "./rpc/remote/Lease.ts"
import type { PatienceOptions } from "./rpc/remote/Patience.ts"
import { resume } from "./rpc/remote/Resume.ts"
import { openSocketLink } from "./rpc/remote/SocketLink.ts"
import { httpPath, socketPath } from "./rpc/ServedRpcs.ts"
import { CallerLease, SandboxClient } from "./services/SandboxClient.ts"
import { Sandboxes } from "./services/Sandboxes.ts"
import { selfContained } from "./services/selfContained.ts"

/** Which service, and how it is reached. */
export interface Options extends PatienceOptions {
  /** Where the service is: `http://host:port` or `https://host:port`; `ws` and `wss` mean the same. */
  readonly url: string | URL
  /** The key or token to show; every service wants one. */
  readonly token?: string | Redacted.Redacted<string> | undefined
  /** Default: `websocket`, one connection for everything. `http` makes a request for each call. */
  readonly transport?: "websocket" | "http" | undefined
  /** How long what this program holds outlives it when it dies; default 60 seconds, from 1 second to 10 minutes. */
  readonly leaseTtl?: Duration.Input | undefined
  /** How often an idle connection is tried out; one that stays silent as long again is made anew. Default 5 seconds. */
  readonly pingInterval?: Duration.Input | undefined
}

/** How long a request over plain HTTP waits for its answer: what is on the way there does not wait for ever. */
const answerMillis = 20_000

const schemes = new Map([
  ["http:", "http:"],
  ["ws:", "http:"],
  ["https:", "https:"],
  ["wss:", "https:"]
])

/** The service's address with another path and, for WebSocket, another scheme. */
const endpoint = Effect.fnUntraced(function* (url: string | URL, transport: "websocket" | "http") {
  const refuse = (reason: string) => new InvalidArgument({ field: "url", reason })
  const parsed = URL.parse(url)
  const scheme = parsed === null ? undefined : schemes.get(parsed.protocol)
  if (parsed === null || scheme === undefined) {
    return yield* refuse("must be http://host:port, or with https, ws or wss")
  }
  const base = parsed.pathname.replace(/\/+$/, "")
  const path = base + (transport === "http" ? httpPath : socketPath)
  return `${transport === "http" ? scheme : scheme.replace("http", "ws")}//${parsed.host}${path}`
})

const make = Effect.fnUntraced(function* (options: Options) {
  const transport = options.transport ?? "websocket"
  const url = yield* endpoint(options.url, transport)
  const token = typeof options.token === "string" ? Redacted.make(options.token) : options.token
  const random = yield* SecureRandom.SecureRandom
  const withRandom = <A>(effect: Effect.Effect<A, never, SecureRandom.SecureRandom>) =>
    Effect.provideService(effect, SecureRandom.SecureRandom, random)

  const open =
    transport === "http" ? openHttpLink({ url, token }) : openSocketLink({ ...options, url, token })
  const lease = yield* withRandom(makeLeaseId)
  const client = resume(carried(yield* makeConnector(open)), {
    ...options,
    newReader: withRandom(makeReaderId),
    newAttempt: withRandom(makeAttemptId),
    waitMillis: transport === "http" ? answerMillis : undefined
  })
  return { lease, client: yield* keepLease(client, lease, options.leaseTtl ?? "60 seconds") }
})

/** A client of the contract over a connection, and the lease that holds what it makes. */
export const layerClient = (options: Options): Layer.Layer<SandboxClient, InvalidArgument> =>
  Layer.effectContext(
    Effect.map(make(options), ({ client, lease }) =>
      Context.make(SandboxClient, client).pipe(Context.add(CallerLease, lease))
    )
  ).pipe(Layer.provide(SecureRandom.layerWebCrypto))

/**
 * `Sandboxes` of a service. Nothing is connected before the first call; an
 * address that is none is `InvalidArgument`.
 */
export const layer = (options: Options): Layer.Layer<Sandboxes, InvalidArgument> =>
  selfContained(
    Sandboxes.layer.pipe(Layer.provide(layerClient(options)), Layer.provide(SecureRandom.layerWebCrypto))
  )

export * as SandboxesClient from "./client.ts"
