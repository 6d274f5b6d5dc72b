/**
 * Which host ids a container's users are: a range of its own for every running
 * container of this machine, so that no two share a limit that the kernel
 * counts per user, and a break-out from one has no rights on another's files.
 *
 * A range in use is a file that all instances on the machine see: a hard link
 * to one that names the instance. So it is made exclusively and has its contents
 * at once, even if the program is killed that very moment. A disk stores ids as the container sees them, so each start may get
 * another range.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type { PlatformError } from "effect/PlatformError"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import { type BackendFailed, ResourceExhausted } from "../../domain/Errors.ts"
import { makeDirectories } from "../../services/makeDirectories.ts"
import { idCount } from "./Bundle.ts"
import { fromPlatform, startFailed } from "./Failures.ts"
import { ContainerSettings, layout } from "./Settings.ts"

/** The first id of the first range: above what systemd gives to its containers. */
export const firstId = 0x7000_0000

/** The ids from here on are systemd's again. */
const endId = 0x7ffe_0000

/** How many containers can run at one time on one machine. */
export const rangeCount = (endId - firstId) / idCount

/** The host id that is 0 in a range. */
export const baseOf = (range: number): number => firstId + range * idCount

/** The ranges of ids of this machine. */
export class IdRanges extends Context.Service<
  IdRanges,
  {
    /** Takes a free range, numbered from 0, for a container of this instance. */
    readonly allocate: Effect.Effect<number, ResourceExhausted | BackendFailed>
    /** Gives a range back, if it is this instance's. */
    readonly release: (range: number) => Effect.Effect<void, BackendFailed>
    /** The ranges that an instance holds. */
    readonly heldBy: (instanceId: string) => Effect.Effect<ReadonlyArray<number>, BackendFailed>
    /** Gives back all ranges of an instance, ours or a dead one, but those listed. */
    readonly releaseOthers: (
      instanceId: string,
      kept: ReadonlyArray<number>
    ) => Effect.Effect<void, BackendFailed>
  }
>()("fiberbox/layers/container/IdRanges") {
  static readonly layer: Layer.Layer<IdRanges, BackendFailed, ContainerSettings | FileSystem.FileSystem> =
    Layer.effect(
      IdRanges,
      Effect.suspend(() => make)
    )
}

const make = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const settings = yield* ContainerSettings
  const directory = layout(settings).ids
  const failed = Effect.mapError(fromPlatform("allocate user ids"))
  yield* failed(makeDirectories(fs, directory))
  // Instances begin at different places, so that they seldom try the same range.
  const next = yield* Ref.make(yield* Random.nextIntBetween(0, rangeCount))

  const fileOf = (range: number) => `${directory}/${range}`
  const ownerFile = (instanceId: string) => `${directory}/owner-${instanceId}`
  const ownerOf = (range: number) => fs.readFileString(fileOf(range)).pipe(Effect.orElseSucceed(() => ""))

  const { instanceId } = settings
  const fresh = `${ownerFile(instanceId)}.new`
  yield* failed(fs.writeFileString(fresh, instanceId, { mode: 0o600 }))
  yield* failed(fs.rename(fresh, ownerFile(instanceId)))
  yield* Effect.addFinalizer(() => Effect.ignore(fs.remove(ownerFile(instanceId), { force: true })))

  const take = (range: number): Effect.Effect<boolean, PlatformError> =>
    fs.link(ownerFile(instanceId), fileOf(range)).pipe(
      Effect.as(true),
      Effect.catchIf(
        (error) => error.reason._tag === "AlreadyExists",
        () => Effect.succeed(false)
      )
    )

  const allocate = Effect.gen(function* () {
    for (let tried = 0; tried < rangeCount; tried++) {
      const range = yield* Ref.getAndUpdate(next, (n) => (n + 1) % rangeCount)
      if (yield* Effect.mapError(take(range), startFailed("allocate user ids"))) return range
    }
    return yield* new ResourceExhausted({
      resource: "user-ids",
      reason: `all ${rangeCount} ranges of user ids of this machine are in use`
    })
  })

  const heldBy = (instanceId: string) =>
    fs.readDirectory(directory).pipe(
      failed,
      Effect.flatMap((names) =>
        Effect.filter(
          names.filter((name) => /^\d+$/.test(name)).map(Number),
          (range) => Effect.map(ownerOf(range), (owner) => owner === instanceId),
          { concurrency: 16 }
        )
      )
    )

  const drop = (owner: string) => (range: number) =>
    Effect.flatMap(ownerOf(range), (found) =>
      found === owner ? failed(fs.remove(fileOf(range), { force: true })) : Effect.void
    )

  const releaseOthers = Effect.fnUntraced(function* (owner: string, kept: ReadonlyArray<number>) {
    const held = yield* heldBy(owner)
    yield* Effect.forEach(
      held.filter((range) => !kept.includes(range)),
      drop(owner),
      { discard: true }
    )
    if (owner !== instanceId) yield* failed(fs.remove(ownerFile(owner), { force: true }))
  })

  return IdRanges.of({ allocate, heldBy, release: drop(instanceId), releaseOthers })
})
