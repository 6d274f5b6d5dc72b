/**
 * `fiberbox start`, `stop`, `restart`, `pause`, `resume`, `kill`: the life of
 * sandboxes.
 */
import { Effect, Option, Stream } from "effect"
import { Argument, Command, Flag, Prompt } from "effect/cli"
import type { SandboxInfo } from "../domain/Sandbox.ts"
import type { LifecycleError } from "../rpc/SandboxRpcs.ts"
import type { Sandbox } from "../services/Sandbox.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { refuse } from "./Failure.ts"
import { labelFlag } from "./Labels.ts"
import { listAll } from "./List.ts"
import { performEach, performOn, writeJson, writeText } from "./Perform.ts"
import { connectionFlags, jsonFlag, parsed } from "./SharedFlags.ts"
import { isInteractive } from "./Terminal.ts"
import * as Units from "./Units.ts"

const several = Argument.String("sandbox").pipe(
  Argument.withDescription("Their ids, names or slugs"),
  Argument.atLeast(1)
)

const common = {
  ...connectionFlags,
  json: jsonFlag("Write each sandbox as it is then, one JSON document a line"),
  sandboxes: several
}

type Common = Command.Command.Config.Infer<typeof common>

/** Does something to each sandbox, and prints its name as it was given. */
const toEach = (options: Common, change: (sandbox: Sandbox) => Effect.Effect<SandboxInfo, LifecycleError>) =>
  performOn(
    options,
    performEach(options, options.sandboxes, (name) =>
      Effect.gen(function* () {
        const changed = yield* change(yield* Sandboxes.connect(name))
        yield* options.json ? writeJson(changed) : writeText(name)
      })
    )
  )

const examplesOf = (command: string, description: string) =>
  Command.withExamples([{ command: `fiberbox ${command} dev`, description }])

/** The command `start`. */
export const start = Command.make("start", common, (options) =>
  toEach(options, (sandbox) => sandbox.start)
).pipe(
  Command.withDescription("Start stopped or failed sandboxes; their disks are as they were left"),
  examplesOf("start", "Go on with its files; its programs begin anew")
)

/** The command `stop`. */
export const stop = Command.make(
  "stop",
  {
    grace: parsed("grace", "TIME", "a duration such as 10s, more than 0", Units.parseDuration).pipe(
      Flag.withDescription("How long programs have between SIGTERM and SIGKILL (default 5s)"),
      Flag.optional
    ),
    ...common
  },
  (options) =>
    toEach(options, (sandbox) =>
      sandbox.stop(
        Option.match(options.grace, {
          onNone: () => ({}),
          onSome: (millis) => ({ graceMillis: Math.round(millis) })
        })
      )
    )
).pipe(
  Command.withDescription("Stop sandboxes: their programs end, their disks stay"),
  examplesOf("stop", "End its programs and keep its files")
)

/** The command `restart`. */
export const restart = Command.make("restart", common, (options) =>
  toEach(options, (sandbox) => sandbox.restart)
).pipe(
  Command.withDescription("Replace the machines of running sandboxes by new ones on the same disks"),
  examplesOf("restart", "A fresh machine, the same files")
)

/** The command `pause`. */
export const pause = Command.make("pause", common, (options) =>
  toEach(options, (sandbox) => sandbox.pause)
).pipe(
  Command.withDescription("Stop every process of sandboxes where it stands"),
  examplesOf("pause", "It uses no processor time until `fiberbox resume dev`")
)

/** The command `resume`. */
export const resume = Command.make("resume", common, (options) =>
  toEach(options, (sandbox) => sandbox.resume)
).pipe(
  Command.withDescription("Let paused sandboxes go on"),
  examplesOf("resume", "Its processes go on where they were")
)

const killFlags = {
  all: Flag.Boolean("all").pipe(
    Flag.withAlias("a"),
    Flag.withDescription("All your sandboxes, after asking"),
    Flag.withDefault(false)
  ),
  label: labelFlag("All with this label, after asking"),
  yes: Flag.Boolean("yes").pipe(
    Flag.withAlias("y"),
    Flag.withDescription("Do not ask"),
    Flag.withDefault(false)
  ),
  ...connectionFlags,
  json: jsonFlag("Write what was killed, one JSON document a line"),
  sandboxes: Argument.String("sandbox").pipe(
    Argument.withDescription("Their ids, names or slugs"),
    Argument.atLeast(0)
  )
}

type KillOptions = Command.Command.Config.Infer<typeof killFlags>

const countOf = (count: number) => (count === 1 ? "1 sandbox" : `${count} sandboxes`)

/** Asks whoever sits at the terminal; without one, only `--yes` is an answer. */
const confirm = Effect.fnUntraced(function* (options: KillOptions, found: ReadonlyArray<SandboxInfo>) {
  if (options.yes || found.length === 0) return true
  if (!isInteractive()) {
    return yield* refuse(
      `this would kill ${countOf(found.length)}, and there is nobody to ask`,
      "--yes says so at once"
    )
  }
  const message = `Kill ${countOf(found.length)} (${found.map(({ slug }) => slug).join(", ")}) for good?`
  return yield* Prompt.run(Prompt.Confirm({ message })).pipe(
    Effect.catchTag("QuitError", () => Effect.succeed(false))
  )
})

const selects = (options: KillOptions): boolean => options.all || options.label.length > 0

const check = Effect.fnUntraced(function* (options: KillOptions) {
  if (selects(options) !== options.sandboxes.length > 0) return
  return yield* selects(options)
    ? refuse("name sandboxes, or select them, not both", "leave --all and --label out")
    : refuse("kill what?", "name sandboxes, or say --all")
})

/** The names of what is to be killed: as given, or what a selection finds. */
const toKill = Effect.fnUntraced(function* (options: KillOptions) {
  if (!selects(options)) return options.sandboxes
  const found = yield* Stream.runCollect(listAll({ labels: options.label }))
  return (yield* confirm(options, found)) ? found.map(({ id }) => id) : undefined
})

/** The command `kill`. */
export const kill = Command.make("kill", killFlags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const names = yield* toKill(options)
      if (names === undefined) return 1
      return yield* performEach(options, names, (name) =>
        Effect.gen(function* () {
          const { id } = yield* Sandboxes.get(name)
          yield* Sandboxes.kill(id)
          yield* options.json ? writeJson({ id, status: "killed" }) : writeText(name)
        })
      )
    }),
    check(options)
  )
).pipe(
  Command.withAlias("rm"),
  Command.withDescription("End sandboxes for good and remove all that they hold"),
  Command.withExamples([
    { command: "fiberbox kill dev", description: "One" },
    { command: "fiberbox kill --label job=42 --yes", description: "All of a kind, without being asked" },
    { command: "fiberbox kill --all", description: "All, after being asked" }
  ])
)
