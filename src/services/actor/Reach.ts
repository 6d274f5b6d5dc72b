/**
 * How the actor's operations reach the machine: they count as use of the
 * sandbox, and a connection that broke because the machine ended says so.
 */
import { Clock, Effect, Option, Result, Stream } from "effect"
import { Connection, SandboxFailed, type Timeout } from "../../domain/Errors.ts"
import type { Generation, SandboxId } from "../../domain/Ids.ts"
import { monotonicMillis } from "../Alarms.ts"
import type { Machine } from "../Machine.ts"
import { traced, tracedStream } from "../Tracing.ts"
import type { Attachments } from "./Attachments.ts"
import type { Activity } from "./Expiries.ts"
import type { Lifecycle } from "./Lifecycle.ts"

/** The incarnation a caller's handle belongs to, if it says. */
export interface Handle {
  readonly generation?: Generation | undefined
}

/** How reaching the machine fails. */
type Unreachable = Effect.Error<ReturnType<Lifecycle["machine"]>> | Connection | SandboxFailed

/** The ways to a sandbox's machine. */
export interface Reach {
  readonly activity: Activity
  /** Something that counts as use of the sandbox as long as it lasts. */
  readonly counted: <A, E>(call: Effect.Effect<A, E>) => Effect.Effect<A, E>
  /** Does something with the machine that is no use of the sandbox: on the service's own account. */
  readonly tend: <A, E>(
    operation: string,
    f: (machine: Machine) => Effect.Effect<A, E | Connection>
  ) => Effect.Effect<A, E | Unreachable>
  /** Does something with the machine. */
  readonly use: <A, E>(
    operation: string,
    handle: Handle,
    f: (machine: Machine) => Effect.Effect<A, E | Connection>
  ) => Effect.Effect<A, E | Unreachable>
  /** What the machine gives, for as long as somebody reads it; whoever does counts as use of the sandbox himself. */
  readonly source: <A, E>(
    operation: string,
    handle: Handle,
    f: (machine: Machine) => Stream.Stream<A, E | Connection>
  ) => Stream.Stream<A, E | Unreachable>
  /** Reads something from the machine, until the reader has taken nothing for `idleMillis`. */
  readonly read: <A, E>(
    operation: string,
    handle: Handle,
    f: (machine: Machine) => Stream.Stream<A, E | Connection>,
    idleMillis?: number
  ) => Stream.Stream<A, E | Unreachable | Timeout>
}

/** How long a broken connection waits for news of the machine's end. */
const newsMillis = 250

/** Why a machine is not there any more that was. */
const endOf = (error: Effect.Error<ReturnType<Lifecycle["machine"]>>): string => {
  switch (error._tag) {
    case "NotFound":
      return error.reason === undefined ? "it was killed" : `it was killed: ${error.reason}`
    case "InvalidState":
      return `its machine was ended, and it is ${error.status}`
    case "GenerationChanged":
      return "its machine was replaced by another"
    case "SandboxFailed":
      return error.reason
  }
}

const isConnection = <E>(error: E | Connection): error is Connection => error instanceof Connection

/** The ways to the machine that `lifecycle` owns. */
export const makeReach = Effect.fnUntraced(function* (
  sandboxId: SandboxId,
  lifecycle: Pick<Lifecycle, "machine" | "whyGivenUp">,
  attachments: Attachments
) {
  const clock = yield* Clock.Clock
  let calls = 0
  let lastAt = monotonicMillis(clock)
  const touch = () => {
    lastAt = monotonicMillis(clock)
  }

  /** Why a connection broke: the sandbox gave the machine up, the machine ended, or neither is known. */
  const diagnose = Effect.fnUntraced(function* (machine: Machine, error: Connection) {
    const failed = (reason: string) => new SandboxFailed({ sandboxId, reason, outcome: error.outcome })
    const reason = lifecycle.whyGivenUp(machine)
    if (reason !== undefined) return yield* failed(reason)
    const present = yield* Effect.result(lifecycle.machine("reach the machine", machine.generation))
    if (Result.isFailure(present)) return yield* failed(endOf(present.failure))
    const news = yield* Effect.timeoutOption(machine.exited, newsMillis)
    return yield* Option.isSome(news) ? failed(news.value.reason) : error
  })

  const counted: Reach["counted"] = (call) =>
    Effect.suspend(() => {
      calls++
      return Effect.onExit(call, () => {
        calls--
        touch()
        return Effect.void
      })
    })

  const source: Reach["source"] = (operation, { generation }, f) =>
    Stream.unwrap(
      Effect.flatMap(lifecycle.machine(operation, generation), (machine) =>
        tracedStream(`Backend: ${operation}`)(
          Stream.catchIf(f(machine), isConnection, (error) => Stream.fromEffect(diagnose(machine, error)))
        )
      )
    )

  const reachMachine: Reach["use"] = (operation, { generation }, f) =>
    Effect.flatMap(lifecycle.machine(operation, generation), (machine) =>
      f(machine).pipe(
        traced(`Backend: ${operation}`),
        Effect.catchIf(isConnection, (error) => diagnose(machine, error))
      )
    )

  const reach: Reach = {
    activity: { count: () => calls + attachments.count(), lastAt: () => lastAt, touch },
    counted,
    tend: (operation, f) => reachMachine(operation, {}, f),
    use: (operation, handle, f) => counted(reachMachine(operation, handle, f)),
    source,
    read: (operation, handle, f, idleMillis) =>
      attachments.watched(source(operation, handle, f), idleMillis).pipe(Stream.ensuring(Effect.sync(touch)))
  }
  return reach
})
