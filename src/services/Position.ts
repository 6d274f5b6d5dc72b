/**
 * Where a reader of a process's output is, so that it can go on there.
 */
import type { ReaderId } from "../domain/Ids.ts"
import type { AttachOptions, ProcessEvent } from "../domain/Process.ts"

type Started = Extract<ProcessEvent, { readonly _tag: "Started" }>
type Output = Extract<ProcessEvent, { readonly _tag: "Output" }>
type Truncated = Extract<ProcessEvent, { readonly _tag: "Truncated" }>

/** The position of one reader. */
export interface Position {
  /** What was seen of the process's start, if it was. */
  readonly started: () => Started | undefined
  readonly ended: () => boolean
  /** How to attach to go on from here. */
  readonly attach: () => AttachOptions
  /** What of an event is new to the reader. */
  readonly see: (event: ProcessEvent) => ProcessEvent | undefined
}

/** The position of a reader that has seen nothing and wants what `attach` says. */
export const makePosition = (attach: AttachOptions, reader: ReaderId): Position => {
  let started: Started | undefined
  let ended = false
  let cursor = attach.cursor ?? 0
  let left = attach.maxOutputBytes
  /** Up to where it is told that output is left out on purpose. */
  let omitted = 0

  const seeOutput = (event: Output): Output | undefined => {
    const end = event.cursor + event.data.byteLength
    const known = Math.max(0, cursor - event.cursor)
    // One without bytes tells nothing, and may lie behind bytes that are left out.
    if (event.data.byteLength === 0 || end <= cursor) return undefined
    cursor = end
    if (left !== undefined) left -= event.data.byteLength - known
    return known === 0 ? event : { ...event, cursor: event.cursor + known, data: event.data.subarray(known) }
  }

  /** With nothing left to pass, it tells of what is left out on purpose, and moves nothing. */
  const seeTruncated = (event: Truncated): Truncated | undefined => {
    if (event.to <= (left === 0 ? omitted : cursor)) return undefined
    if (left === 0) {
      omitted = event.to
      return event
    }
    const from = Math.max(event.from, cursor)
    cursor = event.to
    // Of what is left of it, it is not known how much is of which stream.
    return from === event.from ? event : { _tag: "Truncated", from, to: event.to }
  }

  return {
    started: () => started,
    ended: () => ended,
    attach: () => ({ ...attach, reader, cursor, ...(left !== undefined && { maxOutputBytes: left }) }),
    see: (event) => {
      switch (event._tag) {
        case "Started":
          if (started !== undefined) return undefined
          started = event
          return event
        case "Output":
          return seeOutput(event)
        case "Truncated":
          return seeTruncated(event)
        case "Exited":
          ended = true
          return event
      }
    }
  }
}
