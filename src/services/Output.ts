/**
 * Gathers the events of one run into text.
 */
import type { CapturedOutput, Gap } from "../domain/Output.ts"
import type { ProcessEvent } from "../domain/Process.ts"
import { concat, partialEnd, partialStart } from "./Bytes.ts"

type StreamName = Gap["stream"]

// A byte order mark is part of what was written.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

/** What is between two gaps of a stream, and how many bytes are missing after it. */
interface Stretch {
  readonly chunks: Array<Uint8Array>
  missing: number
}

const newStretch = (): Stretch => ({ chunks: [], missing: 0 })

/** The text of a stream; of a character that a gap cuts in two, what is left counts as missing. */
const textOf = (stream: StreamName, stretches: ReadonlyArray<Stretch>) => {
  const gaps: Array<Gap> = []
  let text = ""
  let cut = 0
  let before = 0
  for (const { chunks, missing } of stretches) {
    const bytes = concat(chunks)
    const start = before > 0 ? partialStart(bytes) : 0
    const end = missing > 0 ? bytes.byteLength - partialEnd(bytes.subarray(start)) : bytes.byteLength
    if (before > 0) gaps.push({ stream, at: text.length, bytes: before + start })
    text += decoder.decode(bytes.subarray(start, end))
    before = missing > 0 ? missing + bytes.byteLength - end : 0
    cut += start + bytes.byteLength - end
  }
  if (before > 0) gaps.push({ stream, at: text.length, bytes: before })
  return { text, gaps, cut }
}

/** The output of one process as it arrives. */
export class Output {
  started: Extract<ProcessEvent, { readonly _tag: "Started" }> | undefined
  exited: Extract<ProcessEvent, { readonly _tag: "Exited" }> | undefined
  #droppedBytes = 0
  readonly #stretches = { stdout: [newStretch()], stderr: [newStretch()] }

  add(event: ProcessEvent): void {
    switch (event._tag) {
      case "Started":
        this.started = event
        return
      case "Output":
        this.#open(event.stream).chunks.push(event.data)
        return
      case "Truncated": {
        const { from, to, stdout = 0, stderr = 0 } = event
        this.#droppedBytes += to - from
        const ofEither = to - from - stdout - stderr
        this.#miss("stdout", stdout + ofEither)
        this.#miss("stderr", stderr + ofEither)
        return
      }
      case "Exited":
        this.exited = event
    }
  }

  /** All that was gathered. */
  get captured(): CapturedOutput {
    const stdout = textOf("stdout", this.#stretches.stdout)
    const stderr = textOf("stderr", this.#stretches.stderr)
    const droppedBytes = this.#droppedBytes + stdout.cut + stderr.cut
    return {
      stdout: stdout.text,
      stderr: stderr.text,
      truncated: droppedBytes > 0,
      droppedBytes,
      gaps: [...stdout.gaps, ...stderr.gaps]
    }
  }

  /** Where output of a stream goes that comes now. */
  #open(stream: StreamName): Stretch {
    const stretches = this.#stretches[stream]
    const last = stretches.at(-1)
    if (last !== undefined && last.missing === 0) return last
    const next = newStretch()
    stretches.push(next)
    return next
  }

  #miss(stream: StreamName, bytes: number): void {
    if (bytes === 0) return
    const last = this.#stretches[stream].at(-1)
    if (last !== undefined) last.missing += bytes
  }
}
