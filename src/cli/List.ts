/**
 * `fiberbox ls` and `fiberbox info`: what sandboxes there are, and what one is.
 */
import { Clock, Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import type { Metrics } from "../domain/Metrics.ts"
import type { SandboxInfo } from "../domain/Sandbox.ts"
import { Status } from "../domain/Status.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { labelFlag } from "./Labels.ts"
import { performOn, writeJson, writeText } from "./Perform.ts"
import { connectionFlags, jsonFlag, sandboxArgument, whereHelp } from "./SharedFlags.ts"
import { duration, fields, moment, paintStatus, size, table } from "./Text.ts"

/** Which sandboxes are meant. */
export interface Selection {
  readonly labels: ReadonlyArray<readonly [key: string, value: string]>
  readonly statuses?: ReadonlyArray<Status> | undefined
}

/** All sandboxes of a selection, page by page, newest last. */
export const listAll = ({ labels, statuses }: Selection) =>
  Stream.paginate(undefined as string | undefined, (cursor) =>
    Effect.map(
      Sandboxes.list({
        labels: Object.fromEntries(labels),
        limit: 1000,
        ...(statuses === undefined ? {} : { statuses }),
        ...(cursor === undefined ? {} : { cursor })
      }),
      ({ next, sandboxes }) =>
        [sandboxes, next === undefined ? Option.none() : Option.some<string | undefined>(next)] as const
    )
  )

const flags = {
  all: Flag.Boolean("all").pipe(
    Flag.withAlias("a"),
    Flag.withDescription("Also those that were killed; they are remembered for a day"),
    Flag.withDefault(false)
  ),
  label: labelFlag("Only those with this label"),
  status: Flag.Literals("status", Status.literals).pipe(
    Flag.withDescription("Only those in this status; may be repeated"),
    Flag.atLeast(0)
  ),
  quiet: Flag.Boolean("quiet").pipe(
    Flag.withAlias("q"),
    Flag.withDescription("Only their ids, one a line"),
    Flag.withDefault(false)
  ),
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line for each sandbox")
}

type Options = Command.Command.Config.Infer<typeof flags>

const statusesOf = ({ all, status }: Options): ReadonlyArray<Status> | undefined =>
  status.length > 0 ? status : all ? Status.literals : undefined

const expiryOf = ({ expiresAt, status }: SandboxInfo, now: number): string =>
  expiresAt === undefined || status === "killed" ? "" : `in ${duration(Math.max(0, expiresAt - now))}`

const rowOf = (info: SandboxInfo, now: number): ReadonlyArray<string> => [
  info.slug,
  info.status,
  info.spec.image,
  info.backend,
  `${duration(Math.max(0, now - info.createdAt))} ago`,
  expiryOf(info, now),
  info.id
]

const headings = ["NAME", "STATUS", "IMAGE", "BACKEND", "CREATED", "EXPIRES", "ID"]

const printTable = (sandboxes: ReadonlyArray<SandboxInfo>) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    writeText(
      table(
        headings,
        sandboxes.map((info) => rowOf(info, now)),
        (cell, column) => (column === 1 ? paintStatus(cell) : cell)
      )
    )
  )

/** The command `ls`. */
export const ls = Command.make("ls", flags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const found = listAll({ labels: options.label, statuses: statusesOf(options) })
      if (options.json) return yield* Stream.runForEach(found, writeJson)
      if (options.quiet) return yield* Stream.runForEach(found, ({ id }) => writeText(id))
      return yield* Effect.flatMap(Stream.runCollect(found), printTable)
    })
  )
).pipe(
  Command.withAlias("list"),
  Command.withDescription(`List sandboxes, newest last

${whereHelp}`),
  Command.withShortDescription("List sandboxes"),
  Command.withExamples([
    { command: "fiberbox ls", description: "What there is" },
    { command: "fiberbox ls --label job=42 --json | jq -r .status", description: "For programs to read" },
    { command: "fiberbox kill $(fiberbox ls -q --status failed)", description: "Clear away what failed" }
  ])
)

const limitsText = ({ limits }: SandboxInfo["spec"]): string =>
  `memory ${size(limits.memoryBytes)}, ${limits.cpus} cpus, ${limits.pids} pids, disk ${size(limits.diskBytes)}, ${limits.inodes} inodes`

const networkText = ({ network }: SandboxInfo["spec"]): string =>
  typeof network === "string" ? network : `allow:${network.allow.join(",")}`

const restartText = ({ restartPolicy }: SandboxInfo["spec"]): string => {
  switch (restartPolicy._tag) {
    case "Never":
      return "never"
    case "OnFailure":
      return `on-failure:${restartPolicy.maxRestarts}`
    case "Always":
      return "always"
  }
}

/** When a sandbox's time to live ends, in words. */
export const ttlText = ({ expiresAt, spec }: SandboxInfo, now: number): string | undefined =>
  expiresAt === undefined
    ? undefined
    : `${spec.ttl?.action ?? "kill"} in ${duration(Math.max(0, expiresAt - now))}, at ${moment(expiresAt)}`

/** What happens to a sandbox that nobody uses, in words. */
export const idleText = ({ spec }: SandboxInfo): string | undefined =>
  spec.idle === undefined
    ? undefined
    : `${spec.idle.action} after ${duration(spec.idle.afterMillis)} without a call`

const usageText = (metrics: Metrics | undefined): string | undefined =>
  metrics === undefined
    ? undefined
    : `memory ${size(metrics.memoryBytes)} of ${size(metrics.memoryLimitBytes)}, ${metrics.pids} pids, processor ${duration(metrics.cpuMillis)}${metrics.diskBytes === undefined ? "" : `, disk ${size(metrics.diskBytes)}`}`

const pairs = (record: Readonly<Record<string, string>>): string =>
  Object.entries(record)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ")

const infoText = (info: SandboxInfo, metrics: Metrics | undefined, now: number): string =>
  fields([
    ["id", info.id],
    ["name", info.slug],
    ["status", info.reason === undefined ? info.status : `${info.status}: ${info.reason}`],
    ["image", info.spec.image],
    ["backend", `${info.backend}, isolation ${info.isolation}`],
    ["created", `${moment(info.createdAt)}, ${duration(Math.max(0, now - info.createdAt))} ago`],
    ["started", info.startedAt === undefined ? undefined : moment(info.startedAt)],
    ["generation", `${info.generation}`],
    ["limits", limitsText(info.spec)],
    ["in use", usageText(metrics)],
    ["network", networkText(info.spec)],
    ["ttl", ttlText(info, now)],
    ["idle", idleText(info)],
    ["restart", `${restartText(info.spec)}${info.restarts === 0 ? "" : `, ${info.restarts} so far`}`],
    ["start command", info.spec.startCommand],
    ["ports", info.spec.ports.join(", ")],
    ["labels", pairs(info.spec.labels)],
    ["environment", (info.envNames ?? Object.keys(info.spec.env)).join(" ")]
  ])

const infoFlags = {
  ...connectionFlags,
  json: jsonFlag("Write one JSON document: the sandbox, and what it uses as `metrics` while it runs"),
  sandbox: sandboxArgument
}

/** The command `info`. */
export const info = Command.make("info", infoFlags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const found = yield* Sandboxes.get(options.sandbox)
      const handle = yield* Sandboxes.connect(found.id)
      const metrics =
        found.status === "running" ? yield* Effect.orElseSucceed(handle.metrics, () => undefined) : undefined
      if (options.json) return yield* writeJson({ ...found, metrics })
      return yield* writeText(infoText(found, metrics, yield* Clock.currentTimeMillis))
    })
  )
).pipe(
  Command.withDescription("Say all about one sandbox: status, limits, what it uses, when it expires"),
  Command.withShortDescription("Say all about one sandbox"),
  Command.withExamples([
    { command: "fiberbox info dev", description: "By name" },
    {
      command: "fiberbox info --json dev | jq .metrics.memoryBytes",
      description: "The memory in use, in bytes"
    }
  ])
)
