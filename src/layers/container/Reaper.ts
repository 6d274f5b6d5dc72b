/**
 * Removing what a whole instance left behind: an ephemeral one whose service
 * was killed, or containers of our own that nothing accounts for any more.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { BackendFailed, Timeout } from "../../domain/Errors.ts"
import type { SandboxId } from "../../domain/Ids.ts"
import { Cgroups } from "./Cgroup.ts"
import { ContainerFiles } from "./ContainerFiles.ts"
import { removeContainer } from "./Ending.ts"
import { IdRanges } from "./IdRanges.ts"
import { killProcess, signalGroup } from "./Kernel.ts"
import { ContainerSettings, instanceGroup, sandboxOf } from "./Settings.ts"

type Parts = Cgroups | ContainerFiles | ContainerSettings | IdRanges

/** Every sandbox of this instance of which a directory or a control group exists. */
export const findAll: Effect.Effect<ReadonlyArray<SandboxId>, BackendFailed, Parts> = Effect.gen(
  function* () {
    const cgroups = yield* Cgroups
    const files = yield* ContainerFiles
    const settings = yield* ContainerSettings
    const directories = (yield* files.all).map((container) => container.sandboxId)
    const groups = (yield* cgroups.children(instanceGroup(settings.instanceId)))
      .map(sandboxOf)
      .filter((id) => id !== undefined)
    return [...new Set([...directories, ...groups])]
  }
)

/** How long the kernel may take to end killed helpers. */
const startMillis = 2_000

/**
 * Ends the starts that a killed service was at. They end by themselves when it dies, but not before anybody looks,
 * and not when they stand still.
 */
export const endStarts: Effect.Effect<void, never, ContainerFiles> = Effect.gen(function* () {
  const files = yield* ContainerFiles
  let left: ReadonlyArray<number> = []
  yield* files.starting.pipe(
    Effect.tap((pids) =>
      Effect.sync(() => {
        left = pids
        for (const pid of pids) signalGroup(pid, "SIGKILL")
      })
    ),
    Effect.tap((pids) => Effect.forEach(pids, killProcess, { discard: true })),
    Effect.repeat({ schedule: Schedule.spaced("5 millis"), until: (pids) => pids.length === 0 }),
    Effect.timeoutOrElse({
      duration: startMillis,
      // A machine under load may take longer to look, and there is nothing to say of that.
      orElse: () =>
        left.length === 0
          ? Effect.void
          : Effect.logWarning(`a start of a killed service does not end: ${left.join(", ")}`)
    })
  )
})

/** Gives back ranges of ids that no container of this instance has: of machines whose start was cut off. */
export const releaseStrayRanges: Effect.Effect<void, BackendFailed, Parts> = Effect.gen(function* () {
  const files = yield* ContainerFiles
  const settings = yield* ContainerSettings
  const ranges = yield* IdRanges
  const kept: Array<number> = []
  for (const container of yield* files.all) {
    const record = yield* files.record(container)
    if (record === "unreadable") {
      const { machine } = container.files
      // Its machine may run, with any of the ids.
      return yield* Effect.logWarning(
        `${machine} cannot be read: unused ids are kept until that sandbox ends`
      )
    }
    if (record !== undefined) kept.push(record.range)
  }
  yield* ranges.releaseOthers(settings.instanceId, kept)
})

/** Removes the instance's own control group, if nothing is in it any more. */
export const removeInstanceGroup: Effect.Effect<void, BackendFailed | Timeout, Parts> = Effect.gen(
  function* () {
    const cgroups = yield* Cgroups
    const settings = yield* ContainerSettings
    const group = instanceGroup(settings.instanceId)
    if ((yield* cgroups.children(group)).length === 0) yield* cgroups.remove(group)
  }
)

/**
 * Kills and removes everything of the instance that the settings name. Only
 * for its owner at its end, or for whoever holds the lock of a dead one; the
 * state directory itself is the caller's to remove.
 */
export const reapInstance: Effect.Effect<
  ReadonlyArray<SandboxId>,
  BackendFailed | Timeout,
  Parts
> = Effect.gen(function* () {
  const files = yield* ContainerFiles
  yield* endStarts
  const found = yield* findAll
  // Each by itself: one that cannot be removed keeps none of the others.
  const failures = yield* Effect.forEach(
    found,
    (id) => Effect.flip(Effect.asVoid(removeContainer(files.container(id)))).pipe(Effect.option),
    { concurrency: 8 }
  )
  const [first] = failures.flatMap(Option.toArray)
  if (first !== undefined) return yield* first
  yield* releaseStrayRanges
  yield* removeInstanceGroup
  return found
})
