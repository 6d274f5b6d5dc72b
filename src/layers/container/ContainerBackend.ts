/**
 * The backend that runs sandboxes as Linux containers, by an OCI runtime.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type { Capability } from "../../domain/Capability.ts"
import {
  type BackendFailed,
  InvalidArgument,
  NotFound,
  type Timeout,
  type Unsupported
} from "../../domain/Errors.ts"
import { Backend, type MachineRef, type MachineRequest } from "../../services/Backend.ts"
import { Instance } from "../../services/Instance.ts"
import { AgentConnector } from "./AgentConnector.ts"
import { Cgroups } from "./Cgroup.ts"
import { type Container, ContainerFiles } from "./ContainerFiles.ts"
import { makeMachine } from "./ContainerMachine.ts"
import { lossOf } from "./Disk.ts"
import { endMachine, isRunning, removeContainer } from "./Ending.ts"
import { backendFailed } from "./Failures.ts"
import { Host } from "./Host.ts"
import { IdRanges } from "./IdRanges.ts"
import { makeReadiness } from "./Readiness.ts"
import { endStarts, findAll, reapInstance, releaseStrayRanges, removeInstanceGroup } from "./Reaper.ts"
import { backendName, type ContainerOptions, ContainerSettings, layout } from "./Settings.ts"
import { Starter } from "./Starter.ts"

const capabilities: ReadonlySet<Capability> = new Set([
  "pause",
  "stop",
  "adopt",
  "pty",
  "watch",
  "dial",
  "metrics",
  "limit-memory",
  "limit-cpus",
  "limit-pids",
  "limit-disk",
  "limit-inodes",
  "network-none"
])

/** A unix socket's address has 108 bytes, the last of them 0; see unix(7). */
const maxSocketPath = 107

/** The longest container name and the socket in its directory. */
const longestSocket = "/sb_0123456789abcdef_abcdefghijklmnopqrstuvwxyz/a.sock".length

/** What the parts of a container backend are built from. */
type Outside = AgentConnector | FileSystem.FileSystem

const make = Effect.gen(function* () {
  const settings = yield* ContainerSettings
  const connector = yield* AgentConnector
  const files = yield* ContainerFiles
  const starter = yield* Starter
  // Picked, because the whole context would bring this layer's scope and tracing span along.
  const parts = Context.pick(
    Cgroups,
    ContainerFiles,
    ContainerSettings,
    FileSystem.FileSystem,
    IdRanges
  )(yield* Effect.context<Cgroups | ContainerFiles | ContainerSettings | FileSystem.FileSystem | IdRanges>())
  const instance = yield* Instance
  const ready = yield* makeReadiness

  const room = maxSocketPath - longestSocket
  if (layout(settings).containers.length > room) {
    return yield* new InvalidArgument({
      field: "stateDir",
      reason: `${settings.stateDir} is too long for the address of a unix socket`
    })
  }
  const goOn = (what: string) =>
    Effect.catch((error: { readonly message: string }) => Effect.logWarning(`${what}: ${error.message}`))
  // What others left behind keeps nobody from beginning.
  yield* reapDead.pipe(goOn("could not look for dead instances"))
  // An ephemeral instance has just been made, so it has none.
  if (!instance.ephemeral) yield* endStarts
  if (!instance.ephemeral) yield* releaseStrayRanges.pipe(goOn("could not give back unused ids"))
  yield* Effect.addFinalizer(() =>
    Effect.ignore(instance.ephemeral ? Effect.asVoid(reapInstance) : removeInstanceGroup).pipe(
      Effect.provideContext(parts)
    )
  )

  const attach = Effect.fnUntraced(function* (container: Container, request: MachineRequest) {
    const agent = yield* connector.connect({
      socket: container.files.socket,
      generation: request.generation,
      leaseMillis: request.detached ? 0 : settings.orphanMillis,
      isPaused: yield* (yield* Cgroups).isFrozen(container.group)
    })
    return yield* makeMachine(container, request, agent)
  }, Effect.provideContext(parts))

  const connectionBroken = (error: { readonly message: string }) =>
    Effect.fail(backendFailed("connect to a machine", error.message, "not-started"))

  /** Whether the machine that was asked for runs already. */
  const hasMachine = Effect.fnUntraced(function* (container: Container, request: MachineRequest) {
    const record = yield* files.record(container)
    if (record === undefined || record === "unreadable") return false
    return record.generation === request.generation && (yield* isRunning(container))
  }, Effect.provideContext(parts))

  const provision = Effect.fnUntraced(function* (request: MachineRequest) {
    const container = files.container(request.sandboxId)
    const exists = yield* files.exists(container)
    if (exists && (yield* hasMachine(container, request))) {
      return yield* attach(container, request).pipe(Effect.catchTag("Connection", connectionBroken))
    }
    yield* starter.validate(request.spec)
    const end = Effect.provideContext(endMachine(container), parts)
    // Of an earlier generation, or of a start that was cut off.
    if (exists) {
      yield* end
      const loss = yield* lossOf(container)
      if (loss !== undefined) yield* request.onLoss?.(loss) ?? Effect.void
    }
    const connected = Effect.catchTag(attach(container, request), "Connection", connectionBroken)
    // No interruption falls between the two, where a machine would be nobody's.
    return yield* Effect.uninterruptibleMask((restore) =>
      restore(starter.start(container, request)).pipe(
        Effect.andThen(Effect.onError(restore(connected), () => Effect.ignore(end)))
      )
    )
  })

  const adopt = Effect.fnUntraced(function* (request: MachineRequest) {
    const container = files.container(request.sandboxId)
    if (!(yield* hasMachine(container, request))) {
      return yield* new NotFound({ kind: "sandbox", id: request.sandboxId })
    }
    return yield* attach(container, request).pipe(Effect.catchTag("Connection", connectionBroken))
  })

  /** One of which nothing can be told is remains: nobody may know them as a machine. */
  const refOf = Effect.fnUntraced(function* (
    container: Container
  ): Effect.fn.Return<MachineRef, never, Cgroups | ContainerFiles> {
    const record = yield* files.record(container)
    const isKnown = record !== undefined && record !== "unreadable"
    const running = isKnown && (yield* Effect.orElseSucceed(isRunning(container), () => false))
    return { sandboxId: container.sandboxId, generation: running ? record.generation : undefined }
  })

  return Backend.of({
    name: backendName,
    isolation: "container",
    capabilities,
    validate: starter.validate,
    provision,
    adopt,
    end: (sandboxId) => Effect.provideContext(endMachine(files.container(sandboxId)), parts),
    remove: (sandboxId) => Effect.provideContext(removeContainer(files.container(sandboxId)), parts),
    ready,
    list: findAll.pipe(
      Effect.flatMap((ids) => Effect.forEach(ids, (id) => refOf(files.container(id)))),
      Effect.provideContext(parts)
    )
  })
})

/** Ends what dead ephemeral instances on this machine left, and removes their directories. */
const reapDead = Effect.scoped(
  Effect.gen(function* () {
    const instance = yield* Instance
    const settings = yield* ContainerSettings
    const dead = yield* instance.deadInstances
    yield* Effect.forEach(dead, (left) =>
      reapInstance.pipe(
        Effect.andThen(left.remove),
        Effect.provide(
          ContainerFiles.layer.pipe(
            Layer.provideMerge(
              Layer.succeed(ContainerSettings, { ...settings, instanceId: left.id, stateDir: left.stateDir })
            )
          ),
          // Never our own, which the surrounding layers already hold.
          { local: true }
        ),
        Effect.tap(() => Effect.logInfo(`removed what the dead instance ${left.id} left`)),
        // It keeps its directory, so the next start tries again.
        Effect.catch((error) => Effect.logWarning(`could not remove a dead instance: ${error.message}`))
      )
    )
  })
)

/**
 * The container backend of the instance that this program is. Needs root. At
 * its start it removes what dead ephemeral instances left; at its end an
 * ephemeral instance's own containers.
 *
 * Fails with `Unsupported` on a processor without a filter, with
 * `InvalidArgument` for a state directory whose path is too long.
 */
export const layer = (
  options: ContainerOptions = {}
): Layer.Layer<Backend, BackendFailed | InvalidArgument | Timeout | Unsupported, Outside | Instance> =>
  Layer.effect(Backend, make).pipe(
    Layer.provide(Starter.layer),
    Layer.provide(Layer.mergeAll(Host.layer, IdRanges.layer, ContainerFiles.layer)),
    Layer.provide(Cgroups.layer),
    Layer.provide(ContainerSettings.layer(options)),
    // The parts belong to one instance; a program that has two must not share them.
    Layer.fresh
  )
