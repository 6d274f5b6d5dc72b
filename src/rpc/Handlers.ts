/**
 * The contract's handlers: they settle who is asking and whether the sandbox
 * is theirs, and hand the call to its actor. Only ids that the store knows
 * reach an actor.
 */
import { Clock, Effect, Exit, Metric, Stream } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import { BackendFailed, Connection, NotFound, ResourceExhausted, SandboxFailed } from "../domain/Errors.ts"
import {
  type AttemptId,
  Generation,
  IdempotencyKey,
  type LeaseId,
  makeSandboxId,
  type Owner,
  type SandboxId,
  slugOf
} from "../domain/Ids.ts"
import { type CreateRequest, resolveSpec, type SandboxInfo } from "../domain/Sandbox.ts"
import { makeAttempts } from "../services/Attempts.ts"
import { type AccessScope, CurrentCaller } from "../services/Authenticator.ts"
import { infoOf } from "../services/actor/Requests.ts"
import { Backend } from "../services/Backend.ts"
import { Leases } from "../services/Leases.ts"
import { Placement } from "../services/Placement.ts"
import { Principal } from "../services/Principal.ts"
import { admission, Quotas } from "../services/Quotas.ts"
import { Recent } from "../services/Recent.ts"
import { SandboxActor } from "../services/SandboxActor.ts"
import { type SandboxRecord, SandboxStore } from "../services/SandboxStore.ts"
import * as ServiceMetrics from "../services/ServiceMetrics.ts"
import { makeShares } from "../services/Shares.ts"
import { type LifecycleError, SandboxRpcs } from "./SandboxRpcs.ts"

/** Sandboxes whose owners need not be looked up; the oldest are forgotten first. */
const maxKnown = 10_000
/** So many sandboxes of one caller are looked up at a time; the others wait, and nobody else's do. */
const lookUpsAtOnce = 16

type Actor = ReturnType<Effect.Success<typeof SandboxActor.client>>
type ClusterError = Exclude<Effect.Error<ReturnType<Actor["Wake"]>>, LifecycleError>

const encoder = new TextEncoder()

const isClusterError = <E extends { readonly _tag: string }>(
  error: E | ClusterError
): error is ClusterError =>
  error._tag === "MailboxFull" ||
  error._tag === "AlreadyProcessingMessage" ||
  error._tag === "PersistenceError" ||
  error._tag === "EntityNotAssignedToRunner"

/** What a cluster's own trouble means to a caller. */
const translate = (error: ClusterError): ResourceExhausted | BackendFailed | Connection => {
  switch (error._tag) {
    case "MailboxFull":
      return new ResourceExhausted({ resource: "mailbox", reason: "too many calls wait for this sandbox" })
    case "EntityNotAssignedToRunner":
      return new Connection({ reason: "no host has this sandbox at the moment", outcome: "not-started" })
    case "AlreadyProcessingMessage":
    case "PersistenceError":
      return new BackendFailed({
        backend: "cluster",
        operation: "deliver a call",
        reason: error.message,
        outcome: "unknown"
      })
  }
}

/** Text that is the same for the same request, whatever the order of its fields. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part
  )

/** What a creation is asked with. */
interface Creation {
  readonly request: CreateRequest
  readonly detached: boolean
  readonly lease?: LeaseId | undefined
  readonly attempt?: AttemptId | undefined
}

/** A request that is made again wants a sandbox that runs, and its own is no more. */
const gone = ({ id, reason }: SandboxInfo) =>
  new SandboxFailed({
    sandboxId: id,
    reason: `this request has created it, and it was killed since${reason === undefined ? "" : `: ${reason}`}; a new one needs another key`,
    outcome: "completed"
  })

/** What could not be made, and may be made by the next service, which does not know that it is not wanted. */
const notTakenBack = (error: { readonly message: string }, remaining: { readonly message: string }) =>
  new BackendFailed({
    backend: "service",
    operation: "take back a sandbox that could not be made",
    reason: `${error.message}; and ${remaining.message}`,
    outcome: "unknown"
  })

const noteRefusal = (error: { readonly _tag: string }) =>
  error._tag === "ResourceExhausted" ? Metric.update(ServiceMetrics.quotaRefusals, 1) : Effect.void

/** Between an actor and its callers only so many items of a stream wait that may be large. */
const bulk = { streamBufferSize: 2 }

/** What a caller of this scope sees of a sandbox: who may only look sees no value of its environment. */
const visibleTo =
  (scope: AccessScope) =>
  (info: SandboxInfo): SandboxInfo =>
    scope === "read"
      ? { ...info, spec: { ...info.spec, env: {} }, envNames: Object.keys(info.spec.env) }
      : info

/** What is told of a sandbox, as its caller sees it. */
const seen = <E, R>(told: Effect.Effect<SandboxInfo, E, R>) =>
  Effect.flatMap(CurrentCaller, ({ scope }) => Effect.map(told, visibleTo(scope)))

/** The handlers over the actors of whatever cluster is provided. */
export const make = Effect.gen(function* () {
  const store = yield* SandboxStore
  const backend = yield* Backend
  const random = yield* SecureRandom.SecureRandom
  const digests = yield* Digest.Digest
  const group = yield* Placement
  const leases = yield* Leases
  const quotas = yield* Quotas
  const actorOf = yield* SandboxActor.client
  const own = yield* Effect.context<never>()
  const attempts = yield* makeAttempts
  /** Who owns what, and how its actor is reached; neither ever changes. */
  const known = new Recent<SandboxId, { readonly owner: Owner; readonly actor: Actor }>(maxKnown)

  const learn = (id: SandboxId, owner: Owner) => {
    const sandbox = { owner, actor: actorOf(id) }
    known.set(id, sandbox)
    return sandbox
  }

  const share = makeShares(lookUpsAtOnce)
  const lookUp = (principal: Owner, id: SandboxId) =>
    Effect.map(share(principal)(store.get(id)), (record) =>
      record === undefined ? undefined : learn(id, record.owner)
    )

  /** The actor of a sandbox, if it is the caller's. Another's answers exactly as an unknown one. */
  const actor = Effect.fnUntraced(function* (id: SandboxId) {
    const principal = yield* Principal
    const sandbox = known.get(id) ?? (yield* lookUp(principal, id))
    if (sandbox?.owner !== principal) return yield* new NotFound({ kind: "sandbox", id })
    return sandbox.actor
  })

  const ask = <A, E extends { readonly _tag: string }>(
    { sandboxId }: { readonly sandboxId: SandboxId },
    f: (actor: Actor) => Effect.Effect<A, E | ClusterError>
  ) =>
    Effect.flatMap(actor(sandboxId), (actor) =>
      Effect.catchIf(f(actor), isClusterError, (error) => Effect.fail(translate(error)))
    )

  const follow = <A, E extends { readonly _tag: string }>(
    { sandboxId }: { readonly sandboxId: SandboxId },
    f: (actor: Actor) => Stream.Stream<A, E | ClusterError>
  ) =>
    Stream.unwrap(
      Effect.map(actor(sandboxId), (actor) =>
        Stream.catchIf(f(actor), isClusterError, (error) => Stream.fail(translate(error)))
      )
    )

  /** Ends a sandbox for good, in one way or the other. */
  const end =
    (ending: (actor: Actor, sandboxId: SandboxId) => ReturnType<Actor["Discard"]>) =>
    (sandboxId: SandboxId) =>
      ask({ sandboxId }, (actor) => ending(actor, sandboxId)).pipe(
        Effect.tap(() => Effect.sync(() => known.delete(sandboxId)))
      )
  const kill = end((actor, sandboxId) => actor.ChangeStatus({ sandboxId, command: "kill" }))
  /** Ends what was created and is not handed out. */
  const discard = end((actor, sandboxId) => actor.Discard({ sandboxId }))

  const newRecord = Effect.fnUntraced(function* ({ attempt, detached, lease, request }: Creation) {
    const id = yield* Effect.provideService(makeSandboxId(group), SecureRandom.SecureRandom, random)
    const { name, idempotencyKey } = request
    const spec = resolveSpec(request)
    const now = yield* Clock.currentTimeMillis
    const requestDigest =
      idempotencyKey === undefined
        ? ""
        : yield* digests.digestHex(Digest.sha256, encoder.encode(canonical({ request, detached })))
    const record: SandboxRecord = {
      id,
      owner: yield* Principal,
      name,
      slug: name ?? slugOf(id),
      status: "provisioning",
      generation: Generation.make(1),
      backend: backend.name,
      isolation: backend.isolation,
      detached,
      spec,
      createdAt: now,
      expiresAt: spec.ttl === undefined ? undefined : now + spec.ttl.afterMillis,
      restarts: 0,
      lease: detached ? undefined : lease,
      idempotencyKey: idempotencyKey ?? (attempt === undefined ? undefined : IdempotencyKey.make(attempt)),
      attempt,
      requestDigest
    }
    return record
  })

  /** Records the sandbox, then waits until its actor has made the machine. What fails or is interrupted leaves nothing. */
  const createOne = Effect.fnUntraced(function* (creation: Creation) {
    yield* backend.validate(resolveSpec(creation.request))
    const record = yield* newRecord(creation)
    return yield* Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const stored = yield* Effect.tapError(
          store.create(record, admission(quotas, record.owner, record.spec.limits, record.createdAt)),
          noteRefusal
        )
        const { id: sandboxId, owner } = stored.record
        const { actor } = learn(sandboxId, owner)
        // What first calls an actor is kept as long as the actor: so that is a call without the caller's spans.
        const made = Effect.ignore(Effect.setContext(actor.GetInfo({ sandboxId }), own))
        const awake = restore(
          Effect.andThen(
            made,
            ask({ sandboxId }, (actor) => actor.Wake({ sandboxId }))
          )
        )
        if (stored.existed) {
          yield* awake
          const info = yield* ask({ sandboxId }, (actor) => actor.GetInfo({ sandboxId }))
          return info.status === "killed" ? yield* gone(info) : info
        }
        return yield* Effect.catch(
          Effect.onExit(awake, (exit) =>
            Exit.isSuccess(exit) || !Exit.hasInterrupts(exit)
              ? Effect.void
              : Effect.ignore(discard(sandboxId))
          ),
          (error) =>
            Effect.matchEffect(discard(sandboxId), {
              onSuccess: () => Effect.fail(error),
              onFailure: (remaining) => Effect.fail(notTakenBack(error, remaining))
            })
        )
      })
    )
  })

  const create = Effect.fnUntraced(function* (creation: Creation) {
    const owner = yield* Principal
    const made = Effect.provideService(createOne(creation), Principal, owner)
    const undo = ({ id }: SandboxInfo) => Effect.provideService(Effect.ignore(discard(id)), Principal, owner)
    return yield* attempts.run(owner, creation.attempt, made, undo)
  })

  const cancel = Effect.fnUntraced(function* (attempt: AttemptId, key: IdempotencyKey | undefined) {
    const owner = yield* Principal
    const undo = Effect.gen(function* () {
      const record = yield* store.byKey(owner, key ?? IdempotencyKey.make(attempt))
      if (record?.attempt === attempt && record.status !== "killed") yield* discard(record.id)
    }).pipe(Effect.provideService(Principal, owner))
    yield* attempts.cancel(owner, attempt, undo)
  })

  const find = Effect.fnUntraced(function* (
    idOrName: string
  ): Effect.fn.Return<SandboxInfo, NotFound | BackendFailed> {
    const principal = yield* Principal
    const record = yield* share(principal)(store.find(principal, idOrName))
    if (record === undefined) return yield* new NotFound({ kind: "sandbox", id: idOrName })
    return infoOf(record)
  })

  return SandboxRpcs.of({
    CreateSandbox: create,
    CancelCreate: ({ attempt, idempotencyKey }) => cancel(attempt, idempotencyKey),
    RenewLease: ({ lease, ttlMillis }) =>
      Effect.flatMap(Principal, (owner) => leases.renew(owner, lease, ttlMillis)),
    EndLease: ({ lease }) => Effect.flatMap(Principal, (owner) => leases.end(owner, lease)),
    FindSandbox: ({ idOrName }) => seen(find(idOrName)),
    ListSandboxes: (request) =>
      Effect.gen(function* () {
        const { records, next } = yield* store.list(yield* Principal, request)
        const { scope } = yield* CurrentCaller
        return { sandboxes: records.map((record) => visibleTo(scope)(infoOf(record))), next }
      }),

    GetInfo: (payload) => seen(ask(payload, (actor) => actor.GetInfo(payload))),
    ChangeStatus: (payload) =>
      payload.command === "kill"
        ? kill(payload.sandboxId)
        : ask(payload, (actor) => actor.ChangeStatus(payload)),
    SetExpiry: (payload) => ask(payload, (actor) => actor.SetExpiry(payload)),
    Update: (payload) => ask(payload, (actor) => actor.Update(payload)),
    WaitForReady: (payload) => seen(ask(payload, (actor) => actor.WaitForReady(payload))),
    FollowEvents: (payload) => follow(payload, (actor) => actor.FollowEvents(payload)),
    GetMetrics: (payload) => ask(payload, (actor) => actor.GetMetrics(payload)),

    RunProcess: (payload) => follow(payload, (actor) => actor.RunProcess(payload, bulk)),
    ExecProcess: (payload) => ask(payload, (actor) => actor.ExecProcess(payload)),
    StartProcess: (payload) => ask(payload, (actor) => actor.StartProcess(payload)),
    AttachProcess: (payload) =>
      Stream.unwrap(
        Effect.map(CurrentCaller, ({ scope }) => {
          const attach = scope === "read" ? { ...payload.attach, hold: false } : payload.attach
          return follow(payload, (actor) => actor.AttachProcess({ ...payload, attach }, bulk))
        })
      ),
    ListProcesses: (payload) => ask(payload, (actor) => actor.ListProcesses(payload)),
    SignalProcess: (payload) => ask(payload, (actor) => actor.SignalProcess(payload)),
    KillProcess: (payload) => ask(payload, (actor) => actor.KillProcess(payload)),
    CancelProcess: (payload) => ask(payload, (actor) => actor.CancelProcess(payload)),
    WriteStdin: (payload) => ask(payload, (actor) => actor.WriteStdin(payload)),
    CloseStdin: (payload) => ask(payload, (actor) => actor.CloseStdin(payload)),
    ResizePty: (payload) => ask(payload, (actor) => actor.ResizePty(payload)),

    ReadFile: (payload) => follow(payload, (actor) => actor.ReadFile(payload, bulk)),
    WriteFile: (payload) => ask(payload, (actor) => actor.WriteFile(payload)),
    WriteUpload: (payload) => ask(payload, (actor) => actor.WriteUpload(payload)),
    CommitUpload: (payload) => ask(payload, (actor) => actor.CommitUpload(payload)),
    AbortUpload: (payload) => ask(payload, (actor) => actor.AbortUpload(payload)),
    ListFiles: (payload) => ask(payload, (actor) => actor.ListFiles(payload)),
    StatFile: (payload) => ask(payload, (actor) => actor.StatFile(payload)),
    MakeDir: (payload) => ask(payload, (actor) => actor.MakeDir(payload)),
    RenameFile: (payload) => ask(payload, (actor) => actor.RenameFile(payload)),
    RemoveFile: (payload) => ask(payload, (actor) => actor.RemoveFile(payload)),
    ChangeMode: (payload) => ask(payload, (actor) => actor.ChangeMode(payload)),
    SetTimes: (payload) => ask(payload, (actor) => actor.SetTimes(payload)),
    LinkFile: (payload) => ask(payload, (actor) => actor.LinkFile(payload)),
    WatchFiles: (payload) => follow(payload, (actor) => actor.WatchFiles(payload))
  })
})

/** The handlers as a server of the contract wants them. */
export const layer = SandboxRpcs.toLayer(make)
