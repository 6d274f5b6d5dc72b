/** Running other programs, and noting when their output came. */
import { spawn } from "node:child_process"
import { Effect, Schema } from "effect"
import { now } from "./Timing.ts"

export type Command = readonly [program: string, ...args: Array<string>]

/** A program that is part of a measurement could not do its part. */
export class ProgramFailed extends Schema.TaggedError<ProgramFailed>()("ProgramFailed", {
  command: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.command}: ${this.reason}`
  }
}

export interface Ended {
  readonly stdout: string
  readonly stdoutBytes: number
  /** Milliseconds from the start to the first byte on standard output; undefined when there was none. */
  readonly firstOutput: number | undefined
  /** Milliseconds from the start to the end of the program and of its output. */
  readonly whole: number
}

export interface Options {
  readonly env?: Readonly<Record<string, string>>
  /** How many bytes of standard output are kept as text; the others are only counted. Default: 4 KiB. */
  readonly keepBytes?: number
}

/** More than any of our programs says when it fails. */
const keptErrors = 16 * 1024

/** Runs a program to its end; a code other than 0 is a failure. Interruption asks it to end, and waits. */
export const run = (
  [program, ...args]: Command,
  { env = {}, keepBytes = 4096 }: Options = {}
): Effect.Effect<Ended, ProgramFailed> =>
  Effect.callback((resume) => {
    const start = now()
    let firstOutput: number | undefined
    let stdoutBytes = 0
    let stdout = ""
    let stderr = ""
    const failed = (reason: string) =>
      resume(Effect.fail(new ProgramFailed({ command: [program, ...args].join(" "), reason })))
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env }
    })
    child.stdout.on("data", (data: Buffer) => {
      firstOutput ??= now() - start
      stdoutBytes += data.length
      if (stdout.length < keepBytes) stdout += data.toString("utf8", 0, keepBytes - stdout.length)
    })
    child.stderr.on("data", (data: Buffer) => {
      if (stderr.length < keptErrors) stderr += data.toString()
    })
    child.on("error", (error) => failed(error.message))
    child.on("close", (code) => {
      const whole = now() - start
      if (code === 0) resume(Effect.succeed({ stdout, stdoutBytes, firstOutput, whole }))
      else failed(`ended with ${code}: ${stderr.trim()}`)
    })
    return Effect.callback<void>((ended) => {
      child.once("close", () => ended(Effect.void))
      child.kill("SIGTERM")
    })
  })
