/**
 * `fiberbox ttl`: when a sandbox expires.
 */
import { Clock, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ExpiryAction, type SandboxInfo } from "../domain/Sandbox.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { idleText, ttlText } from "./List.ts"
import { performOn, writeJson, writeText } from "./Perform.ts"
import { connectionFlags, jsonFlag, parsed, sandboxArgument } from "./SharedFlags.ts"
import * as Units from "./Units.ts"

type Limit = number | "none"

const parseLimit = (text: string): Option.Option<Limit> =>
  text === "none" ? Option.some("none") : Units.parseDuration(text)

const expected = "a duration such as 30m or 2h, more than 0, or none"

const flags = {
  action: Flag.Literals("action", ExpiryAction.literals).pipe(
    Flag.withDescription("What happens at its end (default kill)"),
    Flag.withDefault("kill")
  ),
  idle: parsed("idle", "TIME|none", expected, parseLimit).pipe(
    Flag.withDescription("Set or remove the time that it may go without a call"),
    Flag.optional
  ),
  ...connectionFlags,
  json: jsonFlag("Write one JSON document: sandboxId, expiresAt, ttl, idle; times in milliseconds"),
  sandbox: sandboxArgument,
  time: Argument.String("time").pipe(
    Argument.withDescription("How long from now it may live; none: until it is killed; left out: only look"),
    Argument.filterMap(parseLimit, () => expected),
    Argument.optional
  )
}

const limitOf = (limit: Limit, action: ExpiryAction) =>
  limit === "none" ? null : { afterMillis: limit, action }

const textOf = (info: SandboxInfo, now: number): string =>
  [
    `ttl    ${ttlText(info, now) ?? "none: it lives until it is killed"}`,
    `idle   ${idleText(info) ?? "none"}`
  ].join("\n")

/** The command `ttl`. */
export const ttl = Command.make("ttl", flags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.connect(options.sandbox)
      const limits = {
        ...Option.match(options.time, {
          onNone: () => ({}),
          onSome: (time) => ({ ttl: limitOf(time, options.action) })
        }),
        ...Option.match(options.idle, {
          onNone: () => ({}),
          onSome: (idle) => ({ idle: limitOf(idle, options.action) })
        })
      }
      const isLook = Object.keys(limits).length === 0
      const info = yield* isLook ? sandbox.info : sandbox.setExpiry(limits)
      const { expiresAt, id, spec } = info
      return yield* options.json
        ? writeJson({ sandboxId: id, expiresAt, ttl: spec.ttl, idle: spec.idle })
        : writeText(textOf(info, yield* Clock.currentTimeMillis))
    })
  )
).pipe(
  Command.withDescription("Show, set or remove the time a sandbox has to live, and its idle limit"),
  Command.withExamples([
    { command: "fiberbox ttl dev", description: "How long it has" },
    { command: "fiberbox ttl dev 2h", description: "Two hours from now; then it is killed" },
    { command: "fiberbox ttl --action stop dev 2h", description: "Then it is stopped, and its disk stays" },
    { command: "fiberbox ttl dev none", description: "Until it is killed" },
    { command: "fiberbox ttl --idle 30m --action pause dev", description: "Sleep when nobody calls" }
  ])
)
