/**
 * What is on disk and not in the store, and what can be done with it: made a
 * sandbox again, or removed. Nothing else ever touches it but to end its
 * programs; see `Reconciler`.
 */
import { Clock, Context, Effect, Layer } from "effect"
import {
  type BackendFailed,
  type Conflict,
  type InvalidArgument,
  NotFound,
  type PolicyDenied,
  type ResourceExhausted,
  type Timeout,
  type Unsupported
} from "../domain/Errors.ts"
import { Generation, type SandboxId, slugOf } from "../domain/Ids.ts"
import type { AdoptRequest, Remnant } from "../domain/Remains.ts"
import { resolveSpec, type SandboxInfo } from "../domain/Sandbox.ts"
import { infoOf } from "./actor/Requests.ts"
import { Backend } from "./Backend.ts"
import { type SandboxRecord, SandboxStore } from "./SandboxStore.ts"

/** How adopting remains can fail: a name that is taken, an image that is not there, a limit beyond the machine's. */
export type AdoptError =
  | BackendFailed
  | Conflict
  | InvalidArgument
  | NotFound
  | PolicyDenied
  | ResourceExhausted
  | Timeout
  | Unsupported

/** The remains on this computer. An id that is none of theirs is `NotFound`. */
export class Remains extends Context.Service<
  Remains,
  {
    readonly list: Effect.Effect<ReadonlyArray<Remnant>, BackendFailed>
    /** Makes a stopped sandbox of remains, under its old id. */
    readonly adopt: (request: AdoptRequest) => Effect.Effect<SandboxInfo, AdoptError>
    /** Removes remains for good. */
    readonly remove: (id: SandboxId) => Effect.Effect<void, NotFound | BackendFailed | Timeout>
  }
>()("fiberbox/services/Remains") {
  /** The remains of a backend that a store does not know. */
  static readonly layer: Layer.Layer<Remains, never, Backend | SandboxStore> = Layer.effect(
    Remains,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const backend = yield* Backend
  const store = yield* SandboxStore

  const found = Effect.gen(function* () {
    const refs = yield* backend.list
    const known = yield* store.known(refs.map((ref) => ref.sandboxId))
    return refs.filter((ref) => !known.has(ref.sandboxId))
  })

  const one = Effect.fnUntraced(function* (id: SandboxId) {
    const ref = (yield* found).find((ref) => ref.sandboxId === id)
    return ref ?? (yield* new NotFound({ kind: "sandbox", id }))
  })

  return Remains.of({
    list: Effect.map(found, (refs) =>
      refs.map(({ generation, sandboxId }) => ({ sandboxId, running: generation !== undefined }))
    ).pipe(Effect.withSpan("Remains.list")),
    adopt: Effect.fn("Remains.adopt")(function* ({ owner, request, sandboxId: id }) {
      const { generation } = yield* one(id)
      const spec = resolveSpec(request)
      yield* backend.validate(spec)
      yield* backend.end(id)
      const now = yield* Clock.currentTimeMillis
      const record: SandboxRecord = {
        id,
        owner,
        name: request.name,
        slug: request.name ?? slugOf(id),
        status: "stopped",
        generation: generation ?? Generation.make(1),
        backend: backend.name,
        isolation: backend.isolation,
        detached: true,
        spec,
        createdAt: now,
        // It had a machine once: so there is a disk, which must not be replaced by an empty one.
        startedAt: now,
        expiresAt: spec.ttl === undefined ? undefined : now + spec.ttl.afterMillis,
        restarts: 0,
        requestDigest: ""
      }
      return infoOf((yield* store.create(record)).record)
    }),
    remove: Effect.fn("Remains.remove")(function* (id) {
      yield* one(id)
      yield* backend.remove(id)
    })
  })
})
