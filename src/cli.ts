/**
 * The `fiberbox` command. Importing this module runs it.
 *
 * Only what every invocation needs is loaded here: a backend is loaded by the
 * command that uses it.
 */
import { readFileSync } from "node:fs"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer, Logger, Option, type Path, References, Runtime, Schema } from "effect"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import type { sandboxCommands } from "./cli/Commands.ts"
import { makeDoctorCommand } from "./cli/Doctor.ts"
import { describe, ownFailureCode, toLine } from "./cli/Failure.ts"
import * as Presenter from "./cli/Presenter.ts"
import {
  type BackendName,
  defaultBackend,
  makeRunCommand,
  type RunOptions,
  requestOf
} from "./cli/RunCommand.ts"
import { endWith, ignoreStreamErrors, write } from "./cli/Stdio.ts"
import { isInteractive } from "./cli/Terminal.ts"

const loadBackend = (name: BackendName) => {
  switch (name) {
    case "container":
      return Effect.promise(() => import("./container.ts")).pipe(
        Effect.map(({ Container }) => Container.layer({ directoryImages: true }))
      )
    case "memory":
      return Effect.promise(() => import("./memory.ts")).pipe(Effect.map(({ Memory }) => Memory.layer()))
  }
}

/** A backend of this command's own where one is named, or where there is no service. */
const whereToRun = Effect.fnUntraced(function* (options: RunOptions) {
  if (Option.isSome(options.backend)) return yield* loadBackend(options.backend.value)
  const { findService, remote } = yield* Effect.promise(() => import("./cli/Connect.ts"))
  const service = yield* findService(options)
  return yield* service === undefined ? loadBackend(defaultBackend) : remote(service)
})

const run = makeRunCommand((options) =>
  Effect.flatMap(Effect.context<Path.Path>(), (context) =>
    Effect.promise(() => import("./cli/Run.ts")).pipe(
      Effect.flatMap(({ run }) =>
        run(requestOf(options, isInteractive()), Effect.provideContext(whereToRun(options), context))
      ),
      Effect.flatMap(endWith)
    )
  )
)

const Package = Schema.fromJsonString(Schema.Struct({ version: Schema.String }))
const { version } = Schema.decodeUnknownSync(Package)(
  readFileSync(new URL("../package.json", import.meta.url), "utf8")
)

const doctor = makeDoctorCommand(
  Effect.promise(() => import("./cli/Examine.ts")).pipe(
    Effect.flatMap(({ examine }) => examine(version, defaultBackend))
  ),
  endWith
)

const args = process.argv.slice(2)

const description = `Run untrusted code in sandboxes

\`run\` makes a sandbox for one command. The others work on sandboxes that stay, those of the service that
--url or FIBERBOX_URL names (its token: --token or FIBERBOX_TOKEN); else of the one you run on this machine
with \`fiberbox serve\`, found by itself; else, without any service, your own on this machine: they stay
between commands, one command at a time can use them, and time limits act only while one runs.

For completions put \`eval "$(fiberbox --completions bash)"\` into ~/.bashrc, the same with zsh into ~/.zshrc;
\`fiberbox --completions fish > ~/.config/fish/completions/fiberbox.fish\`.`

/** A fresh sandbox for one command is to be quick: then the other commands are not even loaded. */
const others: Effect.Effect<typeof sandboxCommands | readonly []> =
  args[0] === "run"
    ? Effect.succeed<readonly []>([])
    : Effect.map(
        Effect.promise(() => import("./cli/Commands.ts")),
        ({ sandboxCommands }) => sandboxCommands
      )

const main = Effect.flatMap(others, (others) =>
  Command.make("fiberbox").pipe(
    Command.withDescription(description),
    Command.withSubcommands([run, ...others, doctor]),
    (fiberbox) => Command.runWith(fiberbox, { version })(args)
  )
).pipe(
  // What was wrong with the arguments has been told by the presenter.
  Effect.tapCause((cause) =>
    CliError.isCliError(Cause.squash(cause))
      ? Effect.void
      : Effect.ignore(write("stderr", toLine(describe(cause))))
  ),
  Effect.provide(
    Layer.mergeAll(
      NodeServices.layer,
      CliOutput.layerPresenter(Presenter.make(args)),
      CliConfig.layer({
        builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
      }),
      // Standard output belongs to the command; the service's own diary is shown on request (--log-level).
      Layer.succeed(Logger.LogToStderr, true),
      Layer.succeed(References.MinimumLogLevel, "Error")
    )
  )
)

/** Ends the process once what it wrote is out, which a pipe takes later; but never waits long for its reader. */
const exit = (code: number) => {
  setTimeout(() => process.exit(code), 200)
  process.stdout.write("", () => process.stderr.write("", () => process.exit(code)))
}

const exitCodeOf = (result: Exit.Exit<unknown, unknown>): number => {
  if (Exit.isSuccess(result)) return Number(process.exitCode ?? 0)
  return Runtime.getErrorExitCode(Cause.squash(result.cause)) === 0 ? 0 : ownFailureCode
}

const runMain = Runtime.makeRunMain(({ fiber }) => fiber.addObserver((result) => exit(exitCodeOf(result))))

runMain(Effect.andThen(ignoreStreamErrors, main), { disableErrorReporting: true })
