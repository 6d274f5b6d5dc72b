/**
 * Making a container's machine from a specification: check, write down, launch;
 * and undo all of it when any step fails.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import {
  type BackendFailed,
  InvalidArgument,
  NotFound,
  Timeout,
  type Unsupported
} from "../../domain/Errors.ts"
import type { SandboxSpec } from "../../domain/Sandbox.ts"
import type { MachineRequest } from "../../services/Backend.ts"
import { makeDirectories } from "../../services/makeDirectories.ts"
import { runtimeSpec } from "./Bundle.ts"
import { Cgroups } from "./Cgroup.ts"
import { type Container, ContainerFiles } from "./ContainerFiles.ts"
import { endMachine, removeContainer } from "./Ending.ts"
import { fromPlatform, type StartError, startFailed, unsupported } from "./Failures.ts"
import { Host } from "./Host.ts"
import { hostBase, pointsBase, writeOwnLayer } from "./HostImage.ts"
import { baseOf, IdRanges } from "./IdRanges.ts"
import { directoryRoot, hostRoot, launch, type Root, stageFor } from "./Launch.ts"
import { checkLimits } from "./Limits.ts"
import { ContainerSettings, layout } from "./Settings.ts"

/** Runtimes at work at one time, per processor: more only take each other's time and memory. */
const startsPerCpu = 4

/** How long the runtime may take, once the root is staged: a hundred times what it takes on a quiet machine. */
const runtimeMillis = 10_000

/** Makes machines. */
export class Starter extends Context.Service<
  Starter,
  {
    /** Checks that a specification can be served and enforced here, changing nothing. */
    readonly validate: (
      spec: SandboxSpec
    ) => Effect.Effect<void, InvalidArgument | NotFound | Unsupported | BackendFailed>
    /**
     * Starts a machine on the sandbox's disk, which is made when there is none,
     * and returns when its agent runs. A failure or interruption leaves what was there before.
     */
    readonly start: (
      container: Container,
      request: MachineRequest
    ) => Effect.Effect<void, StartError | NotFound | Timeout>
  }
>()("fiberbox/layers/container/Starter") {
  static readonly layer: Layer.Layer<
    Starter,
    BackendFailed,
    Cgroups | ContainerFiles | ContainerSettings | FileSystem.FileSystem | Host | IdRanges
  > = Layer.effect(
    Starter,
    Effect.suspend(() => make)
  )
}

const directoryPrefix = "dir:"

/** A hostname has at most 64 bytes and no underscore. */
const hostnameOf = (container: Container): string => container.name.slice(container.name.indexOf("_") + 1)

const make = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const settings = yield* ContainerSettings
  const cgroups = yield* Cgroups
  const files = yield* ContainerFiles
  const host = yield* Host
  const ranges = yield* IdRanges
  const parts = Context.pick(
    Cgroups,
    ContainerFiles,
    FileSystem.FileSystem,
    IdRanges
  )(yield* Effect.context<Cgroups | ContainerFiles | FileSystem.FileSystem | IdRanges>())
  const places = layout(settings)
  const { freezer } = cgroups.layout.controllers
  const permits = yield* Semaphore.make(host.size.cpus * startsPerCpu)
  // A minute: programs installed meanwhile may have changed the linker's cache.
  const currentHostBase = yield* Effect.cachedWithTTL(
    Effect.provideContext(hostBase(places.images), parts),
    "1 minute"
  )
  for (const directory of [places.containers, places.runtimeState, places.disks, places.images]) {
    yield* makeDirectories(fs, directory).pipe(Effect.mapError(fromPlatform("make the state directory")))
  }

  /** Whether a directory, its links resolved, is at or below one of those listed. */
  const isListed = Effect.fnUntraced(function* (resolved: string, roots: ReadonlyArray<string>) {
    for (const root of roots) {
      const place = yield* Effect.orElseSucceed(fs.realPath(root), () => undefined)
      if (place === undefined) continue
      if (resolved === place || resolved.startsWith(place.endsWith("/") ? place : `${place}/`)) return true
    }
    return false
  })

  /** The directory that an image stands for. Outside the listed ones all looks as if it were not there. */
  const directoryOf = Effect.fnUntraced(function* (image: string) {
    const offered = settings.directoryImages
    if (offered === false || (offered !== true && offered.length === 0)) {
      return yield* unsupported("image dir", "this service does not offer directories as images")
    }
    const path = image.slice(directoryPrefix.length)
    if (!path.startsWith("/") || path.includes(":")) {
      return yield* new InvalidArgument({
        field: "image",
        reason: "must be dir: and an absolute path without a colon"
      })
    }
    const missing = new NotFound({ kind: "image", id: image })
    const directory = offered === true ? path : yield* Effect.mapError(fs.realPath(path), () => missing)
    if (offered !== true && !(yield* isListed(directory, offered))) return yield* missing
    const info = yield* fs.stat(directory).pipe(Effect.orElseSucceed(() => undefined))
    if (info?.type !== "Directory" || directory.includes(":")) return yield* missing
    return directory
  })

  const checkImage = Effect.fnUntraced(function* (image: string) {
    if (image === "host") {
      if (settings.hostImage) return
      return yield* unsupported("image host", "this service does not offer the machine's own programs")
    }
    if (!image.startsWith(directoryPrefix)) return yield* new NotFound({ kind: "image", id: image })
    yield* directoryOf(image)
  })

  const validate = Effect.fnUntraced(function* (spec: SandboxSpec) {
    const problem = checkLimits(spec.limits, host.size, cgroups.layout)
    if (problem !== undefined) return yield* problem
    if (spec.network !== "none") {
      const capability = spec.network === "full" ? "network-full" : "network-allow"
      return yield* unsupported(capability, "containers have no network but their own loopback")
    }
    yield* checkImage(spec.image)
  })

  const rootOf = Effect.fnUntraced(function* (container: Container, image: string) {
    const { own } = container.files
    if (image === "host") return hostRoot(own, yield* currentHostBase)
    return directoryRoot(own, yield* pointsBase(places.images), yield* directoryOf(image))
  }, Effect.provideContext(parts))

  const stageOf = (root: Root) =>
    stageFor([settings.stateDir, settings.baseDir, settings.runtime, settings.agent, ...root.lowers])

  const writeBundle = (container: Container, request: MachineRequest, range: number, stage: string) =>
    fs
      .writeFileString(
        container.files.bundle,
        JSON.stringify(
          runtimeSpec({
            hostname: hostnameOf(container),
            stage,
            idBase: baseOf(range),
            limits: request.spec.limits,
            cgroupsPath: container.group,
            architecture: host.architecture,
            leaseMillis: request.detached ? 0 : settings.orphanMillis,
            host: host.facts
          })
        ),
        { mode: 0o600 }
      )
      .pipe(Effect.mapError(startFailed("write a container's bundle")))

  const makeAndLaunch = Effect.fnUntraced(function* (
    container: Container,
    request: MachineRequest,
    root: Root
  ) {
    const stage = stageOf(root)
    const takeRange = Effect.uninterruptible(
      Effect.tap(ranges.allocate, (taken) =>
        Effect.onError(files.writeRecord(container, { generation: request.generation, range: taken }), () =>
          Effect.ignore(ranges.release(taken), {
            log: "Warn",
            message: `could not give back the ids of ${container.sandboxId}`
          })
        )
      )
    )
    const [range] = yield* Effect.all(
      [
        Effect.tap(takeRange, (taken) => writeBundle(container, request, taken, stage)),
        writeOwnLayer(container.files.own, hostnameOf(container))
      ],
      { concurrency: 2 }
    )
    yield* launch({
      container,
      stage,
      range,
      limits: request.spec.limits,
      root,
      disks: places.disks,
      reserveDisk: settings.reserveDisks,
      helper: settings.helper,
      agent: settings.agent,
      runtime: settings.runtime,
      runtimeState: places.runtimeState,
      stageMillis: settings.provisionMillis,
      runtimeMillis,
      groupList: freezer === undefined ? undefined : `${freezer}/cgroup.procs`
    })
  })

  const start = Effect.fnUntraced(function* (container: Container, request: MachineRequest) {
    yield* validate(request.spec)
    const root = yield* rootOf(container, request.spec.image)
    const failed = Effect.mapError(startFailed("make a container's directory"))
    const hadDisk = yield* failed(fs.exists(container.files.disk))
    if (request.hasDisk && !hadDisk) return yield* new NotFound({ kind: "disk", id: container.files.disk })
    yield* failed(fs.makeDirectory(container.directory, { recursive: true, mode: 0o700 }))
    yield* permits
      .withPermits(1)(makeAndLaunch(container, request, root))
      .pipe(
        Effect.timeoutOrElse({
          duration: settings.provisionMillis,
          orElse: () =>
            Effect.fail(
              new Timeout({ limit: "provision", millis: settings.provisionMillis, outcome: "not-started" })
            )
        }),
        Effect.onError(() => Effect.ignore(hadDisk ? endMachine(container) : removeContainer(container)))
      )
  }, Effect.provideContext(parts))

  return Starter.of({ validate, start })
})
