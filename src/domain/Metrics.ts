/**
 * What a machine uses at one moment.
 */
import { Schema } from "effect"
import { Timestamp } from "./Sandbox.ts"

/** A measurement, taken from outside the sandbox. */
export const Metrics = Schema.Struct({
  at: Timestamp,
  /** Processor time used since the machine started, in milliseconds over all processors. */
  cpuMillis: Schema.Number,
  /** Bytes in use now. */
  memoryBytes: Schema.Number,
  memoryLimitBytes: Schema.Number,
  /** Processes and threads now. */
  pids: Schema.Natural,
  /** Bytes of disk in use, where the backend can tell. */
  diskBytes: Schema.optional(Schema.Number)
})
export type Metrics = typeof Metrics.Type
