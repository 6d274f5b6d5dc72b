/**
 * What of a container's disk has reached the host's own. Disks are sparse
 * files: when the host's disk is full, the kernel cannot write what programs
 * were told is written. It then gives the disk's journal up, so that the disk
 * stays as it was at one moment, refuses every later write, and marks it, or
 * leaves its journal to be replayed where nobody wrote after that.
 */
import * as Effect from "effect/Effect"
import type { BackendFailed, Outcome } from "../../domain/Errors.ts"
import type { Container } from "./ContainerFiles.ts"
import { backendFailed, lastLine } from "./Failures.ts"
import { isAttached, readNumber, runProgram } from "./Kernel.ts"

/**
 * Two fields of a superblock, and the bits in them that say that something could not be written: an error, and a journal that was
 * not brought to its end although the disk is not mounted any more. See the kernel's documentation of ext4, "Super Block".
 */
const state = { offset: 1024 + 58, hasErrors: 2 }
const incompatible = { offset: 1024 + 96, needsRecovery: 4 }

/** How long the host's disk may take for what a sandbox has written. */
const syncMillis = 30_000

const lostBecause = (reason: string) => `what was written last did not reach the disk: ${reason}`

/**
 * Why something that was written to a disk never reached it; undefined when all has. For a disk
 * that is not mounted any more, because only then the mark is there for certain. The next mount clears it.
 */
export const lossOf = Effect.fnUntraced(function* (
  container: Container
): Effect.fn.Return<string | undefined> {
  // No disk has lost nothing.
  const read = (offset: number) => Effect.orElseSucceed(readNumber(container.files.disk, offset), () => 0)
  if (((yield* read(state.offset)) & state.hasErrors) !== 0) {
    return lostBecause("the host's disk was full or failed")
  }
  if (((yield* read(incompatible.offset)) & incompatible.needsRecovery) === 0) return undefined
  // Of one that somebody on the host still holds, the journal is in use.
  return (yield* isAttached(container.files.disk))
    ? undefined
    : lostBecause("the host's disk was full or failed, or the host itself has ended")
})

/** Fails when something that was written to a disk never reached it, as {@link lossOf} says. */
export const checkDisk = Effect.fnUntraced(function* (container: Container, operation: string) {
  const loss = yield* lossOf(container)
  if (loss !== undefined) return yield* backendFailed(operation, loss, "completed")
})

/** What the disk is brought up to date for, and what has come of it when that fails. */
export interface Sync {
  readonly operation: string
  readonly outcome: Outcome
}

/** Brings all that a running container has written to the host's disk. `agent` is its process, as the host numbers it. */
export const syncDisk = Effect.fnUntraced(function* (
  helper: string,
  agent: number,
  { operation, outcome }: Sync
): Effect.fn.Return<void, BackendFailed> {
  const lost = (reason: string) => backendFailed(operation, lostBecause(reason), outcome)
  const ended = yield* runProgram(helper, ["sync", `/proc/${agent}/root`]).pipe(
    Effect.mapError((code) => lost(`${helper}: ${code}`)),
    Effect.timeoutOrElse({
      duration: syncMillis,
      orElse: () => Effect.fail(lost(`${helper} was not done after ${syncMillis} ms`))
    })
  )
  if (ended.code === 0) return
  const said = lastLine(ended.stderr)
  return yield* lost(said === undefined ? "the helper failed" : `${said.subject}: ${said.detail}`)
})
