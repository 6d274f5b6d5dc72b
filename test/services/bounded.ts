import { Stream } from "effect"
import type { ProcessEvent } from "../../src/domain/Process.ts"
import { makeBound } from "../../src/services/actor/Attachments.ts"

/** A stream of events with at most `maxBytes` of output. */
export const bounded =
  (maxBytes: number) =>
  <E, R>(events: Stream.Stream<ProcessEvent, E, R>): Stream.Stream<ProcessEvent, E, R> =>
    Stream.suspend(() => Stream.flattenIterable(Stream.map(events, makeBound(maxBytes))))
