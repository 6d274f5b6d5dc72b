/**
 * This process's own standard streams, as bytes, with backpressure.
 *
 * The edge to Node: everything above speaks Effect.
 */
import { createReadStream, fstatSync } from "node:fs"
import { getSystemErrorMessage } from "node:util"
import * as NodeStream from "@effect/platform-node/NodeStream"
import { Effect, Predicate, Schema, type Stream } from "effect"
import { localFile, type Refused } from "./Failure.ts"

const nameOf = { stdin: "standard input", stdout: "standard output", stderr: "standard error" } as const

/** Whoever read this process's output is gone. */
export class OutputClosed extends Schema.TaggedError<OutputClosed>("fiberbox/cli/Stdio/OutputClosed")(
  "OutputClosed",
  { to: Schema.Literals(["stdout", "stderr"]) }
) {
  override get message(): string {
    return `${nameOf[this.to]}: broken pipe: nobody reads it any more`
  }
}

/** What a shell reports of a program whose reader is gone: 128 plus SIGPIPE. */
export const outputClosedCode = 141

/** What the system says of an error, in words. */
export const reasonOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "errno") && Predicate.isNumber(error.errno)) {
    return getSystemErrorMessage(error.errno)
  }
  return error instanceof Error ? error.message : String(error)
}

const failed = (stream: keyof typeof nameOf, error: unknown): Refused =>
  localFile(`${nameOf[stream]}: ${reasonOf(error)}`)

/** What the system reports of a pipe or connection that nobody reads any more. */
const closedCodes: ReadonlySet<unknown> = new Set(["EPIPE", "ECONNRESET"])

const isClosed = (error: Error): boolean => "code" in error && closedCodes.has(error.code)

/** Writes, and waits until the reader has taken it. Interrupting it stops only the wait. */
export const write = (
  to: "stdout" | "stderr",
  data: Uint8Array | string
): Effect.Effect<void, OutputClosed | Refused> =>
  Effect.callback((resume) => {
    process[to].write(data, (error) => {
      if (!error) return resume(Effect.void)
      resume(Effect.fail(isClosed(error) ? new OutputClosed({ to }) : failed(to, error)))
    })
  })

const ignore = (): void => {}

/** A write's callback tells of a reader that is gone; without a listener Node ends the process for it too. */
export const ignoreStreamErrors: Effect.Effect<void> = Effect.sync(() => {
  process.stdout.on("error", ignore)
  process.stderr.on("error", ignore)
})

const openStdin = () => {
  const info = fstatSync(0)
  // Of what it does not know Node makes an input that is empty.
  const isUnknown = info.isDirectory() || info.isBlockDevice()
  const input = isUnknown ? createReadStream("", { fd: 0, autoClose: false }) : process.stdin
  // What goes wrong while nobody reads is told to the next who does.
  if (!input.listeners("error").includes(ignore)) input.on("error", ignore)
  return input
}

/** Standard input as it comes. Read only while somebody pulls. What cannot be read to its end is no end: it fails. */
export const stdin: Stream.Stream<Uint8Array, Refused> = NodeStream.fromReadable({
  evaluate: openStdin,
  onError: (error) => failed("stdin", error),
  closeOnDone: false
})

/** The exit code that this process ends with. */
export const endWith = (exitCode: number): Effect.Effect<void> =>
  Effect.sync(() => {
    process.exitCode = exitCode
  })
