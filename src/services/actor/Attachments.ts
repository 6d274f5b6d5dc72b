/**
 * Readers of a sandbox's streams: how many there are, and that one which takes
 * nothing is detached.
 *
 * A slow reader slows the program down, but not for ever: when it has taken
 * nothing for its idle limit while output waits, its stream ends with
 * `Timeout` and the program goes on.
 */
import {
  type Array as Arr,
  Channel,
  Clock,
  Effect,
  Exit,
  FiberHandle,
  type Pull,
  Scope,
  Stream
} from "effect"
import { Timeout } from "../../domain/Errors.ts"
import { elapsedMillis, monotonicMillis } from "../Alarms.ts"

/** The readers of one sandbox. */
export interface Attachments {
  /** How many readers are attached. */
  readonly count: () => number
  /** A stream whose reader is detached when it takes nothing for `idleMillis`. */
  readonly watched: <A, E, R>(
    stream: Stream.Stream<A, E, R>,
    idleMillis?: number
  ) => Stream.Stream<A, E | Timeout, R>
}

const defaultIdleMillis = 60_000

/** The pull of a stream in a scope of its own; unlike `Stream.toPull`'s it leaves the context as it is. */
export const pullOf = <A, E, R>(
  stream: Stream.Stream<A, E, R>,
  scope: Scope.Scope
): Effect.Effect<Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E, void, R>, never, R> =>
  Channel.toPullScoped(Stream.toChannel(stream), scope)

interface Reader {
  readonly idleMillis: number
  /** When the last chunk was handed out; undefined while the reader waits for one. */
  handedAt: number | undefined
  detached: boolean
  readonly scope: Scope.Closeable
}

/** No readers yet. The scope ends the watch over them. */
export const makeAttachments = Effect.gen(function* () {
  const readers = new Set<Reader>()
  const watch = yield* FiberHandle.make()

  /** Looks after the readers as long as there are any. */
  const patrol = Effect.gen(function* () {
    while (readers.size > 0) {
      const shortest = Math.min(...[...readers].map((reader) => reader.idleMillis))
      yield* Effect.sleep(Math.max(1, shortest / 4))
      const now = yield* elapsedMillis
      for (const reader of readers) {
        if (reader.handedAt === undefined || now - reader.handedAt < reader.idleMillis) continue
        reader.detached = true
        readers.delete(reader)
        yield* Scope.close(reader.scope, Exit.void)
      }
    }
  })

  const attach = Effect.fnUntraced(function* <A, E, R>(stream: Stream.Stream<A, E, R>, idleMillis: number) {
    const clock = yield* Clock.Clock
    const scope = yield* Scope.fork(yield* Effect.scope)
    const reader: Reader = { idleMillis, handedAt: undefined, detached: false, scope }
    readers.add(reader)
    yield* Scope.addFinalizer(
      scope,
      Effect.sync(() => readers.delete(reader))
    )
    yield* FiberHandle.run(watch, patrol, { onlyIfMissing: true })
    const pull = yield* pullOf(stream, scope)
    const handOut = Effect.onExit(pull, () => {
      reader.handedAt = monotonicMillis(clock)
      return Effect.void
    })
    return Effect.suspend((): Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E | Timeout, void, R> => {
      reader.handedAt = undefined
      return reader.detached ? Effect.fail(idle(idleMillis)) : handOut
    })
  })

  const attachments: Attachments = {
    count: () => readers.size,
    watched: (stream, idleMillis = defaultIdleMillis) =>
      Stream.scoped(Stream.fromPull(attach(stream, idleMillis)))
  }
  return attachments
})

const idle = (millis: number): Timeout => new Timeout({ limit: "idle", millis, outcome: "unknown" })
