/**
 * What of a container's disk has reached the host's own. Disks are sparse
 * files: when the host's disk is full, the kernel cannot write what programs
 * were told is written. It then gives the disk's journal up, so that the disk
 * stays as it was at one moment, refuses every later write, and marks it.
 */
import * as Effect from "effect/Effect"
import type { BackendFailed } from "../../domain/Errors.ts"
import type { Container } from "./ContainerFiles.ts"
import { backendFailed, fromHelper } from "./Failures.ts"
import { readNumber, runProgram } from "./Kernel.ts"

/** Where a superblock has its state, and the bit that says that something could not be written; see ext4(5). */
const stateOffset = 1024 + 58
const hasErrors = 2

/** How long the host's disk may take for what a sandbox has written. */
const syncMillis = 30_000

const lost = (operation: string, reason: string) =>
  backendFailed(operation, `what was written last did not reach the disk: ${reason}`, "completed")

/**
 * Fails when something that was written to a disk never reached it. For one
 * that is not mounted any more, because only then the mark is there for certain.
 */
export const checkDisk = (container: Container, operation: string): Effect.Effect<void, BackendFailed> =>
  readNumber(container.files.disk, stateOffset).pipe(
    // No disk has lost nothing.
    Effect.orElseSucceed(() => 0),
    Effect.flatMap((state) =>
      (state & hasErrors) === 0
        ? Effect.void
        : Effect.fail(lost(operation, "the host's disk was full or failed"))
    )
  )

/** Brings all that a running container has written to the host's disk. `agent` is its process, as the host numbers it. */
export const syncDisk = Effect.fnUntraced(function* (
  helper: string,
  agent: number,
  operation: string
): Effect.fn.Return<void, BackendFailed> {
  const ended = yield* runProgram(helper, ["sync", `/proc/${agent}/root`]).pipe(
    Effect.mapError((code) => lost(operation, `${helper}: ${code}`)),
    Effect.timeoutOrElse({
      duration: syncMillis,
      orElse: () => Effect.fail(lost(operation, `${helper} was not done after ${syncMillis} ms`))
    })
  )
  if (ended.code === 0) return
  return yield* lost(operation, fromHelper(ended.stderr)?.message ?? "the helper failed")
})
