/**
 * Programs whose events are given in one answer, at a fraction of what a stream
 * costs. What is too much for one answer, or takes too long, waits for its
 * reader to attach, and the program waits with it.
 */
import { type Array as Arr, Effect, Exit, Fiber, Pull, Scope, Stream } from "effect"
import { BackendFailed } from "../../domain/Errors.ts"
import type { ProcessId } from "../../domain/Ids.ts"
import {
  type AttachOptions,
  type ExecOptions,
  isSameSpec,
  type ProcessEvent,
  type ProcessSpec
} from "../../domain/Process.ts"
import type { MachineOperationError, StartError } from "../../rpc/SandboxRpcs.ts"
import { makePosition } from "../Position.ts"
import { type Attachments, pullOf } from "./Attachments.ts"

/** How much ends an answer, in bytes: output, and something for each event. */
const answerBytes = 64 * 1024
const eventBytes = 64
/** How long the rest is kept, where the reader does not say how long it may be idle. */
const keptMillis = 60_000

type Events = ReadonlyArray<ProcessEvent>
type Reading = Pull.Pull<Arr.NonEmptyReadonlyArray<ProcessEvent>, StartError>

/** Events that wait for their reader. */
interface Rest {
  readonly process: ProcessSpec
  readonly given: Events
  /** The reader's position behind what was given. */
  readonly cursor: number
  /** What comes after that. */
  readonly more: Stream.Stream<ProcessEvent, StartError>
  readonly scope: Scope.Closeable
  /** Ends the waiting. */
  readonly timer: Fiber.Fiber<void>
}

/** A program, and who reads it how. */
export interface Exec {
  readonly process: ProcessSpec
  readonly options: ExecOptions
  /** How long the answer may take; undefined: as long as the program does. */
  readonly waitMillis: number | undefined
}

/** The programs of one sandbox that are read so. */
export interface Execs {
  /** The first events of a program; the same again for the same request of the same reader while the rest is kept. */
  readonly exec: (
    exec: Exec,
    events: Stream.Stream<ProcessEvent, StartError>
  ) => Effect.Effect<Events, StartError>
  /** The rest, for the reader that goes on where its answer ended; `otherwise` for any other. */
  readonly rest: (
    processId: ProcessId,
    options: AttachOptions,
    otherwise: Stream.Stream<ProcessEvent, MachineOperationError>
  ) => Stream.Stream<ProcessEvent, MachineOperationError>
}

const keyOf = (processId: ProcessId, reader: string) => `${processId} ${reader}`

/** The first events of a program: those that fit into an answer, and what came with the last of them. */
class Beginning {
  readonly events: Array<ProcessEvent> = []
  /** How many of them fit. */
  fitting = 0
  #size = 0

  get isOver(): boolean {
    return this.events.at(-1)?._tag === "Exited"
  }

  /** Takes events until the program has ended or there are enough. */
  fill(pull: Reading): Pull.Pull<void, StartError> {
    if (this.isOver || this.#size >= answerBytes) return Effect.void
    return Effect.flatMap(pull, (events) => {
      for (const event of events) {
        this.events.push(event)
        if (this.#size < answerBytes) this.fitting++
        this.#size += eventBytes + (event._tag === "Output" ? event.data.byteLength : 0)
      }
      return this.fill(pull)
    })
  }
}

/** Fills for so long. It is not interrupted then, which might lose what has just arrived: it goes on, and may be waited for. */
const fillFor = Effect.fnUntraced(function* (
  millis: number,
  filled: Effect.Effect<void, StartError>,
  scope: Scope.Scope
) {
  const filling = yield* Effect.forkIn(filled, scope, { startImmediately: true })
  yield* Effect.timeoutOption(Fiber.join(filling), millis)
  return Fiber.join(filling)
})

/** None yet; what is kept ends with the scope. */
export const makeExecs = Effect.fnUntraced(function* (attachments: Pick<Attachments, "watched">) {
  const actor = yield* Effect.scope
  const rests = new Map<string, Rest>()

  const keep = (key: string, rest: Omit<Rest, "timer">, idleMillis: number) => {
    const drop = Effect.suspend(() => {
      if (rests.get(key)?.scope === rest.scope) rests.delete(key)
      return Scope.close(rest.scope, Exit.void)
    })
    return Effect.map(Effect.forkIn(Effect.delay(drop, idleMillis), actor), (timer) => {
      rests.set(key, { ...rest, timer })
    })
  }

  const begin = ({ process, options, waitMillis }: Exec, events: Stream.Stream<ProcessEvent, StartError>) => {
    const { reader, maxOutputBytes, idleMillis = keptMillis } = options
    const scope = Scope.forkUnsafe(actor)
    const beginning = new Beginning()
    const gather = Effect.gen(function* () {
      const pull = yield* pullOf(events, scope)
      const filled = Pull.catchDone(beginning.fill(pull), () => Effect.void)
      let filling: Effect.Effect<void, StartError> = Effect.void
      if (waitMillis === undefined) yield* filled
      else filling = yield* fillFor(waitMillis, filled, scope)
      const given = beginning.events.slice(0, beginning.fitting)
      const more = Stream.suspend(() =>
        Stream.concat(
          Stream.fromIterable(beginning.events.slice(given.length)),
          Stream.fromPull(Effect.succeed(pull))
        )
      )
      return { given, more: Stream.unwrap(Effect.as(filling, more)) }
    })
    return Effect.onExit(gather, (exit) => {
      if (Exit.isFailure(exit) || exit.value.given.at(-1)?._tag === "Exited") {
        return Scope.close(scope, Exit.void)
      }
      const { given, more } = exit.value
      const position = makePosition({ maxOutputBytes }, reader)
      for (const event of given) position.see(event)
      const { cursor = 0 } = position.attach()
      return keep(keyOf(process.processId, reader), { process, given, cursor, more, scope }, idleMillis)
    }).pipe(Effect.map(({ given }) => given))
  }

  const take = (processId: ProcessId, { reader, cursor = 0 }: AttachOptions): Rest | undefined => {
    if (reader === undefined) return undefined
    const key = keyOf(processId, reader)
    const rest = rests.get(key)
    if (rest?.cursor !== cursor) return undefined
    rests.delete(key)
    rest.timer.interruptUnsafe()
    return rest
  }

  const execs: Execs = {
    exec: (exec, events) =>
      Effect.suspend(() => {
        const kept = rests.get(keyOf(exec.process.processId, exec.options.reader))
        return kept !== undefined && isSameSpec(kept.process, exec.process)
          ? Effect.succeed(kept.given)
          : begin(exec, events)
      }),
    rest: (processId, options, otherwise) =>
      Stream.unwrap(
        Effect.map(
          Effect.acquireRelease(
            Effect.sync(() => take(processId, options)),
            (rest) => (rest === undefined ? Effect.void : Scope.close(rest.scope, Exit.void))
          ),
          (rest) => {
            if (rest === undefined) return otherwise
            const started = Stream.fromIterable(rest.given.slice(0, 1))
            const more = Stream.mapError(rest.more, asAttached)
            return attachments.watched(Stream.concat(started, more), options.idleMillis)
          }
        )
      )
  }
  return execs
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
