/**
 * Connections into an in-memory machine: two pipes, one each way.
 */
import { Effect, Stream } from "effect"
import { Pipe } from "./OpenFile.ts"
import type { Process } from "./Process.ts"
import { type Schedule, waitFor } from "./Wakeup.ts"

/** One end of a connection. */
export interface Connection {
  /** What the other side sends, until it says that nothing more comes. */
  readonly incoming: Stream.Stream<Uint8Array>
  /** Sends, waiting for room; false when the other side is gone. */
  readonly send: (data: Uint8Array) => Effect.Effect<boolean>
  /** Says that nothing more will be sent. */
  readonly end: Effect.Effect<void>
}

/** Somebody who listens on a port. */
export interface Listener {
  /** The process that ends with it; undefined for what listens as long as the machine runs. */
  readonly owner: Process | undefined
  readonly accept: (connection: Connection) => void
}

/** The next bytes of a pipe; empty at its end. */
export const readPipe = (pipe: Pipe): Effect.Effect<Uint8Array> =>
  waitFor(pipe.wakeup, () => pipe.read(64 * 1024))

/** Writes all to a pipe; false when nobody reads it any more. */
export const writePipe = (pipe: Pipe, data: Uint8Array): Effect.Effect<boolean> => {
  let rest = data
  return waitFor(pipe.wakeup, () => {
    while (rest.length > 0) {
      const taken = pipe.write(rest)
      if (taken === "broken-pipe") return false
      if (taken === 0) return undefined
      rest = rest.subarray(taken)
    }
    return true
  })
}

/** The bytes of a pipe as a stream. */
export const pipeStream = (pipe: Pipe): Stream.Stream<Uint8Array> =>
  Stream.takeWhile(Stream.fromEffectRepeat(readPipe(pipe)), (data) => data.length > 0)

const endOf = (incoming: Pipe, outgoing: Pipe): Connection => ({
  incoming: pipeStream(incoming),
  send: (data) => writePipe(outgoing, data),
  end: Effect.sync(() => outgoing.end())
})

/** A new connection: the outside's end, the inside's end, and its abrupt end for both. */
export const makeConnection = (schedule: Schedule) => {
  const inward = new Pipe(schedule)
  const outward = new Pipe(schedule)
  return {
    outside: endOf(outward, inward),
    inside: endOf(inward, outward),
    close: () => {
      inward.end()
      outward.break()
    }
  }
}
