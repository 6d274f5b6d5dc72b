/**
 * `fiberbox create`: a sandbox that stays.
 */
import { Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { ExpiryAction, type RestartPolicy } from "../domain/Sandbox.ts"
import { type CreateOptions, Sandboxes } from "../services/Sandboxes.ts"
import { labelFlag } from "./Labels.ts"
import { performOn, writeJson, writeText } from "./Perform.ts"
import { connectionFlags, jsonFlag, limitsOf, parsed, sandboxFlags, whereHelp } from "./SharedFlags.ts"
import * as Units from "./Units.ts"

/** How soon a machine that died is started again, unless the contract's own client says otherwise. */
const backoff = { initialMillis: 1000, factor: 2, maxMillis: 60_000 }
const defaultRestarts = 5

/** `never`, `on-failure`, `on-failure:3`, `always`. */
export const parseRestart = (text: string): Option.Option<RestartPolicy> => {
  if (text === "never") return Option.some({ _tag: "Never" })
  if (text === "always") return Option.some({ _tag: "Always", ...backoff })
  if (text === "on-failure") {
    return Option.some({ _tag: "OnFailure", maxRestarts: defaultRestarts, ...backoff })
  }
  const times = /^on-failure:(\d{1,9})$/.exec(text)?.[1]
  return times === undefined
    ? Option.none()
    : Option.some({ _tag: "OnFailure", maxRestarts: Number(times), ...backoff })
}

const parsePort = (text: string) => Option.filter(Units.parseCount(text), (port) => port <= 65_535)

const action = (name: string, description: string) =>
  Flag.Literals(name, ExpiryAction.literals).pipe(Flag.withDescription(description), Flag.withDefault("kill"))

const time = (name: string, description: string) =>
  parsed(name, "TIME", "a duration such as 30m or 2h, more than 0", Units.parseDuration).pipe(
    Flag.withDescription(description),
    Flag.optional
  )

const flags = {
  name: Flag.String("name").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("A name, unique among your sandboxes: a-z 0-9 - (default: a short one is made up)"),
    Flag.optional
  ),
  ...sandboxFlags,
  label: labelFlag("A label to find it by"),
  port: parsed("port", "PORT", "a port from 1 to 65535", parsePort).pipe(
    Flag.withDescription("A port that its programs serve on; may be repeated"),
    Flag.atLeast(0)
  ),
  start: Flag.String("start").pipe(
    Flag.withMetavar("COMMAND"),
    Flag.withDescription("A shell command that runs in the background whenever its machine has started"),
    Flag.optional
  ),
  restart: parsed(
    "restart",
    "never|on-failure[:N]|always",
    "never, on-failure, on-failure:3 or always",
    parseRestart
  ).pipe(
    Flag.withDescription(
      "Whether a machine that died is started again, sooner at first and later after each time (default never)"
    ),
    Flag.optional
  ),
  ttl: time("ttl", "How long it may exist (default: until it is killed)"),
  ttlAction: action("ttl-action", "What happens then (default kill)"),
  idle: time("idle", "How long it may go without any call (default: for ever)"),
  idleAction: action("idle-action", "What happens then (default kill)"),
  ...connectionFlags,
  json: jsonFlag("Write the whole sandbox as one JSON document instead of its id")
}

type Options = Command.Command.Config.Infer<typeof flags>

const requestOf = (options: Options): CreateOptions => ({
  ...limitsOf(options),
  name: Option.getOrUndefined(options.name),
  labels: Object.fromEntries(options.label),
  ports: options.port,
  startCommand: Option.getOrUndefined(options.start),
  restartPolicy: Option.getOrUndefined(options.restart),
  ttl: Option.getOrUndefined(
    Option.map(options.ttl, (afterMillis) => ({ afterMillis, action: options.ttlAction }))
  ),
  idle: Option.getOrUndefined(
    Option.map(options.idle, (afterMillis) => ({ afterMillis, action: options.idleAction }))
  )
})

const examples = [
  { command: "fiberbox create --name dev", description: "A sandbox called dev, that stays" },
  {
    command: "ID=$(fiberbox create --ttl 1h --memory 1g)",
    description: "Keep its id; an hour later it is gone"
  },
  {
    command: "fiberbox create --start 'python3 -m http.server 8000' --port 8000 --restart on-failure",
    description: "A server that is started again when its machine dies"
  },
  { command: "fiberbox create --idle 30m --idle-action pause", description: "Sleep when nobody works in it" }
]

/** The command `create`. */
export const create = Command.make("create", flags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.createDetached(requestOf(options))
      const told = options.json ? Effect.flatMap(sandbox.info, writeJson) : writeText(sandbox.id)
      // Nobody would know of it.
      yield* Effect.onError(told, () => Effect.ignore(sandbox.kill))
    })
  )
).pipe(
  Command.withDescription(`Create a sandbox that stays until it is killed or expires, and print its id

${whereHelp}`),
  Command.withShortDescription("Create a sandbox that stays"),
  Command.withExamples(examples)
)
