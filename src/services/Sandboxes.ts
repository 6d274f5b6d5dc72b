/**
 * The service that programs use: create sandboxes, find them, end them.
 *
 * Written once over a client of the contract, so that a sandbox in this process
 * and one behind a service are the same type.
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const sandbox = yield* Sandboxes.create({ image: "host" })
 *   const { stdout } = yield* sandbox.commands.run("echo hello")
 *   return stdout
 * }).pipe(Effect.scoped)
 * ```
 */
import { Cause, Context, Effect, Fiber, Layer, Option, Schedule, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import type { Conflict } from "../domain/Errors.ts"
import {
  AttemptId,
  type IdempotencyKey,
  makeNumbering,
  ProcessId,
  ReaderId,
  UploadId
} from "../domain/Ids.ts"
import { CreateRequest, ListRequest, type SandboxInfo, type SandboxPage } from "../domain/Sandbox.ts"
import { Text } from "../domain/Text.ts"
import type { LifecycleError, OperationError } from "../rpc/SandboxRpcs.ts"
import { decodeInput } from "./Input.ts"
import { makeSandbox, type NewIds, type Sandbox } from "./Sandbox.ts"
import { CallerLease, type Client, Releasing, SandboxClient } from "./SandboxClient.ts"

/** What a sandbox shall be; everything has a default. */
export type CreateOptions = typeof CreateRequest.Encoded

interface Service {
  /** Creates a sandbox that is gone when the scope closes, or when this program dies. Interrupted at any moment it leaves nothing. */
  readonly create: (options?: CreateOptions) => Effect.Effect<Sandbox, LifecycleError, Scope.Scope>
  /** Creates a sandbox that stays until it is killed or expires. Interrupted before the service has answered it leaves nothing. */
  readonly createDetached: (options?: CreateOptions) => Effect.Effect<Sandbox, LifecycleError>
  /** The sandbox of this name; created (detached) when there is none. An existing one is not changed. */
  readonly getOrCreate: (
    name: string,
    options?: Omit<CreateOptions, "name" | "idempotencyKey">
  ) => Effect.Effect<Sandbox, LifecycleError>
  /** A handle on an existing sandbox, by id, name or slug. */
  readonly connect: (idOrName: string) => Effect.Effect<Sandbox, OperationError>
  /** What an existing sandbox is, by id, name or slug. */
  readonly get: (idOrName: string) => Effect.Effect<SandboxInfo, OperationError>
  /** One page of the sandboxes that match, in order of creation. */
  readonly list: (options?: typeof ListRequest.Encoded) => Effect.Effect<SandboxPage, OperationError>
  /** Ends a sandbox for good, by id, name or slug. */
  readonly kill: (idOrName: string) => Effect.Effect<void, LifecycleError>
}

const isNameTaken = (error: LifecycleError): error is Conflict =>
  error._tag === "Conflict" && error.kind === "name"

/** How long whoever gives a creation up waits until it is taken back, in milliseconds. */
const cancelMillis = 2_000
/** How often taking back is tried again where the service could not do it. */
const cancelRetries = 5
const cancelSchedule = Schedule.exponential("100 millis")

const decodeCreate = decodeInput(CreateRequest, "")
const decodeList = decodeInput(ListRequest, "")
const decodeName = decodeInput(Text, "idOrName")

/** Lets a sandbox go. One whose service is not there any more ends with the lease that holds it. */
const released = (kill: Sandbox["kill"]) => Effect.provideService(Effect.ignore(kill), Releasing, true)

const make = Effect.gen(function* () {
  const client: Client = yield* SandboxClient
  const lease = yield* CallerLease
  const scope = yield* Effect.scope
  const random = yield* SecureRandom.SecureRandom
  const next = yield* Effect.provideService(makeNumbering, SecureRandom.SecureRandom, random)
  const newIds: NewIds = {
    process: () => ProcessId.make(next()),
    reader: () => ReaderId.make(next()),
    upload: () => UploadId.make(next())
  }
  const handle = (info: SandboxInfo) => makeSandbox(client, info.id, newIds, lease)
  const find = (idOrName: string) =>
    Effect.flatMap(decodeName(idOrName), (idOrName) => client.FindSandbox({ idOrName }))

  /** Takes an attempt back, for at most so long in the way of whoever gave it up; it goes on after that. */
  const takeBack = (attempt: AttemptId, idempotencyKey: IdempotencyKey | undefined) =>
    client.CancelCreate({ attempt, idempotencyKey }).pipe(
      Effect.retry({ times: cancelRetries, schedule: cancelSchedule, while: (error) => error.isRetryable }),
      Effect.ignore({ log: "Warn", message: "an interrupted creation may have left a sandbox" }),
      Effect.forkIn(scope, { startImmediately: true }),
      Effect.flatMap((cancelling) => Effect.timeoutOption(Fiber.await(cancelling), cancelMillis))
    )

  /** Creates a sandbox, or leaves none: whatever is interrupted, or ends without an answer, is taken back. */
  const createAs = Effect.fnUntraced(function* (options: CreateOptions | undefined, detached: boolean) {
    const request = yield* decodeCreate(options ?? {})
    const { idempotencyKey } = request
    const attempt = AttemptId.make(next())
    return yield* Effect.onError(
      Effect.map(client.CreateSandbox({ request, detached, lease, attempt }), handle),
      (cause) => {
        const error = Cause.findErrorOption(cause)
        const isUnknown = Option.isSome(error) && error.value.outcome === "unknown"
        // What has a key can be had by asking again.
        const isLost = isUnknown && !(detached && idempotencyKey !== undefined)
        return Cause.hasInterrupts(cause) || isLost ? takeBack(attempt, idempotencyKey) : Effect.void
      }
    )
  })

  const service: Service = {
    create: Effect.fn("Sandboxes.create")((options) =>
      Effect.acquireRelease(createAs(options, false), (sandbox) => released(sandbox.kill), {
        interruptible: true
      })
    ),
    createDetached: Effect.fn("Sandboxes.createDetached")((options) => createAs(options, true)),
    getOrCreate: Effect.fn("Sandboxes.getOrCreate")(function* (name, options) {
      const existing = Effect.map(find(name), handle)
      return yield* existing.pipe(
        Effect.catchTag("NotFound", () => createAs({ ...options, name }, true)),
        // Somebody else may have created it in the meantime.
        Effect.catchIf(isNameTaken, () => existing)
      )
    }),
    connect: Effect.fn("Sandboxes.connect")((idOrName) => Effect.map(find(idOrName), handle)),
    get: Effect.fn("Sandboxes.get")(find),
    list: Effect.fn("Sandboxes.list")(function* (options = {}) {
      return yield* client.ListSandboxes(yield* decodeList(options))
    }),
    kill: Effect.fn("Sandboxes.kill")((idOrName) =>
      Effect.flatMap(find(idOrName), (info) => handle(info).kill)
    )
  }
  return service
})

/** Creates, finds and ends sandboxes. */
export class Sandboxes extends Context.Service<Sandboxes, Service>()("fiberbox/services/Sandboxes") {
  /** The service over whatever client of the contract is provided. */
  static readonly layer: Layer.Layer<Sandboxes, never, SandboxClient | SecureRandom.SecureRandom> =
    Layer.effect(Sandboxes, make)

  static readonly create = (options?: CreateOptions) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.create(options))
  static readonly createDetached = (options?: CreateOptions) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.createDetached(options))
  static readonly getOrCreate = (name: string, options?: Omit<CreateOptions, "name" | "idempotencyKey">) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.getOrCreate(name, options))
  static readonly connect = (idOrName: string) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.connect(idOrName))
  static readonly get = (idOrName: string) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.get(idOrName))
  static readonly list = (options?: typeof ListRequest.Encoded) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.list(options))
  static readonly kill = (idOrName: string) =>
    Effect.flatMap(Sandboxes, (sandboxes) => sandboxes.kill(idOrName))
}
