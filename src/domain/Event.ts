/**
 * What happened to a sandbox, in order, numbered from 1. Kept in the store, so
 * that a reader that was away sees what it missed.
 */
import { Schema } from "effect"
import { Generation, ProcessId, SandboxId } from "./Ids.ts"
import { ExitStatus } from "./Process.ts"
import { Timestamp } from "./Sandbox.ts"
import { Status } from "./Status.ts"

/** The content of an event. */
export const EventBody = Schema.Union([
  Schema.TaggedStruct("Created", {}),
  Schema.TaggedStruct("StatusChanged", {
    from: Status,
    to: Status,
    reason: Schema.optional(Schema.String)
  }),
  /** The machine ended without being asked to. */
  Schema.TaggedStruct("MachineDied", { reason: Schema.String }),
  /** What was written last never reached the sandbox's disk. Told before a machine uses that disk again. */
  Schema.TaggedStruct("DataLost", { reason: Schema.String }),
  /** The restart policy will start a machine again. */
  Schema.TaggedStruct("RestartScheduled", { attempt: Schema.Natural, delayMillis: Schema.Number }),
  /** A running machine was found and taken over after the service started. */
  Schema.TaggedStruct("Adopted", {}),
  /** A time to live or idle time passed. */
  Schema.TaggedStruct("Expired", { what: Schema.Literals(["ttl", "idle"]) }),
  Schema.TaggedStruct("Updated", {}),
  /** A process ran into its own time limit and was ended. */
  Schema.TaggedStruct("ProcessTimedOut", { processId: ProcessId }),
  /** The start command ended. */
  Schema.TaggedStruct("StartCommandExited", { status: ExitStatus })
])
export type EventBody = typeof EventBody.Type

/** An event of a sandbox. `sequence` is what a reader resumes after. */
export const SandboxEvent = Schema.Struct({
  sandboxId: SandboxId,
  sequence: Schema.Natural,
  generation: Generation,
  at: Timestamp,
  body: EventBody
})
export type SandboxEvent = typeof SandboxEvent.Type
