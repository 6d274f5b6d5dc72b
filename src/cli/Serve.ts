/**
 * `fiberbox serve`: a service in the foreground.
 */
import { Context, Effect, Exit, Layer, Option, Path, Queue, References, Scope } from "effect"
import { Command, Flag, GlobalFlag } from "effect/cli"
import {
  defaultDrainMillis,
  endMillis,
  type ServiceSettings,
  settings as settingsOfEnvironment
} from "../service/Settings.ts"
import { refuse } from "./Failure.ts"
import { conclude, writeJson, writeText } from "./Perform.ts"
import { backends, defaultBackend } from "./RunCommand.ts"
import { jsonFlag, parsed } from "./SharedFlags.ts"
import { type EndSignal, listen } from "./Signals.ts"
import { fields } from "./Text.ts"
import * as Units from "./Units.ts"

const parsePort = (text: string) =>
  /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Option.some(Number(text)) : Option.none<number>()

const flags = {
  port: parsed("port", "PORT", "a port from 0 to 65535; 0 takes a free one", parsePort).pipe(
    Flag.withAlias("p"),
    Flag.withDescription("Where to listen (default: FIBERBOX_PORT, else 7777; 0: any that is free)"),
    Flag.optional
  ),
  host: Flag.String("host").pipe(
    Flag.withMetavar("ADDRESS"),
    Flag.withDescription(
      "The address to listen on (default: FIBERBOX_HOST, else 127.0.0.1, which only this machine reaches)"
    ),
    Flag.optional
  ),
  stateDir: Flag.String("state-dir").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription(
      "Where it keeps its state (default: FIBERBOX_STATE_DIR, else your own; sandboxes made before without a service are there)"
    ),
    Flag.optional
  ),
  ephemeral: Flag.Boolean("ephemeral").pipe(
    Flag.withDescription("Keep no state: all sandboxes end with it"),
    Flag.withDefault(false)
  ),
  backend: Flag.Literals("backend", backends).pipe(
    Flag.withDescription(
      `Where sandboxes run: Linux containers, or a simulation in memory (default: FIBERBOX_BACKEND, else ${defaultBackend})`
    ),
    Flag.optional
  ),
  hostImage: Flag.Boolean("host-image").pipe(
    Flag.withDescription(
      "Offer the image host, this machine's programs (default: while only this machine reaches it and no JWT opens it); --no-host-image: never"
    ),
    Flag.optional
  ),
  imageRoot: Flag.String("image-root").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription("Allow dir: images below this directory; may be repeated (default: none)"),
    Flag.atLeast(0)
  ),
  onClose: Flag.Literals("on-close", ["leave", "kill"]).pipe(
    Flag.withDescription(
      "What becomes of sandboxes that stay when it ends (default leave: the next one takes them over)"
    ),
    Flag.optional
  ),
  drain: parsed("drain", "TIME", "a duration such as 10s, more than 0", Units.parseDuration).pipe(
    Flag.withDescription(
      "How long calls under way may still take when it ends (default 10s); a second signal cuts it short"
    ),
    Flag.optional
  ),
  json: jsonFlag("Write one JSON document when it is ready: event, url, stateDir, tokenFile")
}

const description = `Serve sandboxes to other programs, over WebSocket and HTTP

When it is ready it says where it is and where the token is, which the commands of the same user on this machine
find by themselves. Every call needs a token: that one, a key (\`fiberbox keys mint\`), or a JWT where JWT_SECRET is set.

SIGTERM or Ctrl-C ends it: its port is free at once, no new call is taken, calls under way have --drain to finish, and
the sandboxes that stay go on running until the next service takes them over (or end, with --on-close kill). It is gone
two seconds after --drain at the latest, whatever its clients do; a second signal cuts the drain short. Exit code 0.
The next service may be started meanwhile: it waits, and clients go on there by themselves.

More settings, by the environment: FIBERBOX_ALLOWED_HOSTS, FIBERBOX_ALLOWED_ORIGINS, JWT_SECRET, JWT_AUDIENCE,
FIBERBOX_OWNER_MAX_* and FIBERBOX_MAX_* (SANDBOXES, MEMORY, CPUS, PIDS, DISK), FIBERBOX_LOG (pretty, logfmt, json,
none), FIBERBOX_PUBLIC_METRICS, FIBERBOX_LOCAL_TOKEN, and OTEL_EXPORTER_OTLP_ENDPOINT for traces.`

const examples = [
  {
    command: "fiberbox serve",
    description: "For this machine; then `fiberbox create`, from another terminal"
  },
  {
    command: "fiberbox serve --backend memory --port 0 --ephemeral",
    description: "For tests: nothing is real"
  },
  {
    command:
      "FIBERBOX_ALLOWED_HOSTS=box.example.org fiberbox serve --host 0.0.0.0 --no-host-image --image-root /srv/images",
    description: "For others, behind a proxy that speaks TLS"
  }
]

type Options = Command.Command.Config.Infer<typeof flags>

/** The environment says everything; an option of the command line says it louder. */
const merged = (environment: ServiceSettings, options: Options): ServiceSettings => ({
  ...environment,
  port: Option.getOrElse(options.port, () => environment.port),
  host: Option.getOrElse(options.host, () => environment.host),
  stateDir: Option.getOrElse(options.stateDir, () => environment.stateDir),
  ephemeral: options.ephemeral || environment.ephemeral,
  backend: Option.getOrElse(options.backend, () => environment.backend),
  hostImage: Option.getOrElse(options.hostImage, () => environment.hostImage),
  imageRoots: options.imageRoot.length > 0 ? options.imageRoot : environment.imageRoots,
  onClose: Option.getOrElse(options.onClose, () => environment.onClose),
  drainMillis: Option.getOrElse(options.drain, () => environment.drainMillis)
})

const settingsOf = (options: Options) =>
  settingsOfEnvironment.pipe(
    Effect.mapError((error) =>
      refuse(`a setting of the environment is wrong: ${error.message}`, "`fiberbox serve --help` names them")
    ),
    Effect.map((environment) => merged(environment, options))
  )

interface Ready {
  readonly url: string
  readonly stateDir: string
  readonly tokenFile: string | undefined
}

const readyText = ({ url, stateDir, tokenFile }: Ready): string =>
  `fiberbox serves at ${url}\n${fields([
    ["  token", tokenFile === undefined ? "none of its own: keys and JWTs open it" : tokenFile],
    ["  state", stateDir]
  ])}
The commands of your user on this machine find it by themselves; others set FIBERBOX_URL and FIBERBOX_TOKEN. Ctrl-C ends it.`

/** Serves until the scope closes. */
const serving = Effect.fnUntraced(function* (options: Options, settings: ServiceSettings) {
  const path = yield* Path.Path
  const { RunningService, Service } = yield* Effect.promise(() => import("../service.ts"))
  const running = Context.get(yield* Layer.build(Service.layer(settings)), RunningService)
  const { stateDir, token, url } = running
  const tokenFile = token === undefined ? undefined : path.join(stateDir, "token")
  const ready: Ready = { url, stateDir, tokenFile }
  yield* options.json ? writeJson({ event: "ready", ...ready }) : writeText(readyText(ready))
  return running
})

/**
 * Ends this process when its end takes longer than it may. Nothing is lost by
 * that: a service that was killed leaves its sandboxes to the next one just as well.
 */
const noLongerThan = (millis: number) =>
  Effect.sync(() => {
    setTimeout(() => {
      process.stderr.write(`fiberbox: the end took longer than ${millis} ms: left as it was\n`)
      process.exit(1)
    }, millis).unref()
  })

/** Serves until it is told to end, and ends; being told again it waits for no call. */
const servingUntil = Effect.fnUntraced(function* (
  options: Options,
  settings: ServiceSettings,
  signals: Queue.Dequeue<EndSignal>
) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const told = Queue.take(signals)
  const running = yield* Effect.raceFirst(
    Effect.asSome(Scope.provide(serving(options, settings), scope)),
    Effect.as(told, Option.none())
  )
  if (Option.isNone(running)) return
  const { hurry } = running.value
  yield* told
  const { drainMillis = defaultDrainMillis } = settings
  const leaves = settings.onClose !== "kill" && settings.ephemeral !== true && settings.backend !== "memory"
  if (leaves) yield* noLongerThan(drainMillis + endMillis)
  yield* Effect.forkChild(
    Effect.gen(function* () {
      yield* told
      yield* Effect.logInfo("told to end again: no call is waited for")
      yield* hurry
      if (leaves) yield* noLongerThan(endMillis)
    })
  )
  yield* Scope.close(scope, Exit.void)
})

/** What is logged unless --log-level says otherwise: also what goes as it should. */
const atLevel = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(GlobalFlag.LogLevel, (chosen) =>
    Effect.provideService(
      effect,
      References.MinimumLogLevel,
      Option.getOrElse(chosen, () => "Info" as const)
    )
  )

/** The command `serve`. */
export const serve = Command.make("serve", flags, (options) =>
  conclude(
    options,
    Effect.gen(function* () {
      const signals = yield* listen
      const settings = yield* settingsOf(options)
      // Told to end, it ends well: with its calls answered, and exit code 0.
      yield* atLevel(servingUntil(options, settings, signals))
    }).pipe(Effect.scoped)
  )
).pipe(
  Command.withDescription(description),
  Command.withShortDescription("Serve sandboxes to other programs"),
  Command.withExamples(examples)
)
