/**
 * Gathers the events of one run into text.
 */
import type { ProcessEvent } from "../domain/Process.ts"

const join = (chunks: ReadonlyArray<Uint8Array>): string => {
  const decoder = new TextDecoder()
  let text = ""
  for (const chunk of chunks) text += decoder.decode(chunk, { stream: true })
  return text + decoder.decode()
}

/** The output of one process as it arrives. */
export class Output {
  started: Extract<ProcessEvent, { readonly _tag: "Started" }> | undefined
  exited: Extract<ProcessEvent, { readonly _tag: "Exited" }> | undefined
  /** Bytes the reader was not given. */
  droppedBytes = 0
  readonly #chunks = { stdout: [] as Array<Uint8Array>, stderr: [] as Array<Uint8Array> }

  add(event: ProcessEvent): void {
    switch (event._tag) {
      case "Started":
        this.started = event
        return
      case "Output":
        this.#chunks[event.stream].push(event.data)
        return
      case "Truncated":
        this.droppedBytes += event.to - event.from
        return
      case "Exited":
        this.exited = event
    }
  }

  get stdout(): string {
    return join(this.#chunks.stdout)
  }

  get stderr(): string {
    return join(this.#chunks.stderr)
  }
}
