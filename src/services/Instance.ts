/**
 * The instance a program is: one state directory, locked for as long as the
 * program lives, and an id that every machine, mount and cgroup of it carries.
 * Thereby an embedded run, a test suite and a service on one computer never
 * touch each other's sandboxes.
 *
 * A *persistent* instance has a state directory of its owner's choice; a later
 * start takes over what it finds there. An *ephemeral* one lives in
 * `<baseDir>/ephemeral/<id>` and ends with its program; if it could not end
 * itself, whoever comes next and finds its lock free clears it away.
 */
import { Context, Effect, Layer, Schema, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import type { BackendFailed } from "../domain/Errors.ts"
import { base32 } from "../domain/Ids.ts"

/** Identifies an instance: 10 base32 characters, 50 random bits. Short, as it stands in paths of sockets. */
export const InstanceId = Schema.String.check(
  Schema.isPattern(/^[a-z2-7]{10}$/, { message: "an instance id is 10 of a-z 2-7" })
).pipe(Schema.brand("InstanceId"))
export type InstanceId = typeof InstanceId.Type

/** A new instance id. */
export const makeInstanceId: Effect.Effect<InstanceId, never, SecureRandom.SecureRandom> = Effect.gen(
  function* () {
    const random = yield* SecureRandom.SecureRandom
    return InstanceId.make(base32(yield* random.randomBytes(7)).slice(0, 10))
  }
)

/** An ephemeral instance whose program is gone, locked by whoever looks at it. */
export interface DeadInstance {
  readonly id: InstanceId
  /** Absolute path of what it left. */
  readonly stateDir: string
  /** Removes the state directory: for when everything it tells of has been ended. */
  readonly remove: Effect.Effect<void, BackendFailed>
}

/** The instance this program is. */
export class Instance extends Context.Service<
  Instance,
  {
    readonly id: InstanceId
    /** Absolute path; only this instance writes below it. */
    readonly stateDir: string
    /** Absolute path of what the instances of this computer and user share: images, ephemeral instances. */
    readonly baseDir: string
    /** Whether everything of it ends with the program. */
    readonly ephemeral: boolean
    /**
     * The dead ephemeral instances below the same `baseDir`. Each stays locked
     * until the scope closes, so nobody else clears it away meanwhile.
     */
    readonly deadInstances: Effect.Effect<ReadonlyArray<DeadInstance>, BackendFailed, Scope.Scope>
  }
>()("fiberbox/services/Instance") {
  /** An instance without a directory, for backends that keep nothing on disk. */
  static readonly layerMemory: Layer.Layer<Instance, never, SecureRandom.SecureRandom> = Layer.effect(
    Instance,
    Effect.map(makeInstanceId, (id) =>
      Instance.of({
        id,
        stateDir: `/memory/${id}`,
        baseDir: "/memory",
        ephemeral: true,
        deadInstances: Effect.succeed([])
      })
    )
  )
}
