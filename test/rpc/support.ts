/**
 * A service and its clients for tests: real connections over loopback.
 */
import { Context, Effect, Layer, Redacted } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { SandboxesClient } from "../../src/client.ts"
import { Authentication } from "../../src/domain/Errors.ts"
import { Owner } from "../../src/domain/Ids.ts"
import * as MemoryBackend from "../../src/layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "../../src/layers/memory/MemorySandboxStore.ts"
import { MemoryWorld } from "../../src/layers/memory/MemoryWorld.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import { Authenticator, type Caller } from "../../src/services/Authenticator.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { makeProxy } from "./proxy.ts"

/** A caller of the owner `alice` who may do everything. */
export const alice: Caller = { owner: Owner.make("alice"), scope: "admin", name: "alice" }
export const aliceToken = "token-of-alice"

/** An authenticator that knows these tokens; the map may change while it is used. */
export const knowing = (callers: ReadonlyMap<string, Caller>): Layer.Layer<Authenticator> =>
  Layer.succeed(Authenticator, {
    authenticate: (token) => {
      const caller = token === undefined ? undefined : callers.get(Redacted.value(token))
      const reason = token === undefined ? "there is no token" : "the token is unknown"
      return caller === undefined ? Effect.fail(new Authentication({ reason })) : Effect.succeed(caller)
    }
  })

/** Knows only alice. */
export const onlyAlice = knowing(new Map([[aliceToken, alice]]))

/** The handlers of a service in memory. */
export const memory = InProcess.client.pipe(
  Layer.provide(InProcess.actors({ onClose: "kill" })),
  Layer.provide([MemoryBackend.layer().pipe(Layer.provide(MemoryWorld.layer)), MemorySandboxStore.layer]),
  Layer.provide([SecureRandom.layerWebCrypto, Digest.layerWebCrypto])
)

/** A server on a free port, with nothing forbidden. */
export const serving = (options: Server.ServerOptions = {}) =>
  Server.layer({ port: 0, images: { host: true, roots: ["/"] }, ...options })

/** `Sandboxes` of the service at the server's port. */
export const reaching = (options: Omit<SandboxesClient.Options, "url"> = {}) =>
  Layer.unwrap(
    Effect.map(Server.ServerAddress, ({ url }) =>
      SandboxesClient.layer({ url, token: aliceToken, ...options })
    )
  )

/** `Sandboxes` that reach a client of the contract only through a connection. */
export const served = <E, R>(
  service: Layer.Layer<SandboxClient, E, R>,
  client: Omit<SandboxesClient.Options, "url"> = {},
  server: Server.ServerOptions = {}
) => reaching(client).pipe(Layer.provide(serving(server)), Layer.provide(Layer.merge(service, onlyAlice)))

/** A service in memory that is reached directly and through a proxy that cuts connections. */
export const throughProxy = Effect.fnUntraced(function* (
  client: Omit<SandboxesClient.Options, "url"> = {},
  server: Server.ServerOptions = {}
) {
  const context = yield* Layer.build(serving(server).pipe(Layer.provideMerge(Layer.merge(memory, onlyAlice))))
  const { url } = Context.get(context, Server.ServerAddress)
  const proxy = yield* makeProxy(url)
  const reach = (options: SandboxesClient.Options) =>
    Effect.map(Layer.build(SandboxesClient.layer({ token: aliceToken, ...options })), (context) =>
      Context.get(context, Sandboxes)
    )
  return {
    proxy,
    /** What the service itself calls. */
    inside: Context.get(context, SandboxClient),
    direct: yield* reach({ url }),
    sandboxes: yield* reach({ url: proxy.url, ...client })
  }
})
