/**
 * What this machine is like, as far as containers depend on it. Read once.
 */
import { availableParallelism, totalmem } from "node:os"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { BackendFailed, Unsupported } from "../../domain/Errors.ts"
import type { HostFacts } from "./Bundle.ts"
import { Cgroups } from "./Cgroup.ts"
import { backendFailed, fromPlatform, unsupported } from "./Failures.ts"
import { fileSystemBytes } from "./Kernel.ts"
import type { MachineSize } from "./Limits.ts"
import { Architecture } from "./Seccomp.ts"
import { ContainerSettings } from "./Settings.ts"

/** This machine. */
export class Host extends Context.Service<
  Host,
  { readonly architecture: Architecture; readonly facts: HostFacts; readonly size: MachineSize }
>()("fiberbox/layers/container/Host") {
  static readonly layer: Layer.Layer<
    Host,
    BackendFailed | Unsupported,
    Cgroups | ContainerSettings | FileSystem.FileSystem
  > = Layer.effect(
    Host,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const settings = yield* ContainerSettings
  const { layout } = yield* Cgroups
  const read = (path: string) => Effect.mapError(fs.readFileString(path), fromPlatform(`read ${path}`))
  const architecture = yield* Schema.decodeUnknownEffect(Architecture)(process.arch).pipe(
    Effect.mapError(() => unsupported("architecture", `no system call filter is written for ${process.arch}`))
  )
  const oomScoreAdj = Number(yield* read("/proc/self/oom_score_adj"))
  const pids = Number(yield* read("/proc/sys/kernel/pid_max"))
  // Version 2 always has the file, and the runtime knows what to do without swap.
  const swapAccounting =
    layout.version === 2 ||
    (yield* Effect.orElseSucceed(
      fs.exists(`${layout.controllers.memory}/memory.memsw.limit_in_bytes`),
      () => false
    ))
  const diskBytes = yield* fileSystemBytes(settings.stateDir).pipe(
    Effect.mapError((code) => backendFailed("measure the disk", code, "not-started"))
  )
  return Host.of({
    architecture,
    facts: { oomScoreAdj, swapAccounting },
    size: { memoryBytes: totalmem(), cpus: availableParallelism(), pids, diskBytes }
  })
})
