/**
 * A whole service: sandboxes on this computer, served to other programs.
 *
 * ```ts
 * Layer.launch(Service.layer({ port: 7777 })).pipe(NodeRuntime.runMain)
 * Layer.launch(Service.layerConfig).pipe(NodeRuntime.runMain) // from the environment
 * ```
 *
 * It begins by bringing into line what the last one left, then listens, and
 * announces itself to the command line of the same user. When it ends it frees
 * its port, takes no more calls, waits for those under way, and leaves detached
 * sandboxes running or kills all, as it is set up. The next one with the same
 * state directory may be started before: it waits until this one has gone.
 */
import { readFileSync } from "node:fs"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Context, Effect, Latch, Layer, Metric, Path, type Redacted, Schedule, Schema } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import type { Failure as ContainerFailure } from "./container.ts"
import * as TokenAuthenticator from "./layers/auth/TokenAuthenticator.ts"
import * as AgentConnector from "./layers/container/AgentConnector.ts"
import * as ContainerBackend from "./layers/container/ContainerBackend.ts"
import * as DirectoryInstance from "./layers/instance/DirectoryInstance.ts"
import * as MemoryBackend from "./layers/memory/MemoryBackend.ts"
import * as MemorySandboxStore from "./layers/memory/MemorySandboxStore.ts"
import * as Logs from "./layers/observability/Logs.ts"
import { metricsAnswer, metricsPath, publicRoute } from "./layers/observability/MetricsRoute.ts"
import * as Telemetry from "./layers/observability/Telemetry.ts"
import * as Database from "./layers/sql/Database.ts"
import * as SqlAuditStore from "./layers/sql/SqlAuditStore.ts"
import * as SqlKeyStore from "./layers/sql/SqlKeyStore.ts"
import * as SqlSandboxStore from "./layers/sql/SqlSandboxStore.ts"
import * as AdminHandlers from "./rpc/AdminHandlers.ts"
import * as InProcess from "./rpc/InProcess.ts"
import * as Server from "./rpc/Server.ts"
import { announce } from "./service/Announcement.ts"
import { localToken } from "./service/LocalToken.ts"
import {
  defaultDrainMillis,
  defaultHost,
  defaultPort,
  endMillis,
  settings as fromEnvironment,
  offersHostImage,
  type ServiceSettings
} from "./service/Settings.ts"
import { elapsedMillis } from "./services/Alarms.ts"
import { Audit } from "./services/Audit.ts"
import { Backend } from "./services/Backend.ts"
import { Calls } from "./services/Calls.ts"
import { checkMillis, Health } from "./services/Health.ts"
import { Instance } from "./services/Instance.ts"
import { Keys } from "./services/Keys.ts"
import { Quotas } from "./services/Quotas.ts"
import { Remains } from "./services/Remains.ts"
import { selfContained } from "./services/selfContained.ts"

export { find } from "./service/Announcement.ts"
export { type ServiceSettings, settings } from "./service/Settings.ts"

/** Why a service does not start: also a port that is taken, a secret that is too short. */
export type Failure = ContainerFailure

/** A service that runs. */
export class RunningService extends Context.Service<
  RunningService,
  {
    /** Where it listens: `http://host:port`. */
    readonly url: string
    /** The token of its own user, if it has one. */
    readonly token: Redacted.Redacted<string> | undefined
    /** Absolute path of what it keeps. */
    readonly stateDir: string
    /** Has the end, now or when it comes, wait for no call: they are cut off, and clients go on with the next service. */
    readonly hurry: Effect.Effect<void>
  }
>()("fiberbox/service/RunningService") {}

/** How often the state directory of a service that is ending is tried, in milliseconds. */
const lockPollMillis = 50

/** The token of the service's own user. */
class OwnToken extends Context.Service<OwnToken, Redacted.Redacted<string> | undefined>()(
  "fiberbox/service/OwnToken"
) {}

const Package = Schema.fromJsonString(Schema.Struct({ version: Schema.String }))
const version = Effect.sync(
  () =>
    Schema.decodeUnknownSync(Package)(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
      .version
)

const isHeld = (error: DirectoryInstance.InstanceError) =>
  error._tag === "Conflict" && error.kind === "instance"

/**
 * The state directory: without a choice, the one of this user's service on this
 * computer. A service that has it and is ending is waited for, as long as one
 * of the same settings may take.
 */
const instance = ({ baseDir, drainMillis = defaultDrainMillis, ephemeral, stateDir }: ServiceSettings) =>
  Layer.effect(
    Instance,
    Effect.gen(function* () {
      const path = yield* Path.Path
      const base = path.resolve(baseDir ?? (yield* DirectoryInstance.defaultBaseDir))
      const chosen = ephemeral === true ? undefined : (stateDir ?? path.join(base, "service"))
      const made = DirectoryInstance.make({ baseDir: base, stateDir: chosen })
      const waitMillis = drainMillis + endMillis
      return yield* Effect.catchIf(made, isHeld, () =>
        Effect.andThen(
          Effect.logInfo(`waiting up to ${waitMillis} ms for whoever has ${chosen} to end`),
          Effect.retry(made, {
            while: isHeld,
            schedule: Schedule.max([Schedule.spaced(lockPollMillis), Schedule.during(waitMillis)])
          })
        )
      )
    })
  )

/** Where machines run, and where they are recorded. Machines in memory end with the program, and so do their records. */
const sandboxes = (settings: ServiceSettings) =>
  settings.backend === "memory"
    ? Layer.merge(MemoryBackend.layer(), MemorySandboxStore.layer)
    : Layer.merge(
        ContainerBackend.layer({
          hostImage: offersHostImage(settings),
          directoryImages: settings.imageRoots ?? []
        }).pipe(Layer.provide(AgentConnector.layer)),
        SqlSandboxStore.layer
      )

/** What all parts stand on. */
const ground = (settings: ServiceSettings) =>
  Layer.mergeAll(sandboxes(settings), SqlKeyStore.layer, SqlAuditStore.layer, Database.probe).pipe(
    Layer.provideMerge(Database.layerInstance),
    Layer.provideMerge(instance(settings)),
    Layer.provideMerge(Layer.merge(SecureRandom.layerWebCrypto, Digest.layerWebCrypto)),
    Layer.provideMerge(NodeServices.layer)
  )

const ownToken = ({ localToken: wanted = true }: ServiceSettings) =>
  Layer.effect(OwnToken, wanted ? localToken : Effect.succeed(undefined))

const authenticator = ({ jwt }: ServiceSettings) =>
  Layer.unwrap(Effect.map(OwnToken, (localToken) => TokenAuthenticator.layer({ jwt, localToken })))

/** Who may come in, how much they may take, and what is noted of it. */
const house = (settings: ServiceSettings) =>
  Layer.mergeAll(
    authenticator(settings).pipe(Layer.provideMerge(Layer.merge(Keys.layer, ownToken(settings)))),
    Calls.layer.pipe(Layer.provideMerge(Audit.layer)),
    Layer.succeed(Quotas, { perOwner: settings.perOwner ?? {}, service: settings.total ?? {} })
  )

/** What can never work here does not begin; what does not work now begins all the same, and says so when it is asked. */
const able = Effect.flatMap(Backend, ({ ready }) =>
  Effect.timeoutOption(ready, checkMillis).pipe(
    Effect.catchTags({ ResourceExhausted: () => Effect.void, BackendFailed: () => Effect.void })
  )
)

/** Detached sandboxes of a service that keeps its state go on without it. */
const actors = (settings: ServiceSettings) =>
  Layer.unwrap(
    Effect.gen(function* () {
      yield* able
      const { ephemeral } = yield* Instance
      const canLeave = settings.backend !== "memory" && !ephemeral
      return InProcess.actors({ onClose: canLeave ? (settings.onClose ?? "leave") : "kill" })
    })
  )

const metricsRoute = ({ publicMetrics }: ServiceSettings) =>
  publicMetrics === true
    ? publicRoute
    : Layer.unwrap(Effect.map(metricsAnswer, (answer) => Server.route("GET", metricsPath, "read", answer)))

const server = (settings: ServiceSettings) =>
  Layer.unwrap(
    Effect.map(Health, ({ readiness }) =>
      Server.layer(
        {
          host: settings.host ?? defaultHost,
          port: settings.port ?? defaultPort,
          hosts: settings.allowedHosts,
          origins: settings.allowedOrigins,
          images: { host: offersHostImage(settings), roots: settings.imageRoots },
          unready: Effect.map(readiness, ({ checks }) =>
            checks.filter(({ ok }) => !ok).map(({ name, reason }) => `${name}: ${reason}`)
          )
        },
        Layer.merge(AdminHandlers.route, metricsRoute(settings))
      )
    )
  )

/** How long is waited for who reads piece by piece over plain HTTP, and would not find this service when the port is free, in milliseconds. */
const returnMillis = 3_000
/** How long answers may be taken in any case that calls which were cut off have given, in milliseconds. */
const leastFlushMillis = 250

/**
 * Says where the service is, and sees to its end. First it is not found any
 * more, and the port is free for the next one; calls that come on open
 * connections are sent there. Those under way have the drain to finish, and to be taken. Then
 * every connection is cut, also one whose peer neither reads nor answers.
 */
const doorkeeper = ({ drainMillis = defaultDrainMillis }: ServiceSettings) =>
  Layer.effect(
    RunningService,
    Effect.gen(function* () {
      const { url } = yield* Server.ServerAddress
      const { cut, leave } = yield* Server.ServerEnd
      const calls = yield* Calls
      const token = yield* OwnToken
      const { baseDir, stateDir } = yield* Instance
      const hurried = yield* Latch.make(false)
      yield* Effect.addFinalizer(() =>
        Effect.gen(function* () {
          const from = yield* elapsedMillis
          const left = Effect.map(elapsedMillis, (now) => Math.max(0, drainMillis - (now - from)))
          yield* calls.refuse
          yield* calls.returned(Math.min(returnMillis, drainMillis))
          yield* leave
          if (calls.running() > 0) {
            yield* Effect.logInfo(`waiting up to ${yield* left} ms for ${calls.running()} calls`)
          }
          const done = yield* Effect.raceFirst(calls.drained(yield* left), Effect.as(hurried.await, false))
          if (!done) yield* Effect.logInfo(`${calls.running()} calls are cut off`)
          const flushMillis = Math.max(leastFlushMillis, yield* left)
          yield* Effect.raceFirst(cut(flushMillis), Effect.andThen(hurried.await, cut(0)))
        })
      )
      if (token !== undefined) yield* announce(baseDir, { url, token })
      yield* Effect.logInfo("serving").pipe(Effect.annotateLogs({ url, stateDir }))
      return { url, token, stateDir, hurry: Effect.asVoid(hurried.open) }
    })
  )

/**
 * A service, for as long as the layer lives. It has a log, metrics and traces of
 * its own; the environment says where they are exported to.
 */
export const layer = (settings: ServiceSettings = {}): Layer.Layer<RunningService, Failure> =>
  selfContained(
    doorkeeper(settings).pipe(
      Layer.provide(server(settings)),
      Layer.provide(Layer.merge(Health.layer, Remains.layer)),
      Layer.provide(InProcess.client),
      Layer.provide(actors(settings)),
      Layer.provide(house(settings)),
      Layer.provide(ground(settings)),
      Layer.provide(Layer.unwrap(Effect.map(version, Telemetry.layer))),
      Layer.provide(Layer.succeed(Metric.MetricRegistry, new Map())),
      Layer.provide(Logs.layer(settings.log))
    )
  )

/** A service with the settings of the environment; one that is wrong is a `ConfigError` that names it. */
export const layerConfig = Layer.unwrap(Effect.map(fromEnvironment, layer))

export * as Service from "./service.ts"
