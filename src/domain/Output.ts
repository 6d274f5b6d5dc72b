/**
 * What a program wrote, as text, and what of it is missing.
 */
import { Effect, Schema } from "effect"

/** A place in the text of a stream where bytes are missing. */
export const Gap = Schema.Struct({
  stream: Schema.Literals(["stdout", "stderr"]),
  /** Where in the text, as `slice` counts. */
  at: Schema.Natural,
  /** How many. At most so many where a journal lost them: it does not know of which stream they were. */
  bytes: Schema.Natural
})
export type Gap = typeof Gap.Type

/** What tells of bytes that are missing; by default none are. */
export const missingFields = {
  /** Whether output is missing. */
  truncated: Schema.Boolean.pipe(Schema.withConstructorDefault(Effect.succeed(false))),
  /** How many bytes, of both streams. */
  droppedBytes: Schema.Natural.pipe(Schema.withConstructorDefault(Effect.succeed(0))),
  /** Where they are missing; no more than one place in each stream, unless a journal lost some. */
  gaps: Schema.Array(Gap).pipe(Schema.withConstructorDefault(Effect.succeed([])))
}

/** What a program wrote, as far as it was kept. */
export interface CapturedOutput {
  /** As UTF-8 text. What is no UTF-8 is U+FFFD; where bytes are missing, no character is cut in two. */
  readonly stdout: string
  readonly stderr: string
  /** Whether output is missing, because of `maxOutputBytes`. */
  readonly truncated: boolean
  /** How many bytes, of both streams. */
  readonly droppedBytes: number
  /** Where they are missing. */
  readonly gaps: ReadonlyArray<Gap>
}
