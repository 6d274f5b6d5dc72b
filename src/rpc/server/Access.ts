/**
 * What a caller may do: its token's scope, how much at one time, and that what
 * it changes is not undone by a connection that breaks.
 */
import { Context, Effect, Exit, Fiber, Layer } from "effect"
import { type Rpc, RpcSchema } from "effect/rpc"
import { allows } from "../../domain/Access.ts"
import { PolicyDenied, ResourceExhausted } from "../../domain/Errors.ts"
import { AroundCalls } from "../../services/Calls.ts"
import { RequiredScope } from "../SandboxRpcs.ts"
import { Access } from "../ServedRpcs.ts"
import { CurrentSession } from "./Session.ts"
import type { Limits } from "./Settings.ts"

/** Whether a call was interrupted by its caller, and not by the end of its connection. */
export const isAbort = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  exit.cause.reasons.some(
    (reason) => reason._tag === "Interrupt" && reason.annotations.has(RpcSchema.ClientAbort.key)
  )

/** Whether what becomes of a call whose connection is cut is the matter of its reader (Readers.ts). */
const isRead = (rpc: Rpc.AnyWithProps): boolean =>
  RpcSchema.isStreamSchema(rpc.successSchema) || rpc._tag === "ExecProcess"

/** Calls that end programs: for them there is room of their own, so that a caller who has filled all other can end what fills it. */
const endings: ReadonlySet<string> = new Set(["KillProcess", "CancelProcess"])

/** Calls that go on without their connection, at one time. */
const maxOrphans = 1_000
/** How long each of them may. */
const orphanTime = "10 minutes"

/** Lets calls run to their end though their connection is cut; what the caller interrupts is interrupted. */
const makeOutlive = Effect.gen(function* () {
  const scope = yield* Effect.scope
  let orphans = 0

  return <A, E, R>(call: Effect.Effect<A, E, R>, canAbort: boolean): Effect.Effect<A, E, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkIn(restore(call), scope, { startImmediately: true })
        return yield* Effect.onExit(restore(Fiber.join(fiber)), (exit) => {
          if (fiber.pollUnsafe() !== undefined) return Effect.void
          if ((canAbort && isAbort(exit)) || orphans >= maxOrphans) return Fiber.interrupt(fiber)
          orphans++
          return Effect.timeoutOrElse(Fiber.await(fiber), {
            duration: orphanTime,
            orElse: () => Fiber.interrupt(fiber)
          }).pipe(
            Effect.ensuring(
              Effect.sync(() => {
                orphans--
              })
            ),
            Effect.forkIn(scope),
            Effect.asVoid
          )
        })
      })
    )
})

const make = (limits: Limits) =>
  Effect.map(Effect.all([makeOutlive, AroundCalls]), ([outlive, around]) =>
    Access.of((call, { rpc, payload }) =>
      Effect.withFiber((fiber) => {
        const session = fiber.getRef(CurrentSession)
        if (session === undefined) return Effect.die(new Error("a call came by no session"))
        const watch = around(rpc._tag, payload)
        const needed = Context.get(rpc.annotations, RequiredScope)
        if (!allows(session.caller.scope, needed)) {
          const reason = `${rpc._tag} needs a token of scope ${needed}`
          return watch(Effect.fail(new PolicyDenied({ policy: "scope", reason })))
        }
        const share = endings.has(rpc._tag) ? 2 : 1
        const { ofCaller } = session
        const isFull = session.running >= limits.requestsPerConnection * share
        if (isFull || ofCaller.running >= limits.requestsPerCaller * share) {
          const whose = isFull
            ? `${session.running} calls of this connection`
            : `${ofCaller.running} calls of this caller`
          const reason = `${whose} are under way`
          return Effect.fail(new ResourceExhausted({ resource: "calls", reason, retryAfterMillis: 100 }))
        }
        session.running++
        ofCaller.running++
        const changes = needed !== "read" && !isRead(rpc)
        return Effect.ensuring(
          changes ? outlive(watch(call), session.transport === "websocket") : watch(call),
          Effect.sync(() => {
            session.running--
            ofCaller.running--
          })
        )
      })
    )
  )

/** Decides about every call of the contract. */
export const layer = (limits: Limits): Layer.Layer<Access> => Layer.effect(Access, make(limits))
