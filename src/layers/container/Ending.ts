/**
 * Ending containers, whatever state they are in and whoever started them: after
 * a stop, a failed start, or a service that was killed. Needs neither the
 * runtime nor the agent. What cannot be cleared because somebody else holds it
 * is named, and the rest is done all the same.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { BackendFailed, Timeout } from "../../domain/Errors.ts"
import { Cgroups } from "./Cgroup.ts"
import { type Container, ContainerFiles } from "./ContainerFiles.ts"
import { IdRanges } from "./IdRanges.ts"

/** How soon a disk is let go of by a kernel that has nothing to write. */
const promptMillis = 2_000

/** How long the kernel may take to write a disk out and let go of it. */
const releaseMillis = 30_000

type Parts = Cgroups | ContainerFiles | IdRanges
type End = (container: Container) => Effect.Effect<void, BackendFailed | Timeout, Parts>

/** Kills until nothing is left: a runtime that was killed half-way may have put a last process into the group. */
const killAll = (container: Container, millis: number) =>
  Effect.gen(function* () {
    const cgroups = yield* Cgroups
    const files = yield* ContainerFiles
    return yield* cgroups
      .kill(container.group)
      .pipe(
        Effect.andThen(files.diskInUse(container)),
        Effect.repeat({ schedule: Schedule.spaced("2 millis"), until: (used) => !used }),
        Effect.as(true),
        Effect.timeoutOrElse({ duration: millis, orElse: () => Effect.succeed(false) })
      )
  })

/** Kills all, and waits for the disk unless somebody else on this computer keeps it. */
const killAndRelease = Effect.fnUntraced(function* (container: Container) {
  const cgroups = yield* Cgroups
  const files = yield* ContainerFiles
  if (yield* killAll(container, promptMillis)) return
  yield* cgroups.kill(container.group)
  const holders = yield* files.diskHolders(container)
  if (holders === "" && (yield* killAll(container, releaseMillis))) return
  yield* Effect.logWarning(
    `the disk of the ended ${container.sandboxId} is still in use${holders === "" ? "" : ` by ${holders}`}`
  )
})

/** Ends a container's machine and does away with its files, its record among them, in one of two ways. */
const endAnd = (dispose: (files: ContainerFiles["Service"]) => ContainerFiles["Service"]["removeAll"]): End =>
  Effect.fnUntraced(function* (container: Container) {
    const cgroups = yield* Cgroups
    const files = yield* ContainerFiles
    const ranges = yield* IdRanges
    const record = yield* files.record(container)
    yield* killAndRelease(container)
    yield* Effect.catch(cgroups.remove(container.group), (error) =>
      // Without processes it uses nothing; it is found, and tried again, by its name.
      Effect.logWarning(`could not remove the control group ${container.group}: ${error.message}`)
    )
    yield* dispose(files)(container).pipe(
      // Last: until here the range's users may own something.
      Effect.ensuring(
        // Of one that cannot be read they are given back when the service starts again.
        record === undefined || record === "unreadable"
          ? Effect.void
          : Effect.ignore(ranges.release(record.range), {
              log: "Warn",
              message: `could not give back the ids of ${container.sandboxId}`
            })
      )
    )
  }, Effect.uninterruptible)

/**
 * Ends a container's machine and waits until no process, mount, loop device or
 * control group of it is left, but those that somebody else holds. The disk stays. Nothing to end is no error.
 */
export const endMachine: End = endAnd((files) => files.forgetMachine)

/** Ends a container's machine and removes all that is kept of it, disk included. Fails when a file of it cannot be removed. */
export const removeContainer: End = endAnd((files) => files.removeAll)

/** Whether the agent of a container's machine runs. */
export const isRunning: (
  container: Container
) => Effect.Effect<boolean, BackendFailed, Cgroups | ContainerFiles> = Effect.fnUntraced(function* (
  container: Container
) {
  const cgroups = yield* Cgroups
  const files = yield* ContainerFiles
  const pid = yield* files.pid(container)
  // By its group, not by its number alone: numbers are used again.
  return pid !== undefined && (yield* cgroups.processes(container.group)).includes(pid)
})
