/**
 * The few system calls that Effect's services do not offer.
 */
import { spawn } from "node:child_process"
import { lstatSync } from "node:fs"
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

/**
 * A word for each file that is another one when the file was changed; empty for
 * one that is not there. All at once and not in the background: a hundred such
 * calls take less time than two that go by another thread.
 */
export const fileStates = (paths: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<string>, string> =>
  Effect.try({ try: () => paths.map(fileState), catch: codeOf })

const fileState = (path: string): string => {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  return stat === undefined ? "" : [stat.mode, stat.size, stat.ino, stat.mtimeMs].join()
}

/** What a program said and how it ended. */
export interface Ended {
  /** Undefined when a signal ended it. */
  readonly code: number | undefined
  readonly stderr: string
}

/** More than any of our programs says; the rest is dropped. */
const maxStderr = 16 * 1024

/**
 * Runs a program to its end, in a process group of its own so that a terminal's
 * Ctrl-C does not reach it. Interruption kills it. Fails with the error's code
 * when it cannot be started.
 *
 * Not Effect's spawner: at the end that one waits for the whole group to be
 * gone, and the runtime leaves dead members which the machine's init may take a
 * second to collect.
 */
export const runProgram = (program: string, args: ReadonlyArray<string>): Effect.Effect<Ended, string> =>
  Effect.callback((resume) => {
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], detached: true })
    let stderr = ""
    child.stderr.setEncoding("utf8")
    child.stderr.on("data", (text: string) => {
      if (stderr.length < maxStderr) stderr += text
    })
    child.on("error", (error) => resume(Effect.fail(codeOf(error))))
    child.on("close", (code) => resume(Effect.succeed({ code: code ?? undefined, stderr })))
    return Effect.callback<void>((stopped) => {
      child.once("exit", () => stopped(Effect.void))
      child.kill("SIGKILL")
    })
  })
