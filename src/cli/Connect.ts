/**
 * Where a command's sandboxes are: at the service that is named, at the one this
 * user runs on this machine, or, when there is neither, in this user's own state
 * directory, which the command then holds for itself as long as it runs.
 */
import { connect as connectSocket } from "node:net"
import { Config, Effect, Exit, Layer, Option, Path, type Redacted, Schedule, Scope } from "effect"
import { Connection, InvalidArgument } from "../domain/Errors.ts"
import { defaultBaseDir } from "../layers/instance/DirectoryInstance.ts"
import * as Announcement from "../service/Announcement.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { refuse } from "./Failure.ts"
import type { ConnectionOptions } from "./SharedFlags.ts"

/** A service and the token for it. */
export interface Service {
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
}

const setting = <A>(config: Config.Config<A>) => Effect.orElseSucceed(Config.option(config), Option.none)

/** The service that is meant; none when this command is to look after its sandboxes itself. */
export const findService = Effect.fnUntraced(function* (options: ConnectionOptions) {
  const named = Option.isSome(options.url)
    ? options.url
    : yield* setting(Config.NonEmptyString("FIBERBOX_URL"))
  const given = Option.isSome(options.token)
    ? options.token
    : yield* setting(Config.Redacted("FIBERBOX_TOKEN"))
  const own = yield* Announcement.find(yield* defaultBaseDir)
  if (Option.isNone(named)) {
    return own === undefined ? undefined : { url: own.url, token: Option.getOrElse(given, () => own.token) }
  }
  // The token of one's own service is good for its address too, and for no other.
  const known = own !== undefined && sameOrigin(own.url, named.value) ? own.token : undefined
  return { url: named.value, token: Option.getOrElse(given, () => known) }
})

const sameOrigin = (a: string, b: string): boolean => {
  const [one, other] = [URL.parse(a), URL.parse(b)]
  return one !== null && other !== null && one.host === other.host
}

/** The state directory of a user's own sandboxes on this machine. `fiberbox serve` uses the same, and so takes them over. */
export const ownStateDir = Effect.gen(function* () {
  const path = yield* Path.Path
  return path.join(yield* defaultBaseDir, "service")
})

/** How long to wait for an answer at all. */
const reachMillis = 5000

/** Finds out at once whether anybody listens: the client itself is patient, for connections that break on the way. */
export const reach = ({ url }: Service) =>
  Effect.callback<void, Connection | InvalidArgument>((resume) => {
    const parsed = URL.parse(url)
    if (parsed === null || !/^(http|ws)s?:$/.test(parsed.protocol)) {
      const reason = "must be http://host:port, or with https, ws or wss"
      return resume(Effect.fail(new InvalidArgument({ field: "url", reason })))
    }
    const isSecure = parsed.protocol === "https:" || parsed.protocol === "wss:"
    const port = Number(parsed.port === "" ? (isSecure ? 443 : 80) : parsed.port)
    const host = parsed.hostname.replace(/^\[(.*)\]$/, "$1")
    const socket = connectSocket({ host, port, timeout: reachMillis })
    const fail = (why: string) => {
      socket.destroy()
      const reason = `nobody answers at ${parsed.origin}: ${why}`
      resume(Effect.fail(new Connection({ reason, outcome: "not-started" })))
    }
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.void)
    })
    socket.once("timeout", () => fail("no reply"))
    socket.once("error", (error: NodeJS.ErrnoException) => fail(error.code ?? error.message))
    return Effect.sync(() => socket.destroy())
  })

/** `Sandboxes` of a service. */
export const remote = (service: Service) =>
  Effect.gen(function* () {
    yield* reach(service)
    const { SandboxesClient } = yield* Effect.promise(() => import("../client.ts"))
    return SandboxesClient.layer(service)
  })

/** How long to wait for whoever has the state directory: a service that ends takes its drain and two seconds. */
const lockWait = { times: 150, schedule: Schedule.spaced("100 millis") }

/** Builds a layer, and for some seconds again and again while another program holds what it needs. */
export const whenFree = <A, E extends { readonly _tag: string }, R>(layer: Layer.Layer<A, E, R>) =>
  Layer.effectContext(
    Effect.gen(function* () {
      const outer = yield* Effect.scope
      const attempt = Effect.gen(function* () {
        const scope = yield* Scope.fork(outer)
        return yield* Layer.buildWithScope(layer, scope).pipe(
          Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
        )
      })
      return yield* Effect.retry(attempt, { ...lockWait, while: isHeld })
    })
  )

const isHeld = (error: { readonly _tag: string }) =>
  error._tag === "Conflict" && "kind" in error && error.kind === "instance"

/** `Sandboxes` of this user on this machine, in containers, managed by this command. They stay when it ends. */
const embedded = Effect.gen(function* () {
  const stateDir = yield* ownStateDir
  const { Container } = yield* Effect.promise(() => import("../container.ts"))
  return Container.layer({ stateDir, directoryImages: true })
})

/** `Sandboxes`, wherever the options say they are. A service that takes the place of one that ends is found meanwhile. */
export const sandboxes = (options: ConnectionOptions) =>
  whenFree(
    Layer.unwrap(
      Effect.gen(function* () {
        const service = yield* findService(options)
        return service === undefined ? yield* embedded : yield* remote(service)
      })
    )
  ).pipe(
    Layer.catchTag("Conflict", () =>
      Layer.effect(
        Sandboxes,
        Effect.fail(
          refuse(
            "another fiberbox command is using your sandboxes, or a service that is ending",
            "wait for it; or run `fiberbox serve`, by which any number of commands share them"
          )
        )
      )
    )
  )
