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
  Schema
} from "effect"
import { type AuditDetails, type AuditEntry, maxArguments, maxDetail } from "../domain/Audit.ts"
import { Connection } from "../domain/Errors.ts"
import { SandboxId } from "../domain/Ids.ts"
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

/** The calls of one service. */
export class Calls extends Context.Service<
  Calls,
  {
    /** Surrounds the answering of a call. `Connection` when the service takes no more. */
    readonly around: Around
    /** Whether it takes calls: until it is {@link drain}ed. */
    readonly accepting: () => boolean
    /** How many are being answered. */
    readonly running: () => number
    /** Takes no more calls, and waits until those being answered have ended, or for so long. Tells whether all have. */
    readonly drain: (limit: Duration.Input) => Effect.Effect<boolean>
  }
>()("fiberbox/services/Calls") {
  /** Counts in the present metric registry, writes to the audit, and is what servers surround their calls with. */
  static readonly layer: Layer.Layer<Calls, never, Audit> = Layer.effectContext(
    Effect.map(
      Effect.suspend(() => make),
      (calls) => Context.make(Calls, calls).pipe(Context.add(AroundCalls, calls.around))
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

  const around: Around =
    (operation, payload) =>
    <A, E, R>(answer: Effect.Effect<A, E, R>) =>
      Effect.withFiber((fiber): Effect.Effect<A, E | Connection, R> => {
        if (draining && !allowedWhileDraining.has(operation)) return Effect.fail(refusal)
        const { context } = fiber
        const clock = Context.get(context, Clock.Clock)
        const caller = Context.get(context, CurrentCaller)
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
    accepting: () => !draining,
    running: () => running,
    drain: (limit) =>
      Effect.suspend(() => {
        draining = true
        return Effect.map(Effect.timeoutOption(idle.await, limit), Option.isSome)
      })
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
