/**
 * Readers of processes that survive their connections.
 *
 * A cut connection looks the same to a program as a reader that has gone: it
 * would run on, and overwrite what the reader has not seen. So when the
 * connection of a named reader is cut, its place is held for a while with all
 * that may not have arrived, and the program is held up as by a slow reader;
 * the reader of the same name that comes then goes on there.
 */
import { type Array as Arr, Cause, Duration, Effect, Exit, Fiber, type Pull, Scope, Stream } from "effect"
import { Connection, ResourceExhausted } from "../../domain/Errors.ts"
import {
  type AttachOptions,
  type ExecOptions,
  isSameSpec,
  type ProcessEvent,
  type ProcessSpec
} from "../../domain/Process.ts"
import { KeepCall, type KeptCall, restKey } from "../../services/Calls.ts"
import { Principal } from "../../services/Principal.ts"
import type { StartError } from "../SandboxRpcs.ts"
import { isAbort } from "./Access.ts"
import { type Ahead, heldHere, readAhead } from "./Ahead.ts"
import type { Held } from "./Held.ts"
import { CurrentSession } from "./Session.ts"
import type { Limits } from "./Settings.ts"

/** How far a process's output is read ahead of its reader, in bytes. */
const aheadBytes = 256 * 1024
/**
 * How much is given in one answer over plain HTTP. Nothing there tells what has
 * arrived, so all of it is kept until the reader comes back for more.
 */
const answerBytes = 2 * 1024 * 1024
/** How long the reader of an answer may take to come for the rest of it, in milliseconds. */
const restMillis = 10_000
/** Readers whose places are held, at one time; beyond, the one held longest loses it. */
const maxHeld = 256

/** Somebody's place in a program's events. */
interface Place {
  /** Advances with every connection that takes the place. */
  turn: number
  /** Gives it up. */
  readonly leave: Effect.Effect<void>
}

/** The place of one who reads a stream. */
interface Reader extends Place {
  readonly ahead: Ahead<ProcessEvent, StartError>
  readonly held: Held
  /** What was given last, and may not have arrived. */
  given: Events
  /** Whether everything was given and has arrived. */
  isOver: boolean
  /** Counts it as a call under way, where it reads piece by piece what was started for it. */
  kept: KeptCall | undefined
}

/** The place of one who waits for one answer. */
interface Waiter extends Place {
  readonly process: ProcessSpec
  readonly answer: Fiber.Fiber<Events, StartError>
}

type Events = ReadonlyArray<ProcessEvent>
type Reading = Pull.Pull<Arr.NonEmptyReadonlyArray<ProcessEvent>, StartError>

const isNonEmpty = <A>(items: ReadonlyArray<A>): items is Arr.NonEmptyReadonlyArray<A> => items.length > 0

/** What a reader names. */
export interface ReaderTarget {
  readonly sandboxId: string
  readonly processId: string
  readonly attach: AttachOptions
}

/** What a reader asks to be run. */
export interface ExecTarget {
  readonly sandboxId: string
  readonly process: ProcessSpec
  readonly attach: ExecOptions
}

/** The readers of a service. */
export interface Readers {
  /** The events of a process for a reader; goes on where a reader of this name was cut off, or begins as `source` does: as `isRun`, with a start. */
  readonly read: (
    target: ReaderTarget,
    source: Stream.Stream<ProcessEvent, StartError>,
    isRun?: boolean
  ) => Stream.Stream<ProcessEvent, StartError>
  /** The first events of a program in one answer, `call`'s; the same one for a reader that was cut off and asks the same again. */
  readonly exec: (
    target: ExecTarget,
    call: Effect.Effect<Events, StartError>
  ) => Effect.Effect<Events, StartError>
}

/** What an event takes, in bytes. */
export const sizeOf = (event: ProcessEvent): number => (event._tag === "Output" ? event.data.byteLength : 64)

/** Whether what was given reaches back to where the reader is. */
const reaches = (given: Events, cursor: number): boolean => {
  for (const event of given) {
    if (event._tag === "Started") return true
    return (event._tag === "Truncated" ? event.from : event.cursor) <= cursor
  }
  return true
}

/** Without the bytes before the reader's place. */
const after =
  (cursor: number) =>
  (event: ProcessEvent): Events => {
    if (event._tag !== "Output" || event.cursor >= cursor) return [event]
    const known = cursor - event.cursor
    return known >= event.data.byteLength ? [] : [{ ...event, cursor, data: event.data.subarray(known) }]
  }

const less = (counts: Map<string, number>, key: string) => {
  const left = (counts.get(key) ?? 1) - 1
  if (left > 0) counts.set(key, left)
  else counts.delete(key)
}

const takenOver = new Connection({ reason: "another reader of this name took over", outcome: "unknown" })

/** No readers yet; those held end with the scope. */
export const makeReaders = Effect.fnUntraced(function* (limits: Limits) {
  const whole = yield* Effect.scope
  const keep = yield* KeepCall
  const readers = new Map<string, Reader>()
  const waiters = new Map<string, Waiter>()
  /** Answers whose rest is still to be asked for. */
  const rests = new Map<string, KeptCall>()
  const ofOwner = new Map<string, number>()
  /** In the order in which they were cut off. */
  const held = new Set<Place>()
  const heldFor = Duration.toMillis(Duration.fromInputUnsafe(limits.held))

  /** Of an answer that is not all, the rest is under way until its reader has come and gone. */
  const expectRest = (key: string, isHttp: boolean) =>
    Effect.suspend(() => {
      rests.get(key)?.end()
      const kept = keep(key, isHttp)
      kept.setAway(true)
      rests.set(key, kept)
      const drop = Effect.sync(() => {
        if (rests.get(key) !== kept) return
        rests.delete(key)
        kept.end()
      })
      return Effect.asVoid(Effect.forkIn(Effect.delay(drop, restMillis), whole))
    })

  const forget = (place: Place) =>
    Effect.suspend(() => {
      held.delete(place)
      return place.leave
    })

  const hold = Effect.fnUntraced(function* (place: Place, millis: number) {
    const { turn } = place
    held.add(place)
    for (const oldest of held) {
      if (held.size <= maxHeld) break
      yield* forget(oldest)
    }
    const release = Effect.suspend(() => (place.turn === turn ? forget(place) : Effect.void))
    yield* Effect.forkIn(Effect.delay(release, millis), whole)
  })

  /** When a connection goes that waited or read: by its own will, or because it was cut. */
  const cut = (place: Place, exit: Exit.Exit<unknown, unknown>, isHttp: boolean) =>
    isHttp ? hold(place, heldFor / 10) : isAbort(exit) ? forget(place) : hold(place, heldFor)

  const open = Effect.fnUntraced(function* (
    key: string,
    source: Stream.Stream<ProcessEvent, StartError>,
    isRun: boolean
  ) {
    const scope = yield* Scope.fork(whole)
    const held = yield* heldHere
    const ahead = yield* Scope.provide(readAhead(source, sizeOf, aheadBytes, held), scope)
    const leave = Effect.suspend(() => {
      if (readers.get(key) === reader) readers.delete(key)
      reader.kept?.end()
      return Scope.close(scope, Exit.void)
    })
    const reader: Reader = { ahead, held, leave, given: [], turn: 0, isOver: false, kept: undefined }
    const isHttp = (yield* CurrentSession)?.transport === "http"
    reader.kept = rests.get(key) ?? (isRun && isHttp ? keep(key, true) : undefined)
    rests.delete(key)
    readers.set(key, reader)
    return reader
  })

  /** When a reader goes: what it read is over, or it left by itself, or it was cut off and may come again. */
  const leave = (reader: Reader, exit: Exit.Exit<unknown, unknown>, isHttp: boolean) => {
    if (reader.isOver) return forget(reader)
    if (Exit.isFailure(exit)) {
      reader.kept?.end()
      return cut(reader, exit, isHttp)
    }
    return isHttp ? hold(reader, heldFor) : forget(reader)
  }

  /** Takes a reader's place, beginning with what was given before and may not have arrived. */
  const follow = (reader: Reader, before: Events) =>
    Effect.gen(function* () {
      const session = yield* CurrentSession
      const isHttp = session?.transport === "http"
      if (session !== undefined) reader.held.moveTo(session.output)
      const turn = ++reader.turn
      const isMine = () => reader.turn === turn
      /** A service that is about to end is asked no more. */
      const isLast = () => reader.kept?.isEnding() === true
      let first = before
      let size = 0
      held.delete(reader)
      reader.kept?.setAway(false)
      reader.given = before
      yield* Effect.addFinalizer((exit) => (isMine() ? leave(reader, exit, isHttp) : Effect.void))

      const next = Effect.onExit(reader.ahead.take(isMine, Effect.fail(takenOver)), (exit) =>
        Effect.sync(() => {
          const isKept = isHttp && !isLast()
          if (Exit.isSuccess(exit)) reader.given = isKept ? [...reader.given, ...exit.value] : exit.value
          else if (!Exit.hasInterrupts(exit)) reader.isOver = true
        })
      )
      return Effect.suspend((): Reading => {
        const again = first
        first = []
        if (isHttp && size > 0 && !isLast() && (!reader.held.given(size) || size >= answerBytes)) {
          reader.kept?.setAway(true)
          return Cause.done()
        }
        return Effect.map(isNonEmpty(again) ? Effect.succeed(again) : next, (events) => {
          for (const event of events) size += sizeOf(event)
          return events
        })
      })
    }).pipe(Stream.fromPull, Stream.scoped)

  const ask = (key: string, process: ProcessSpec, call: Effect.Effect<Events, StartError>) =>
    Effect.map(
      Effect.forkIn(Effect.interruptible(call), whole, { startImmediately: true }),
      (answer): Waiter => {
        const leave = Effect.suspend(() => {
          if (waiters.get(key) === waiter) waiters.delete(key)
          return answer.pollUnsafe() === undefined ? Fiber.interrupt(answer) : Effect.void
        })
        const waiter: Waiter = { process, answer, leave, turn: 0 }
        waiters.set(key, waiter)
        return waiter
      }
    )

  /** Counts readers by connection and sandbox, and by caller: each leaves some to others. */
  const admit = ({ sandboxId }: ReaderTarget) =>
    Effect.acquireRelease(
      Effect.gen(function* () {
        const owner = yield* Principal
        const mine = (yield* CurrentSession)?.readers ?? new Map<string, number>()
        const here = mine.get(sandboxId) ?? 0
        const all = ofOwner.get(owner) ?? 0
        if (here >= limits.readersPerSandbox || all >= limits.readersPerCaller) {
          const reason =
            here >= limits.readersPerSandbox
              ? `${here} readers of this connection are attached to this sandbox`
              : `${all} readers of this caller are attached`
          return yield* new ResourceExhausted({ resource: "readers", reason, retryAfterMillis: 1_000 })
        }
        mine.set(sandboxId, here + 1)
        ofOwner.set(owner, all + 1)
        return { mine, owner }
      }),
      ({ mine, owner }) =>
        Effect.sync(() => {
          less(mine, sandboxId)
          less(ofOwner, owner)
        })
    )

  const service: Readers = {
    exec: ({ sandboxId, process, attach }, call) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.withFiber((fiber) => {
          const isHttp = fiber.getRef(CurrentSession)?.transport === "http"
          const key = restKey(fiber.getRef(Principal), sandboxId, process.processId, attach.reader)
          const known = waiters.get(key)
          // Another program under the same names: whoever runs the first one refuses it.
          if (known !== undefined && !isSameSpec(known.process, process)) return restore(call)
          const waiting = known === undefined ? ask(key, process, call) : Effect.succeed(known)
          return Effect.flatMap(waiting, (waiter) => {
            const turn = ++waiter.turn
            held.delete(waiter)
            return Effect.onExit(restore(Fiber.join(waiter.answer)), (exit) => {
              if (waiter.turn !== turn) return Effect.void
              if (Exit.hasInterrupts(exit)) return cut(waiter, exit, isHttp)
              const isWhole = Exit.isFailure(exit) || exit.value.at(-1)?._tag === "Exited"
              return Effect.andThen(isWhole ? Effect.void : expectRest(key, isHttp), forget(waiter))
            })
          })
        })
      ),
    read: (target, source, isRun = false) => {
      const { reader: name, cursor = 0 } = target.attach
      return name === undefined
        ? Stream.unwrap(Effect.as(admit(target), source))
        : Stream.unwrap(
            Effect.gen(function* () {
              yield* admit(target)
              const key = restKey(yield* Principal, target.sandboxId, target.processId, name)
              const known = readers.get(key)
              if (known !== undefined && reaches(known.given, cursor)) {
                return follow(known, known.given.flatMap(after(cursor)))
              }
              if (known !== undefined) yield* forget(known)
              return follow(yield* open(key, source, isRun), [])
            })
          )
    }
  }
  return service
})
