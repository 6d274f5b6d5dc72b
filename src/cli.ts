/**
 * The `fiberbox` command. Importing this module runs it.
 *
 * Only what every invocation needs is loaded here: a backend is loaded by the
 * command that uses it.
 */
import { readFileSync } from "node:fs"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer, Logger, References, Runtime, Schema } from "effect"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { makeDoctorCommand } from "./cli/Doctor.ts"
import { describe, ownFailureCode, toLine } from "./cli/Failure.ts"
import * as Presenter from "./cli/Presenter.ts"
import { type BackendName, defaultBackend, makeRunCommand, requestOf } from "./cli/RunCommand.ts"
import { ignoreStreamErrors, write } from "./cli/Stdio.ts"
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

const endWith = (exitCode: number) =>
  Effect.sync(() => {
    process.exitCode = exitCode
  })

const run = makeRunCommand((options) =>
  Effect.promise(() => import("./cli/Run.ts")).pipe(
    Effect.flatMap(({ run }) => run(requestOf(options, isInteractive()), loadBackend(options.backend))),
    Effect.flatMap(endWith)
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

const fiberbox = Command.make("fiberbox").pipe(
  Command.withDescription("Run untrusted code in sandboxes"),
  Command.withSubcommands([run, doctor])
)

const args = process.argv.slice(2)

const main = Command.runWith(fiberbox, { version })(args).pipe(
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
