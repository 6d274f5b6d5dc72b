/**
 * This process's own standard streams, as bytes, with backpressure.
 *
 * The edge to Node: everything above speaks Effect.
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Effect, Schema, Stream } from "effect"

/** Whoever read this process's output is gone. */
export class OutputClosed extends Schema.TaggedError<OutputClosed>("fiberbox/cli/Stdio/OutputClosed")(
  "OutputClosed",
  { cause: Schema.Defect() }
) {}

/** What a shell reports of a program whose reader is gone: 128 plus SIGPIPE. */
export const outputClosedCode = 141

/** Writes, and waits until the reader has taken it. Interrupting it stops only the wait. */
export const write = (
  to: "stdout" | "stderr",
  data: Uint8Array | string
): Effect.Effect<void, OutputClosed> =>
  Effect.callback((resume) => {
    process[to].write(data, (cause) => resume(cause ? Effect.fail(new OutputClosed({ cause })) : Effect.void))
  })

/** A write's callback tells of a reader that is gone; without a listener Node ends the process for it too. */
export const ignoreStreamErrors: Effect.Effect<void> = Effect.sync(() => {
  process.stdout.on("error", () => {})
  process.stderr.on("error", () => {})
})

/** Standard input as it comes. Read only while somebody pulls; ends quietly where it cannot be read. */
export const stdin: Stream.Stream<Uint8Array> = NodeStream.fromReadable({
  evaluate: () => process.stdin,
  closeOnDone: false
}).pipe(Stream.catchCause(() => Stream.empty))

/** The exit code that this process ends with. */
export const endWith = (exitCode: number): Effect.Effect<void> =>
  Effect.sync(() => {
    process.exitCode = exitCode
  })
