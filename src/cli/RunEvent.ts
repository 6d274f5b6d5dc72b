/**
 * What `fiberbox run --json` writes: one JSON document a line, in this shape.
 *
 * The last line is `exited` or `error`. Before it come `created`, `started`, and
 * then `output` and `truncated`, as far as it got. New members may be added to a line
 * and new kinds of line; what is here keeps its meaning.
 */
import { Schema } from "effect"
import { IsolationLevel } from "../domain/Capability.ts"
import { Outcome } from "../domain/Errors.ts"
import { ProcessId, SandboxId } from "../domain/Ids.ts"
import type { ProcessEvent } from "../domain/Process.ts"
import { Cursor, exitCodeOf } from "../domain/Process.ts"
import { Timestamp } from "../domain/Sandbox.ts"
import { partialEnd } from "../services/Bytes.ts"

const Output = { event: Schema.tag("output"), stream: Schema.Literals(["stdout", "stderr"]), at: Timestamp }

/** One line of `fiberbox run --json`. Times are milliseconds since the epoch. */
export const RunEvent = Schema.Union([
  /** The sandbox exists. */
  Schema.Struct({
    event: Schema.tag("created"),
    sandboxId: SandboxId,
    backend: Schema.String,
    image: Schema.String
  }),
  /** The program runs, under this isolation. */
  Schema.Struct({
    event: Schema.tag("started"),
    pid: Schema.Natural,
    isolation: IsolationLevel,
    at: Timestamp
  }),
  /** Output that is UTF-8. A character is never split over two lines. */
  Schema.Struct({ ...Output, text: Schema.String }),
  /** Output that is not: its bytes. */
  Schema.Struct({ ...Output, base64: Schema.String }),
  /** So many bytes of output were lost. */
  Schema.Struct({ event: Schema.tag("truncated"), bytes: Schema.Natural }),
  /** The program ended; `exitCode` is that of `fiberbox` too. */
  Schema.Struct({
    event: Schema.tag("exited"),
    exitCode: Schema.Natural,
    signal: Schema.optionalKey(Schema.String),
    /** Whether `--timeout` ended it. */
    timedOut: Schema.Boolean,
    /** There when it was ended because `fiberbox` was not heard of for so many milliseconds. */
    lapsedMillis: Schema.optionalKey(Schema.Number),
    at: Timestamp
  }),
  /** fiberbox let go of the program, which goes on; `cursor` is where to attach again without missing a byte. */
  Schema.Struct({
    event: Schema.tag("detached"),
    sandboxId: SandboxId,
    processId: ProcessId,
    cursor: Cursor
  }),
  /** fiberbox could not do what was asked. `error` is the tag of the error; `details` are its own members. */
  Schema.Struct({
    event: Schema.tag("error"),
    error: Schema.String,
    message: Schema.String,
    hint: Schema.optionalKey(Schema.String),
    isRetryable: Schema.Boolean,
    outcome: Outcome,
    exitCode: Schema.Natural,
    details: Schema.Record(Schema.String, Schema.Unknown)
  })
])
export type RunEvent = typeof RunEvent.Type

/** The exit code of a command that `--timeout` ended, as timeout(1) has it. */
export const timedOutCode = 124

const join = (head: Uint8Array, tail: Uint8Array): Uint8Array =>
  head.byteLength === 0 ? tail : Buffer.concat([head, tail])

/** Turns the events of one process into lines. Holds back at most three bytes of each stream, until the next event. */
export class Lines {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  readonly #rest = { stdout: new Uint8Array(0), stderr: new Uint8Array(0) }

  /** The lines for one event. */
  of(event: ProcessEvent): ReadonlyArray<RunEvent> {
    switch (event._tag) {
      case "Started":
        return [{ event: "started", pid: event.pid, isolation: event.isolation, at: event.startedAt }]
      case "Output": {
        const bytes = join(this.#rest[event.stream], event.data)
        const end = bytes.byteLength - partialEnd(bytes)
        this.#rest[event.stream] = bytes.slice(end)
        return this.#output(event.stream, event.at, bytes.subarray(0, end))
      }
      case "Truncated":
        return [{ event: "truncated", bytes: event.to - event.from }]
      case "Exited": {
        const { at, lapsedMillis, status, timedOut } = event
        const exitCode = timedOut ? timedOutCode : exitCodeOf(status)
        const signal = status._tag === "Signaled" ? { signal: status.signal } : {}
        const lapsed = lapsedMillis === undefined ? {} : { lapsedMillis }
        return [...this.#flush(at), { event: "exited", exitCode, ...signal, timedOut, ...lapsed, at }]
      }
    }
  }

  #flush(at: number): ReadonlyArray<RunEvent> {
    return [
      ...this.#output("stdout", at, this.#rest.stdout),
      ...this.#output("stderr", at, this.#rest.stderr)
    ]
  }

  #output(stream: "stdout" | "stderr", at: number, bytes: Uint8Array): ReadonlyArray<RunEvent> {
    if (bytes.byteLength === 0) return []
    try {
      return [{ event: "output", stream, at, text: this.#decoder.decode(bytes) }]
    } catch {
      return [{ event: "output", stream, at, base64: Buffer.from(bytes).toString("base64") }]
    }
  }
}

/** A line as it is written, newline included. */
export const encodeLine = (event: RunEvent): string => `${JSON.stringify(event)}\n`
