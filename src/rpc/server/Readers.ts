/**
 * Readers of processes that survive their connections.
 *
 * A cut connection looks the same to a program as a reader that has gone: it
 * would run on, and overwrite what the reader has not seen. So when the
 * connection of a named reader is cut, its place is held for a while with all
 * that may not have arrived, and the program is held up as by a slow reader;
 * the reader of the same name that comes then goes on there.
 */
import { type Array as Arr, Cause, Duration, Effect, Exit, type Pull, Scope, Stream } from "effect"
import { BackendFailed, Connection } from "../../domain/Errors.ts"
import type { AttachOptions, ProcessEvent } from "../../domain/Process.ts"
import { Principal } from "../../services/Principal.ts"
import type { MachineOperationError, StartError } from "../SandboxRpcs.ts"
import { isAbort } from "./Access.ts"
import { type Ahead, readAhead } from "./Ahead.ts"
import { CurrentSession } from "./Session.ts"
import type { Limits } from "./Settings.ts"

/** How far a process's output is read ahead of its reader, in bytes. */
const aheadBytes = 256 * 1024
/**
 * How much is given in one answer over plain HTTP. Nothing there tells what has
 * arrived, so all of it is kept until the reader comes back for more.
 */
const answerBytes = 2 * 1024 * 1024
/** Readers whose places are held, at one time; beyond, the one held longest loses it. */
const maxHeld = 256

interface Reader {
  readonly key: string
  readonly scope: Scope.Closeable
  readonly ahead: Ahead<ProcessEvent, StartError>
  /** What was given last, and may not have arrived. */
  given: ReadonlyArray<ProcessEvent>
  /** Advances with every connection that takes the place. */
  turn: number
  /** Whether everything was given and has arrived. */
  isOver: boolean
}

type Events = Pull.Pull<Arr.NonEmptyReadonlyArray<ProcessEvent>, StartError>

const isNonEmpty = <A>(items: ReadonlyArray<A>): items is Arr.NonEmptyReadonlyArray<A> => items.length > 0

/** What a reader names. */
export interface ReaderTarget {
  readonly sandboxId: string
  readonly processId: string
  readonly attach: AttachOptions
}

/** The readers of a service. */
export interface Readers {
  /** The events of a process for a reader; goes on where a reader of this name was cut off, or begins as `source` does. */
  readonly read: (
    target: ReaderTarget,
    source: Stream.Stream<ProcessEvent, StartError>
  ) => Stream.Stream<ProcessEvent, StartError>
}

const sizeOf = (event: ProcessEvent): number => (event._tag === "Output" ? event.data.byteLength : 64)

/** Whether what was given reaches back to where the reader is. */
const reaches = (given: ReadonlyArray<ProcessEvent>, cursor: number): boolean => {
  for (const event of given) {
    if (event._tag === "Started") return true
    return (event._tag === "Truncated" ? event.from : event.cursor) <= cursor
  }
  return true
}

/** Without the bytes before the reader's place. */
const after =
  (cursor: number) =>
  (event: ProcessEvent): ReadonlyArray<ProcessEvent> => {
    if (event._tag !== "Output" || event.cursor >= cursor) return [event]
    const known = cursor - event.cursor
    return known >= event.data.byteLength ? [] : [{ ...event, cursor, data: event.data.subarray(known) }]
  }

const takenOver = new Connection({ reason: "another reader of this name took over", outcome: "unknown" })

/** No readers yet; those held end with the scope. */
export const makeReaders = Effect.fnUntraced(function* (limits: Limits) {
  const whole = yield* Effect.scope
  const readers = new Map<string, Reader>()
  /** In the order in which they were cut off. */
  const held = new Set<Reader>()
  const heldFor = Duration.toMillis(Duration.fromInputUnsafe(limits.held))

  const forget = (reader: Reader) =>
    Effect.suspend(() => {
      held.delete(reader)
      if (readers.get(reader.key) === reader) readers.delete(reader.key)
      return Scope.close(reader.scope, Exit.void)
    })

  const hold = Effect.fnUntraced(function* (reader: Reader, millis: number) {
    const { turn } = reader
    held.add(reader)
    for (const oldest of held) {
      if (held.size <= maxHeld) break
      yield* forget(oldest)
    }
    const release = Effect.suspend(() => (reader.turn === turn ? forget(reader) : Effect.void))
    yield* Effect.forkIn(Effect.delay(release, millis), whole)
  })

  const open = Effect.fnUntraced(function* (key: string, source: Stream.Stream<ProcessEvent, StartError>) {
    const scope = yield* Scope.fork(whole)
    const ahead = yield* Scope.provide(readAhead(source, sizeOf, aheadBytes), scope)
    const reader: Reader = { key, scope, ahead, given: [], turn: 0, isOver: false }
    readers.set(key, reader)
    return reader
  })

  /** When a reader goes: what it read is over, or it left by itself, or it was cut off and may come again. */
  const leave = (reader: Reader, exit: Exit.Exit<unknown, unknown>, isHttp: boolean) => {
    if (reader.isOver) return forget(reader)
    if (isHttp) return hold(reader, Exit.isSuccess(exit) ? heldFor : heldFor / 10)
    return Exit.isSuccess(exit) || isAbort(exit) ? forget(reader) : hold(reader, heldFor)
  }

  /** Takes a reader's place, beginning with what was given before and may not have arrived. */
  const follow = (reader: Reader, before: ReadonlyArray<ProcessEvent>) =>
    Effect.gen(function* () {
      const isHttp = (yield* CurrentSession)?.transport === "http"
      const turn = ++reader.turn
      const isMine = () => reader.turn === turn
      let first = before
      let size = 0
      held.delete(reader)
      reader.given = before
      yield* Effect.addFinalizer((exit) => (isMine() ? leave(reader, exit, isHttp) : Effect.void))

      const next = Effect.onExit(reader.ahead.take(isMine, Effect.fail(takenOver)), (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) reader.given = isHttp ? [...reader.given, ...exit.value] : exit.value
          else if (!Exit.hasInterrupts(exit)) reader.isOver = true
        })
      )
      return Effect.suspend((): Events => {
        const again = first
        first = []
        if (isHttp && size >= answerBytes) return Cause.done()
        return Effect.map(isNonEmpty(again) ? Effect.succeed(again) : next, (events) => {
          for (const event of events) size += sizeOf(event)
          return events
        })
      })
    }).pipe(Stream.fromPull, Stream.scoped)

  const service: Readers = {
    read: ({ sandboxId, processId, attach: { reader: name, cursor = 0 } }, source) =>
      name === undefined
        ? source
        : Stream.unwrap(
            Effect.gen(function* () {
              const key = [yield* Principal, sandboxId, processId, name].join("\0")
              const known = readers.get(key)
              if (known !== undefined && reaches(known.given, cursor)) {
                return follow(known, known.given.flatMap(after(cursor)))
              }
              if (known !== undefined) yield* forget(known)
              return follow(yield* open(key, source), [])
            })
          )
  }
  return service
})

/** What attaching to a process that has started cannot fail with. */
export const asAttached = (error: StartError): MachineOperationError =>
  error._tag === "SpawnFailed" || error._tag === "Conflict"
    ? new BackendFailed({
        backend: "service",
        operation: "attach to a process",
        reason: error.message,
        outcome: "unknown"
      })
    : error
