/**
 * The few system calls that Effect's services do not offer.
 */
import { rmdir, statfs } from "node:fs/promises"
import * as Effect from "effect/Effect"

/** The code of a Node system error, such as `ENOENT`. */
const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : "EIO"

/** Removes an empty directory; a control group is never anything else to its file system. Fails with the error's code. */
export const removeEmptyDirectory = (path: string): Effect.Effect<void, string> =>
  Effect.tryPromise({ try: () => rmdir(path), catch: codeOf })

/** Sends SIGKILL. Whether there was such a process. */
export const killProcess = (pid: number): Effect.Effect<boolean> =>
  Effect.sync(() => {
    try {
      process.kill(pid, "SIGKILL")
      return true
    } catch {
      return false
    }
  })

/** The size of the file system that holds a path, in bytes. */
export const fileSystemBytes = (path: string): Effect.Effect<number, string> =>
  Effect.map(Effect.tryPromise({ try: () => statfs(path), catch: codeOf }), (s) => s.bsize * s.blocks)
