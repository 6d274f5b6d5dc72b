/**
 * The settings of a service, and the environment variables they come from.
 */
import { Config, Option, Schema } from "effect"
import { parseDuration, parsePositive, parseSize } from "../cli/Units.ts"
import type { JwtSettings } from "../layers/auth/Jwt.ts"
import type { LogFormat } from "../layers/observability/Logs.ts"
import type { Quota } from "../services/Quotas.ts"
import type { OnClose } from "../services/Reconciler.ts"

/** How a service is set up. What is left out takes its default. */
export interface ServiceSettings {
  /** The address to listen on; default `127.0.0.1`. */
  readonly host?: string | undefined
  /** The port; default 7777. 0 is any that is free. */
  readonly port?: number | undefined
  /** Names and addresses by which callers may reach it, besides those of this computer's loopback. */
  readonly allowedHosts?: ReadonlyArray<string> | undefined
  /** Origins whose web pages may call it; default: none. */
  readonly allowedOrigins?: ReadonlyArray<string> | undefined
  /** Where machines run; default `container`. */
  readonly backend?: "container" | "memory" | undefined
  /** The state directory, where the next service goes on where this one ended; default `service` in the base directory. */
  readonly stateDir?: string | undefined
  /** Whether everything ends with the service: it has no state directory then. Default no. */
  readonly ephemeral?: boolean | undefined
  /** What the instances of this computer and user share. */
  readonly baseDir?: string | undefined
  /** What becomes of detached sandboxes when the service ends. Default `leave`; an ephemeral one kills. */
  readonly onClose?: OnClose | undefined
  /**
   * How long a service that ends waits for calls under way, in milliseconds; default 10,000. Leaving its sandboxes, it is
   * gone at most two seconds later, whatever its clients do.
   */
  readonly drainMillis?: number | undefined
  /** Whether the image `host` is offered. Default: only when nobody but this user is served, on loopback without `jwt`. */
  readonly hostImage?: boolean | undefined
  /** Directories below which `dir:` images may be; default none. */
  readonly imageRoots?: ReadonlyArray<string> | undefined
  /** Verifies JSON web tokens. */
  readonly jwt?: JwtSettings | undefined
  /** Whether there is a token for this user, in `<stateDir>/token`, which the command line finds by itself; default yes. */
  readonly localToken?: boolean | undefined
  /** The most that the sandboxes of one owner may take together. */
  readonly perOwner?: Quota | undefined
  /** The most that all sandboxes may take together. */
  readonly total?: Quota | undefined
  /** How the log is written; default `pretty` at a terminal, else `logfmt`. */
  readonly log?: LogFormat | undefined
  /** Whether `/metrics` is answered without a token; default no. */
  readonly publicMetrics?: boolean | undefined
}

/** A secret, where it is set and not empty. */
const secret = (name: string) => Config.map(Config.option(Config.Redacted(name)), Option.getOrUndefined)

const text = (name: string) => Config.map(Config.option(Config.NonEmptyString(name)), Option.getOrUndefined)
const flag = (name: string) => Config.map(Config.option(Config.Boolean(name)), Option.getOrUndefined)

const list = (name: string, separator: string) =>
  Config.map(text(name), (value) =>
    value
      ?.split(separator)
      .map((part) => part.trim())
      .filter((part) => part !== "")
  )

const oneOf = <const L extends ReadonlyArray<string>>(literals: L, name: string) =>
  Config.map(Config.option(Config.Literals(literals, name)), Option.getOrUndefined)

/** A value in a notation of the command line. */
const notation = <A>(name: string, parse: (text: string) => Option.Option<A>, message: string) =>
  Config.schema(
    Schema.String.check(Schema.makeFilter((text) => Option.isSome(parse(text)) || message)),
    name
  ).pipe(
    Config.option,
    Config.map((value) => Option.getOrUndefined(Option.flatMap(value, parse)))
  )

const size = (name: string) =>
  notation(name, parseSize, "a size is a number with k, m, g or t behind it: 512m, 1.5g")
const duration = (name: string) => notation(name, parseDuration, "a time looks like 30s, 5m or 1h30m")
const amount = (name: string) => notation(name, parsePositive, "must be a number greater than 0")
const port = Config.schema(
  Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 65535 })),
  "FIBERBOX_PORT"
).pipe(Config.option, Config.map(Option.getOrUndefined))

const quota = (prefix: string) =>
  Config.all({
    sandboxes: amount(`${prefix}_SANDBOXES`),
    memoryBytes: size(`${prefix}_MEMORY`),
    cpus: amount(`${prefix}_CPUS`),
    pids: amount(`${prefix}_PIDS`),
    diskBytes: size(`${prefix}_DISK`)
  })

const jwt = Config.map(
  Config.all({ secret: secret("JWT_SECRET"), audience: text("JWT_AUDIENCE") }),
  ({ secret, audience }): JwtSettings | undefined => (secret === undefined ? undefined : { secret, audience })
)

/** The settings that the environment (or whatever configuration is provided) makes. */
export const settings: Config.Config<ServiceSettings> = Config.all({
  host: text("FIBERBOX_HOST"),
  port,
  allowedHosts: list("FIBERBOX_ALLOWED_HOSTS", ","),
  allowedOrigins: list("FIBERBOX_ALLOWED_ORIGINS", ","),
  backend: oneOf(["container", "memory"], "FIBERBOX_BACKEND"),
  stateDir: text("FIBERBOX_STATE_DIR"),
  ephemeral: flag("FIBERBOX_EPHEMERAL"),
  baseDir: text("FIBERBOX_BASE_DIR"),
  onClose: oneOf(["leave", "kill"], "FIBERBOX_ON_CLOSE"),
  drainMillis: duration("FIBERBOX_DRAIN"),
  hostImage: flag("FIBERBOX_HOST_IMAGE"),
  imageRoots: list("FIBERBOX_IMAGE_ROOTS", ":"),
  jwt,
  localToken: flag("FIBERBOX_LOCAL_TOKEN"),
  perOwner: quota("FIBERBOX_OWNER_MAX"),
  total: quota("FIBERBOX_MAX"),
  log: oneOf(["pretty", "logfmt", "json", "none"], "FIBERBOX_LOG"),
  publicMetrics: flag("FIBERBOX_PUBLIC_METRICS")
})

/** Where a service listens when nothing is said. */
export const defaultHost = "127.0.0.1"
export const defaultPort = 7777
/** How long a service that ends waits for calls under way, in milliseconds. */
export const defaultDrainMillis = 10_000
/** How long its end may take beyond that, in milliseconds, when it leaves its sandboxes running. */
export const endMillis = 2_000

/** Whether an address is reached from this computer only. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host)

/** Whether the image `host` is offered under these settings. */
export const offersHostImage = (settings: ServiceSettings): boolean =>
  settings.hostImage ?? (isLoopback(settings.host ?? defaultHost) && settings.jwt === undefined)
