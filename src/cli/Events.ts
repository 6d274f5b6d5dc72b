/**
 * `fiberbox events`: what happened to a sandbox.
 */
import { Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import type { EventBody } from "../domain/Event.ts"
import { exitCodeOf } from "../domain/Process.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { printable } from "./Failure.ts"
import { performOn, writeJson, writeText } from "./Perform.ts"
import { connectionFlags, jsonFlag, parsed, sandboxArgument } from "./SharedFlags.ts"
import { duration, moment } from "./Text.ts"

const flags = {
  follow: Flag.Boolean("follow").pipe(
    Flag.withAlias("f"),
    Flag.withDescription("Go on until the sandbox is killed or Ctrl-C"),
    Flag.withDefault(false)
  ),
  after: parsed("after", "N", "0 or a whole number", (text) =>
    /^\d{1,15}$/.test(text) ? Option.some(Number(text)) : Option.none()
  ).pipe(Flag.withDescription("Only events after this number (default: all that are kept)"), Flag.optional),
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line for each event"),
  sandbox: sandboxArgument
}

const because = (reason: string | undefined): string => (reason === undefined ? "" : `: ${reason}`)

/** An event in words. */
export const textOf = (body: EventBody): string => {
  switch (body._tag) {
    case "Created":
      return "created"
    case "StatusChanged":
      return `${body.from} → ${body.to}${because(body.reason)}`
    case "MachineDied":
      return `its machine died: ${body.reason}`
    case "DataLost":
      return body.reason
    case "RestartScheduled":
      return `will be started again in ${duration(body.delayMillis)} (restart ${body.attempt})`
    case "Adopted":
      return "taken over, as it ran, by a new service"
    case "Expired":
      return body.what === "ttl" ? "its time to live ended" : "it was idle for too long"
    case "Updated":
      return "updated"
    case "ProcessTimedOut":
      return `process ${body.processId} ran into its time limit`
    case "StartCommandExited":
      return `its start command exited with code ${exitCodeOf(body.status)}`
  }
}

/** The command `events`. */
export const events = Command.make("events", flags, (options) =>
  performOn(
    options,
    Effect.gen(function* () {
      const sandbox = yield* Sandboxes.connect(options.sandbox)
      const found = sandbox.events({
        once: !options.follow,
        ...Option.match(options.after, { onNone: () => ({}), onSome: (after) => ({ after }) })
      })
      yield* Stream.runForEach(found, (event) =>
        options.json
          ? writeJson(event)
          : writeText(
              `${String(event.sequence).padStart(4)}   ${moment(event.at)}   ${printable(textOf(event.body))}`
            )
      )
    })
  )
).pipe(
  Command.withDescription("Show what happened to a sandbox, and with --follow what happens"),
  Command.withExamples([
    { command: "fiberbox events dev", description: "So far" },
    {
      command: "fiberbox events -f --json dev | jq --unbuffered .body",
      description: "As it happens, for programs"
    }
  ])
)
