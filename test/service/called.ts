/**
 * How a call of a client went, as it tells the test that started it.
 */
import { Schema } from "effect"

export const Called = Schema.Struct({
  kind: Schema.Literals(["exec", "write", "stream", "create", "kill"]),
  /** Unknown of a create that failed. */
  sandbox: Schema.optional(Schema.String),
  /** When it began, in milliseconds since the epoch, and how long it took. */
  from: Schema.Number,
  millis: Schema.Number,
  error: Schema.optional(Schema.String),
  /** What a write has written. */
  content: Schema.optional(Schema.String)
})
export type Called = typeof Called.Type
