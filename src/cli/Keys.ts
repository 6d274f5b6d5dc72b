/**
 * `fiberbox keys` and `fiberbox audit`: who may use a service, and who did.
 */
import { Clock, Effect, Layer, Option, Redacted, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Admin } from "../admin.ts"
import { AccessScope, type KeyInfo } from "../domain/Access.ts"
import type { AuditEntry } from "../domain/Audit.ts"
import { localOwner } from "../domain/Ids.ts"
import { findService, reach } from "./Connect.ts"
import { printable, refuse } from "./Failure.ts"
import { perform, performEach, remark, writeJson, writeText } from "./Perform.ts"
import { type ConnectionOptions, connectionFlags, jsonFlag, parsed } from "./SharedFlags.ts"
import { commandLine, duration, moment, table } from "./Text.ts"
import * as Units from "./Units.ts"

/** The management of the service that the options mean. */
const administration = (options: ConnectionOptions) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const service = yield* findService(options)
      if (service === undefined) {
        return yield* refuse("keys belong to a service, and none is running", "`fiberbox serve` starts one")
      }
      yield* reach(service)
      return Admin.layer({ url: service.url, token: service.token ?? Redacted.make("") })
    })
  )

const performAsAdmin = <E, R>(
  options: ConnectionOptions & { readonly json: boolean },
  main: Effect.Effect<number | void, E, R | Admin>
) => perform(options, Effect.provide(main, administration(options)))

const mintFlags = {
  owner: Flag.String("owner").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("Whose sandboxes its bearer sees and makes (default: yours)"),
    Flag.withDefault(localOwner)
  ),
  scope: Flag.Literals("scope", AccessScope.literals).pipe(
    Flag.withDescription(
      "What it allows: read looks, exec (the default) also makes and runs, admin also manages the service"
    ),
    Flag.withDefault("exec")
  ),
  label: Flag.String("label").pipe(
    Flag.withMetavar("TEXT"),
    Flag.withDescription("What it is for, in your words"),
    Flag.optional
  ),
  ttl: parsed("ttl", "TIME", "a duration such as 12h or 30d, more than 0", Units.parseDuration).pipe(
    Flag.withDescription("How long it is good for (default: until it is revoked)"),
    Flag.optional
  ),
  ...connectionFlags,
  json: jsonFlag("Write the key as one JSON document, its token in `token`")
}

const mint = Command.make("mint", mintFlags, (options) =>
  performAsAdmin(
    options,
    Effect.gen(function* () {
      const { mintKey } = yield* Admin
      const { info, token } = yield* mintKey({
        owner: options.owner,
        scope: options.scope,
        label: Option.getOrUndefined(options.label),
        ttlMillis: Option.getOrUndefined(options.ttl)
      })
      const secret = Redacted.value(token)
      if (options.json) return yield* writeJson({ ...info, token: secret })
      yield* writeText(secret)
      return yield* remark(options, `key ${info.id}; this is the only time that its token is shown`)
    })
  )
).pipe(
  Command.withDescription("Make a key, and print its token: the only time that it is told"),
  Command.withExamples([
    { command: "fiberbox keys mint --owner alice", description: "Alice sees only her own sandboxes" },
    {
      command: "FIBERBOX_TOKEN=$(fiberbox keys mint --scope read --ttl 1h) ./dashboard",
      description: "For a program that only looks, for an hour"
    }
  ])
)

const common = { ...connectionFlags, json: jsonFlag("Write one JSON document a line for each key") }

const rowOf = (key: KeyInfo, now: number): ReadonlyArray<string> => [
  key.id,
  key.owner,
  key.scope,
  key.label,
  moment(key.createdAt),
  key.lastUsedAt === undefined ? "never" : `${duration(Math.max(0, now - key.lastUsedAt))} ago`,
  key.expiresAt === undefined
    ? "never"
    : key.expiresAt <= now
      ? "expired"
      : `in ${duration(key.expiresAt - now)}`
]

const list = Command.make("ls", common, (options) =>
  performAsAdmin(
    options,
    Effect.gen(function* () {
      const keys = yield* (yield* Admin).listKeys
      if (options.json) return yield* Effect.forEach(keys, writeJson, { discard: true })
      const now = yield* Clock.currentTimeMillis
      const headings = ["KEY", "OWNER", "SCOPE", "LABEL", "CREATED", "USED", "EXPIRES"]
      return yield* writeText(
        table(
          headings,
          keys.map((key) => rowOf(key, now))
        )
      )
    })
  )
).pipe(Command.withAlias("list"), Command.withDescription("List keys; their tokens are not kept"))

const revoke = Command.make(
  "revoke",
  {
    ...common,
    keys: Argument.String("key").pipe(
      Argument.withDescription("Their ids, as `fiberbox keys ls` shows them"),
      Argument.atLeast(1)
    )
  },
  (options) =>
    performAsAdmin(
      options,
      performEach(options, options.keys, (id) =>
        Effect.gen(function* () {
          yield* (yield* Admin).revokeKey(id)
          yield* options.json ? writeJson({ id, status: "revoked" }) : writeText(id)
        })
      )
    )
).pipe(Command.withDescription("End keys at once: their bearers are refused from then on"))

/** The command `keys`. */
export const keys = Command.make("keys").pipe(
  Command.withDescription("Make, list and revoke the keys of a service; needs a token of scope admin"),
  Command.withSubcommands([mint, list, revoke])
)

const outcomeText = ({ details, operation, outcome, repeats = 0, sandboxId }: AuditEntry): string =>
  [
    outcome,
    operation,
    sandboxId ?? "",
    details?.command ?? details?.path ?? details?.name ?? "",
    details?.argv === undefined ? "" : commandLine(details.argv),
    repeats === 0 ? "" : `and ${repeats} more like it`
  ]
    .filter((part) => part !== "")
    .join(" ")

/** The command `audit`. */
export const audit = Command.make(
  "audit",
  {
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on until Ctrl-C"),
      Flag.withDefault(false)
    ),
    after: parsed("after", "N", "0 or a whole number", (text) =>
      /^\d{1,15}$/.test(text) ? Option.some(Number(text)) : Option.none()
    ).pipe(
      Flag.withDescription("Only entries after this number (default: all that are kept)"),
      Flag.optional
    ),
    ...connectionFlags,
    json: jsonFlag("Write one JSON document a line for each entry")
  },
  (options) =>
    performAsAdmin(
      options,
      Effect.gen(function* () {
        const entries = (yield* Admin).audit({
          once: !options.follow,
          ...Option.match(options.after, { onNone: () => ({}), onSome: (after) => ({ after }) })
        })
        return yield* Stream.runForEach(entries, (entry) =>
          options.json
            ? writeJson(entry)
            : writeText(
                printable(
                  `${String(entry.sequence).padStart(6)}   ${moment(entry.at)}   ${entry.owner} (${entry.caller})   ${outcomeText(entry)}`
                )
              )
        )
      })
    )
).pipe(
  Command.withDescription("Show who did what at a service, with what outcome; needs a token of scope admin"),
  Command.withExamples([{ command: "fiberbox audit -f --json", description: "As it happens, for programs" }])
)
