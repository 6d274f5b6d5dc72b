import { Stream } from "effect"
import type { Keep, ProcessEvent } from "../../src/domain/Process.ts"
import { makeBound } from "../../src/services/actor/Retention.ts"

/** A stream of events with at most `maxBytes` of output. */
export const bounded =
  (maxBytes: number, keep?: Keep) =>
  <E, R>(events: Stream.Stream<ProcessEvent, E, R>): Stream.Stream<ProcessEvent, E, R> =>
    Stream.suspend(() => Stream.flattenIterable(Stream.map(events, makeBound(maxBytes, keep))))
