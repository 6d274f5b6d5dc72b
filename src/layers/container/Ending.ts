/**
 * Ending containers, whatever state they are in and whoever started them: after
 * a stop, a failed start, or a service that was killed.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { type BackendFailed, Timeout } from "../../domain/Errors.ts"
import { Cgroups } from "./Cgroup.ts"
import { type Container, ContainerFiles } from "./ContainerFiles.ts"
import { IdRanges } from "./IdRanges.ts"

/** How long the kernel may take to write a disk out and let go of it. */
const releaseMillis = 30_000

/** Kills until nothing is left: a runtime that was killed half-way may have put a last process into the group. */
const killAll = Effect.fnUntraced(function* (container: Container) {
  const cgroups = yield* Cgroups
  const files = yield* ContainerFiles
  yield* cgroups.kill(container.group).pipe(
    Effect.andThen(files.diskInUse(container)),
    Effect.repeat({ schedule: Schedule.spaced("2 millis"), until: (used) => !used }),
    Effect.timeoutOrElse({
      duration: releaseMillis,
      orElse: () => Effect.fail(new Timeout({ limit: "drain", millis: releaseMillis, outcome: "unknown" }))
    })
  )
})

type End = (
  container: Container
) => Effect.Effect<void, BackendFailed | Timeout, Cgroups | ContainerFiles | IdRanges>

/** Ends a container's machine and does away with its files, its record among them, in one of two ways. */
const endAnd = (dispose: (files: ContainerFiles["Service"]) => ContainerFiles["Service"]["removeAll"]): End =>
  Effect.fnUntraced(function* (container: Container) {
    const cgroups = yield* Cgroups
    const files = yield* ContainerFiles
    const ranges = yield* IdRanges
    const record = yield* files.record(container)
    yield* killAll(container)
    yield* cgroups.remove(container.group)
    yield* dispose(files)(container)
    // Last: until here the range's users may own something.
    if (record !== undefined) yield* ranges.release(record.range)
  }, Effect.uninterruptible)

/**
 * Ends a container's machine and waits until no process, mount, loop device or
 * control group of it is left. The disk stays. Nothing to end is no error.
 */
export const endMachine: End = endAnd((files) => files.forgetMachine)

/** Ends a container's machine and removes all that is kept of it, disk included. */
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
