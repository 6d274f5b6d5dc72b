/**
 * What a sandbox is: the request that creates one, the resolved specification
 * that is stored, and the view of it that callers see.
 */
import { Schema } from "effect"
import { IsolationLevel } from "./Capability.ts"
import { Generation, IdempotencyKey, Owner, SandboxId, SandboxName } from "./Ids.ts"
import { Status } from "./Status.ts"
import { loneSurrogate } from "./Text.ts"

const positive = (what: string) => Schema.isGreaterThan(0, { message: `${what} must be greater than 0` })

/**
 * A reference to what the sandbox's root is made of: `host` (the machine's own
 * programs), `dir:/absolute/path`, or a name that the backend knows.
 */
export const ImageRef = Schema.String.check(
  Schema.isPattern(/^[a-z0-9][A-Za-z0-9._:/@-]{0,254}$/, {
    message: "an image is `host`, `dir:/absolute/path`, or a name of a-z A-Z 0-9 . _ : / @ -"
  })
)
export type ImageRef = typeof ImageRef.Type

/** Hard limits of one sandbox. */
export const Limits = Schema.Struct({
  /** Bytes of memory, page cache and in-memory files included. */
  memoryBytes: Schema.Int.check(positive("memoryBytes")),
  /** Processor time, in processors: 0.5 is half of one. */
  cpus: Schema.Finite.check(positive("cpus")),
  /** Processes and threads at one time. */
  pids: Schema.Int.check(positive("pids")),
  /** Bytes of all writable storage that outlives memory. */
  diskBytes: Schema.Int.check(positive("diskBytes")),
  /** Files and directories of that storage. */
  inodes: Schema.Int.check(positive("inodes"))
})
export type Limits = typeof Limits.Type

/** What a sandbox gets when its creator does not say. A smaller disk has fewer inodes: one for every 8 KiB. */
export const defaultLimits: Limits = {
  memoryBytes: 512 * 1024 * 1024,
  cpus: 1,
  pids: 256,
  diskBytes: 2 * 1024 * 1024 * 1024,
  inodes: 200_000
}

/**
 * What a sandbox may reach: `none` (nothing but its own loopback), `full`, or
 * only the named domains.
 */
export const Network = Schema.Union([
  Schema.Literals(["none", "full"]),
  Schema.Struct({ allow: Schema.Array(Schema.NonEmptyString) })
])
export type Network = typeof Network.Type

/**
 * Refuses a record at its first entry of which `problem` knows something to say. One pass without schemas for each name:
 * a record of many names is decoded while everybody waits. A checked key schema would silently drop the entries it does
 * not match.
 */
const entries = (problem: (name: string, value: string) => string | undefined) =>
  Schema.makeFilter((record: { readonly [name: string]: string }) => {
    for (const name in record) {
      const issue = problem(name, record[name] ?? "")
      if (issue !== undefined) return { path: [name], issue }
    }
    return undefined
  })

/** Environment variables. A name has no `=` and no NUL, a value has no NUL. */
export const Env = Schema.Record(Schema.String, Schema.String).check(
  entries((name, value) => {
    if (name === "" || name.includes("=") || name.includes("\0")) {
      return "an environment name is not empty and has no = and no NUL"
    }
    if (value.includes("\0")) return "an environment value has no NUL"
    return name.isWellFormed() && value.isWellFormed() ? undefined : loneSurrogate
  })
)
export type Env = typeof Env.Type

const maxLabelName = 128
const maxLabelValue = 1024

/** Key and value tags a sandbox can be found by. */
export const Labels = Schema.Record(Schema.String, Schema.String).check(
  entries((name, value) => {
    if (name.length < 1 || name.length > maxLabelName) {
      return `a label's name has 1 to ${maxLabelName} characters`
    }
    return value.length <= maxLabelValue
      ? undefined
      : `a label's value has at most ${maxLabelValue} characters`
  })
)
export type Labels = typeof Labels.Type

/** Milliseconds, more than 0. */
export const Millis = Schema.Finite.check(positive("a duration in milliseconds"))

/**
 * What happens when a time to live or an idle time has passed. What is impossible at that moment (to pause a
 * sandbox that has failed, to stop one that is being started) is done as soon as it is possible; what fails is tried
 * again. A sandbox that is where the action leads, or has come further, is left as it is.
 */
export const ExpiryAction = Schema.Literals(["kill", "stop", "pause"])
export type ExpiryAction = typeof ExpiryAction.Type

/** A time limit and what happens at its end. */
export const Expiry = Schema.Struct({ afterMillis: Millis, action: ExpiryAction })
export type Expiry = typeof Expiry.Type

/**
 * Whether a machine that died, or could not be made, is started again, and how soon: the n-th restart
 * waits `initialMillis * factor^(n-1)`, at most `maxMillis`. The count starts
 * again once a machine has run for `maxMillis`.
 */
export const RestartPolicy = Schema.Union([
  Schema.TaggedStruct("Never", {}),
  Schema.TaggedStruct("OnFailure", {
    maxRestarts: Schema.Natural,
    initialMillis: Millis,
    factor: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1)),
    maxMillis: Millis
  }),
  Schema.TaggedStruct("Always", {
    initialMillis: Millis,
    factor: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1)),
    maxMillis: Millis
  })
])
export type RestartPolicy = typeof RestartPolicy.Type

/** The wait before the n-th restart (n from 1), or undefined when there shall be none. */
export const restartDelay = (policy: RestartPolicy, restart: number): number | undefined => {
  if (policy._tag === "Never") return undefined
  if (policy._tag === "OnFailure" && restart > policy.maxRestarts) return undefined
  return Math.min(policy.maxMillis, policy.initialMillis * policy.factor ** (restart - 1))
}

const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65535 }))

/** Who the programs of a sandbox run as: the unprivileged `user` (uid 1000) or its own `root`. */
export const User = Schema.Literals(["user", "root"])
export type User = typeof User.Type

/** Everything that decides how a machine is made and run; fixed at creation but for env, labels, ports and start command. */
export const SandboxSpec = Schema.Struct({
  image: ImageRef,
  limits: Limits,
  network: Network,
  env: Env,
  labels: Labels,
  ports: Schema.Array(Port),
  startCommand: Schema.optional(Schema.NonEmptyString),
  restartPolicy: RestartPolicy,
  ttl: Schema.optional(Expiry),
  idle: Schema.optional(Expiry)
})
export type SandboxSpec = typeof SandboxSpec.Type

/** A request to create a sandbox; whatever is left out takes its default. */
export const CreateRequest = Schema.Struct({
  /** A name unique among the owner's sandboxes. */
  name: Schema.optional(SandboxName),
  /** Default: `host`. */
  image: Schema.optional(ImageRef),
  /** Default for each: {@link defaultLimits}; of inodes, at most one for every 8 KiB of disk. */
  limits: Schema.optional(
    Schema.Struct({
      memoryBytes: Schema.optional(Limits.fields.memoryBytes),
      cpus: Schema.optional(Limits.fields.cpus),
      pids: Schema.optional(Limits.fields.pids),
      diskBytes: Schema.optional(Limits.fields.diskBytes),
      inodes: Schema.optional(Limits.fields.inodes)
    })
  ),
  /** Default: `none`. */
  network: Schema.optional(Network),
  /** Environment of every process. */
  env: Schema.optional(Env),
  labels: Schema.optional(Labels),
  /** Ports the sandbox's programs serve on. */
  ports: Schema.optional(Schema.Array(Port)),
  /** A shell command run in the background whenever a machine has started. */
  startCommand: Schema.optional(Schema.NonEmptyString),
  /** Default: never. */
  restartPolicy: Schema.optional(RestartPolicy),
  /**
   * How long the sandbox may exist, from its creation: a point in time, also while it is paused or stopped or the
   * service is away. It limits once: after its action was carried out the sandbox, started or resumed, has no such
   * limit until `setExpiry` sets one.
   */
  ttl: Schema.optional(Expiry),
  /** How long it may run without a call or an attached reader, each time anew. */
  idle: Schema.optional(Expiry),
  /**
   * A repeat with the same key returns the sandbox the first one made; another content is a `Conflict`. For a day
   * after that sandbox was killed the repeat is `SandboxFailed`; a creation that failed or was interrupted leaves its key free.
   */
  idempotencyKey: Schema.optional(IdempotencyKey)
})
export type CreateRequest = typeof CreateRequest.Type

const bytesPerInode = 8192

const resolveLimits = (limits: NonNullable<CreateRequest["limits"]>): Limits => {
  const diskBytes = limits.diskBytes ?? defaultLimits.diskBytes
  return {
    memoryBytes: limits.memoryBytes ?? defaultLimits.memoryBytes,
    cpus: limits.cpus ?? defaultLimits.cpus,
    pids: limits.pids ?? defaultLimits.pids,
    diskBytes,
    inodes:
      limits.inodes ?? Math.max(1, Math.min(defaultLimits.inodes, Math.floor(diskBytes / bytesPerInode)))
  }
}

/** The full specification a request stands for. */
export const resolveSpec = (request: CreateRequest): SandboxSpec => ({
  image: request.image ?? "host",
  limits: resolveLimits(request.limits ?? {}),
  network: request.network ?? "none",
  env: request.env ?? {},
  labels: request.labels ?? {},
  ports: request.ports ?? [],
  startCommand: request.startCommand,
  restartPolicy: request.restartPolicy ?? { _tag: "Never" },
  ttl: request.ttl,
  idle: request.idle
})

/** The parts of a specification that may change while the sandbox lives; what is left out stays. */
export const UpdateRequest = Schema.Struct({
  env: Schema.optional(Env),
  labels: Schema.optional(Labels),
  ports: Schema.optional(Schema.Array(Port)),
  /** `null` removes it. Takes effect when a machine starts. A key without a value is refused: JSON could not tell it from `null`. */
  startCommand: Schema.optionalKey(Schema.NullOr(Schema.NonEmptyString))
})
export type UpdateRequest = typeof UpdateRequest.Type

/** Milliseconds since the epoch, by the service's clock. */
export const Timestamp = Schema.Finite
export type Timestamp = typeof Timestamp.Type

/** What callers see of a sandbox. Times are milliseconds since the epoch. */
export const SandboxInfo = Schema.Struct({
  id: SandboxId,
  owner: Owner,
  name: Schema.optional(SandboxName),
  /** The name, or a short name made from the id; unique per owner. */
  slug: Schema.String,
  status: Status,
  /** Why it is in this status, where nobody asked for that. */
  reason: Schema.optional(Schema.String),
  generation: Generation,
  backend: Schema.String,
  /** The isolation its machines really have. */
  isolation: IsolationLevel,
  /** Whether it outlives the scope or connection that created it. */
  detached: Schema.Boolean,
  spec: SandboxSpec,
  /** For a token of scope `read`, which does not see the values: the names in the environment, which is then empty in `spec`. */
  envNames: Schema.optional(Schema.Array(Schema.String)),
  createdAt: Timestamp,
  /** When the present machine began to run. */
  startedAt: Schema.optional(Timestamp),
  /** When its time to live ends; not there without one, and once its action has been carried out. In the past while that is still to be done. */
  expiresAt: Schema.optional(Timestamp),
  /** Restarts made by the restart policy, failed ones too, since a machine last ran for long enough. */
  restarts: Schema.Natural
})
export type SandboxInfo = typeof SandboxInfo.Type

/** Which sandboxes to list: all labels must match; pages hold `limit` (default 100, at most 1,000) and a MiB at most, newest last. */
export const ListRequest = Schema.Struct({
  labels: Schema.optional(Labels),
  statuses: Schema.optional(Schema.Array(Status)),
  limit: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))),
  /** Where the page before ended: its `next`. */
  cursor: Schema.optional(Schema.String)
})
export type ListRequest = typeof ListRequest.Type

/** One page of sandboxes; without `next` it is the last. Killed ones are listed only when `statuses` asks for them. */
export const SandboxPage = Schema.Struct({
  sandboxes: Schema.Array(SandboxInfo),
  next: Schema.optional(Schema.String)
})
export type SandboxPage = typeof SandboxPage.Type
