/**
 * What surrounds every call that a service answers: it is counted, timed,
 * audited, and refused when the service is about to end.
 */
import {
  Cause,
  Clock,
  Context,
  type Duration,
  Effect,
  Exit,
  identity,
  Latch,
  Layer,
  Option,
  Predicate,
  Schedule,
  Schema
} from "effect"
import { type AuditDetails, type AuditEntry, maxArguments, maxDetail } from "../domain/Audit.ts"
import { Connection } from "../domain/Errors.ts"
import { type Owner, SandboxId } from "../domain/Ids.ts"
import { Audit } from "./Audit.ts"
import { type Caller, CurrentCaller } from "./Authenticator.ts"
import * as ServiceMetrics from "./ServiceMetrics.ts"

/** Surrounds the answering of a call of this name with this payload. */
export type Around = (
  operation: string,
  payload: unknown
) => <A, E, R>(answer: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Connection, R>

/** What a server surrounds each call with; nothing where no {@link Calls} are. */
export const AroundCalls = Context.Reference<Around>("fiberbox/services/AroundCalls", {
  defaultValue: () => () => identity
})

/** A call whose caller reads its answer piece by piece, and comes back for the rest by `AttachProcess`. */
export interface KeptCall {
  /** Whether its caller has got a piece and is still to come back. */
  readonly setAway: (isAway: boolean) => void
  /** Whether the service takes no more calls: who comes back now is given all the rest at once. */
  readonly isEnding: () => boolean
  /** It counts no more. */
  readonly end: () => void
}

/** Who comes back: the names of an owner, a sandbox, a process and a reader. */
export const restKey = (owner: string, sandboxId: string, processId: string, reader: string): string =>
  [owner, sandboxId, processId, reader].join("\0")

/**
 * Counts what is read piece by piece as one call that is under way; `anew` where each piece is asked for on a connection of its
 * own. Nothing is counted where no {@link Calls} are.
 */
export const KeepCall = Context.Reference<(key: string, anew: boolean) => KeptCall>(
  "fiberbox/services/KeepCall",
  {
    defaultValue: () => () => ({ setAway: () => {}, isEnding: () => false, end: () => {} })
  }
)

/** The calls of one service. */
export class Calls extends Context.Service<
  Calls,
  {
    /** Surrounds the answering of a call. `Connection` when the service takes no more. */
    readonly around: Around
    /** See {@link KeepCall}. */
    readonly keep: (key: string, anew: boolean) => KeptCall
    /** Whether it takes calls: until it {@link refuse}s them. */
    readonly accepting: () => boolean
    /** How many are being answered. */
    readonly running: () => number
    /** Takes no more calls from now on. */
    readonly refuse: Effect.Effect<void>
    /** Waits until everybody has come back who reads piece by piece on new connections, or for so long; nobody is waited for any more then. */
    readonly returned: (limit: Duration.Input) => Effect.Effect<void>
    /** Waits until the calls being answered have ended, or for so long. Tells whether all have. */
    readonly drained: (limit: Duration.Input) => Effect.Effect<boolean>
  }
>()("fiberbox/services/Calls") {
  /** Counts in the present metric registry, writes to the audit, and is what servers surround their calls with. */
  static readonly layer: Layer.Layer<Calls, never, Audit> = Layer.effectContext(
    Effect.map(
      Effect.suspend(() => make),
      (calls) =>
        Context.make(Calls, calls).pipe(
          Context.add(AroundCalls, calls.around),
          Context.add(KeepCall, calls.keep)
        )
    )
  )
}

/** Calls that a program which is being waited for may need to come to its end. */
const allowedWhileDraining: ReadonlySet<string> = new Set([
  "SignalProcess",
  "KillProcess",
  "CancelProcess",
  "WriteStdin",
  "CloseStdin",
  "WriteUpload",
  "CommitUpload",
  "AbortUpload",
  "CancelCreate",
  "RenewLease",
  "EndLease"
])

/** Calls that end when somebody else does something, and can be made again: nobody waits for them. */
const notWaitedFor: ReadonlySet<string> = new Set([
  "FollowEvents",
  "FollowAudit",
  "WatchFiles",
  "AttachProcess",
  "WaitForReady"
])

/** Calls that look, or are one of very many: in the audit only when they fail. */
const quiet: ReadonlySet<string> = new Set([
  "GetInfo",
  "FindSandbox",
  "ListSandboxes",
  "GetMetrics",
  "ListProcesses",
  "ListFiles",
  "StatFile",
  "WaitForReady",
  "FollowEvents",
  "FollowAudit",
  "ListKeys",
  "WriteStdin",
  "ResizePty",
  "WriteUpload",
  "EndLease"
])

/** Calls that every client makes all the time, without anybody's wish: never in the audit. */
const silent = "RenewLease"

const startsProgram: ReadonlySet<string> = new Set(["RunProcess", "ExecProcess", "StartProcess"])

const refusal = new Connection({
  reason: "the service is shutting down",
  outcome: "not-started",
  isEnding: true
})

const make = Effect.gen(function* () {
  const audit = yield* Audit
  let draining = false
  let running = 0
  let waitedFor = 0
  const idle = yield* Latch.make(true)

  const begin = (waited: boolean) => {
    running++
    if (!waited) return
    waitedFor++
    idle.closeUnsafe()
  }
  const end = (waited: boolean) => {
    running--
    if (waited && --waitedFor === 0) idle.openUnsafe()
  }

  const kept = new Map<string, KeptCall>()
  /** Those who will come back on a new connection. */
  const away = new Set<KeptCall>()
  const keep = (key: string, anew: boolean): KeptCall => {
    let hasEnded = false
    const call: KeptCall = {
      setAway: (isAway) => {
        if (isAway && anew && !hasEnded) away.add(call)
        else away.delete(call)
      },
      isEnding: () => draining,
      end: () => {
        if (hasEnded) return
        hasEnded = true
        away.delete(call)
        if (kept.get(key) === call) kept.delete(key)
        end(true)
      }
    }
    kept.set(key, call)
    begin(true)
    return call
  }
  const isRest = (owner: Owner, operation: string, payload: unknown) => {
    if (operation !== "AttachProcess" || !isAttach(payload)) return false
    const { attach, processId, sandboxId } = payload
    return attach.reader !== undefined && kept.has(restKey(owner, sandboxId, processId, attach.reader))
  }

  const around: Around =
    (operation, payload) =>
    <A, E, R>(answer: Effect.Effect<A, E, R>) =>
      Effect.withFiber((fiber): Effect.Effect<A, E | Connection, R> => {
        const { context } = fiber
        const caller = Context.get(context, CurrentCaller)
        if (draining && !allowedWhileDraining.has(operation) && !isRest(caller.owner, operation, payload)) {
          return Effect.fail(refusal)
        }
        const clock = Context.get(context, Clock.Clock)
        const at = clock.currentTimeMillisUnsafe()
        const startedAt = clock.currentTimeNanosUnsafe()
        const waited = !notWaitedFor.has(operation)
        begin(waited)
        return Effect.onExit(answer, (exit) =>
          Effect.sync(() => {
            end(waited)
            const durationMillis = Number(clock.currentTimeNanosUnsafe() - startedAt) / 1e6
            const outcome = outcomeOf(exit)
            count(operation, outcome, durationMillis / 1000, context)
            if (operation === silent || (outcome === "ok" && quiet.has(operation))) return
            audit.record(entryOf(caller, operation, payload, exit, { at, durationMillis, outcome }))
          })
        )
      })

  return Calls.of({
    around,
    keep,
    accepting: () => !draining,
    running: () => running,
    refuse: Effect.suspend(() => {
      draining = true
      return Effect.void
    }),
    returned: (limit) =>
      Effect.repeat(
        Effect.sync(() => away.size),
        { schedule: Schedule.spaced("5 millis"), until: (count) => count === 0 }
      ).pipe(
        Effect.timeoutOption(limit),
        Effect.andThen(
          Effect.sync(() => {
            for (const call of away) call.end()
          })
        )
      ),
    drained: (limit) => Effect.map(Effect.timeoutOption(idle.await, limit), Option.isSome)
  })
})

const count = (operation: string, outcome: string, seconds: number, context: Context.Context<never>) => {
  ServiceMetrics.calls(operation).updateUnsafe(1, context)
  ServiceMetrics.callSeconds(operation).updateUnsafe(seconds, context)
  if (outcome !== "ok") ServiceMetrics.callErrors(outcome).updateUnsafe(1, context)
  else if (startsProgram.has(operation)) ServiceMetrics.execs.updateUnsafe(1, context)
  else if (operation === "CreateSandbox") ServiceMetrics.creates.updateUnsafe(1, context)
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "ok"
  const error = Cause.findErrorOption(exit.cause)
  if (Option.isSome(error)) {
    const tag = member(error.value, "_tag")
    return Predicate.isString(tag) ? tag : "defect"
  }
  return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "defect"
}

const isAttach = Schema.is(
  Schema.Struct({
    sandboxId: Schema.String,
    processId: Schema.String,
    attach: Schema.Struct({ reader: Schema.optional(Schema.String) })
  })
)

const isSandboxId = Schema.is(SandboxId)

/** A member of whatever that is. */
const member = (value: unknown, name: string): unknown =>
  Predicate.hasProperty(value, name) ? value[name] : undefined

const text = (value: unknown): string | undefined =>
  Predicate.isString(value) ? value.slice(0, maxDetail) : undefined

const argvOf = (value: unknown): ReadonlyArray<string> | undefined =>
  Array.isArray(value) ? value.slice(0, maxArguments).map((argument) => text(argument) ?? "") : undefined

/** What the audit tells of a request: only these members are ever looked at. */
const detailsOf = (payload: unknown): AuditDetails => {
  const process = member(payload, "process")
  const request = member(payload, "request")
  return {
    argv: argvOf(member(process, "argv")),
    user: text(member(process, "user")),
    processId: text(member(process, "processId") ?? member(payload, "processId")),
    path: text(member(payload, "path") ?? member(payload, "from")),
    command: text(member(payload, "command")),
    image: text(member(request, "image")),
    name: text(member(request, "name")),
    key: text(member(payload, "keyId")),
    keyOwner: text(member(payload, "owner"))
  }
}

const isSomething = (details: AuditDetails): boolean =>
  Object.values(details).some((value) => value !== undefined)

const entryOf = (
  caller: Caller,
  operation: string,
  payload: unknown,
  exit: Exit.Exit<unknown, unknown>,
  call: Pick<AuditEntry, "at" | "durationMillis" | "outcome">
): Omit<AuditEntry, "sequence"> => {
  // Of a creation the id is known only when it has succeeded.
  const id = member(payload, "sandboxId") ?? (Exit.isSuccess(exit) ? member(exit.value, "id") : undefined)
  const details = detailsOf(payload)
  return {
    ...call,
    caller: caller.name,
    owner: caller.owner,
    operation,
    sandboxId: isSandboxId(id) ? id : undefined,
    details: isSomething(details) ? details : undefined
  }
}
