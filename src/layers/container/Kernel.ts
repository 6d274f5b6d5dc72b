/**
 * The few system calls that Effect's services do not offer.
 */
import { spawn } from "node:child_process"
import {
  accessSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statfsSync,
  writeSync
} from "node:fs"
import { rmdir, statfs } from "node:fs/promises"
import { constants as osConstants, setPriority } from "node:os"
import { delimiter, join } from "node:path"
import type { Readable } from "node:stream"
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

/** Lets a process come before the others of its control group, or no more, as far as this process may do that. */
export const setUrgent = (pid: number, urgent: boolean): Effect.Effect<void> =>
  Effect.sync(() => {
    try {
      setPriority(pid, urgent ? osConstants.priority.PRIORITY_HIGHEST : osConstants.priority.PRIORITY_NORMAL)
    } catch {
      // It has ended, or this process is not privileged.
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

/** Whether a file may be opened for writing, or run; fails with the error's code. */
export const mayAccess = (path: string, how: "write" | "run"): Effect.Effect<void, string> =>
  Effect.try({
    try: () => accessSync(path, how === "write" ? constants.W_OK : constants.X_OK),
    catch: codeOf
  })

/** Where the program of a name is, looked for in PATH as execvp(3) does; a name with a slash is a path already. */
export const findProgram = (name: string): Effect.Effect<string, string> => {
  if (name.includes("/")) return Effect.as(mayAccess(name, "run"), name)
  const candidates = (process.env["PATH"] ?? "").split(delimiter).map((directory) => join(directory, name))
  return Effect.firstSuccessOf([
    ...candidates.map((path) => Effect.as(mayAccess(path, "run"), path)),
    Effect.fail("ENOENT")
  ])
}

/** Room on the file system that holds a path. */
export interface Room {
  readonly bytes: number
  /** Files that can be made; undefined where the file system has no such limit. */
  readonly files: number | undefined
}

/** How much room a directory's file system has, after a block was really written to it; fails with the error's code. */
export const roomIn = (directory: string): Effect.Effect<Room, string> =>
  Effect.try({
    try: () => {
      const trial = join(directory, `.ready-${process.pid}`)
      const file = openSync(trial, "w", 0o600)
      try {
        writeSync(file, Buffer.alloc(4096, 1))
      } finally {
        closeSync(file)
        rmSync(trial, { force: true })
      }
      const { bavail, bsize, ffree, files } = statfsSync(directory)
      return { bytes: bavail * bsize, files: files === 0 ? undefined : ffree }
    },
    catch: codeOf
  })

/** A two-byte number of a file, in little-endian order; fails with the error's code. */
export const readNumber = (path: string, offset: number): Effect.Effect<number, string> =>
  Effect.try({
    try: () => {
      const bytes = Buffer.alloc(2)
      const file = openSync(path, "r")
      try {
        readSync(file, bytes, 0, 2, offset)
      } finally {
        closeSync(file)
      }
      return bytes.readUInt16LE()
    },
    catch: codeOf
  })

/** Whether a file is the disk of a loop device. */
export const isAttached = (path: string): Effect.Effect<boolean> =>
  Effect.sync(() =>
    readdirSync("/sys/block").some((name) => {
      try {
        return readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").trim() === path
      } catch {
        return false // no loop device, or a free one
      }
    })
  )

/** Opens this many descriptors at once and closes them; fails with the error's code. */
export const openMany = (count: number): Effect.Effect<void, string> =>
  Effect.try({
    try: () => {
      const opened: Array<number> = []
      try {
        while (opened.length < count) opened.push(openSync("/dev/null", "r"))
      } finally {
        for (const file of opened) closeSync(file)
      }
    },
    catch: codeOf
  })

/** What a program said and how it ended. */
export interface Ended {
  /** Undefined when a signal ended it. */
  readonly code: number | undefined
  readonly stderr: string
}

/** More than any of our programs says; the rest is dropped. */
const maxStderr = 16 * 1024

/** How long a program may take to end all that it has started, once it is asked to. */
const graceMillis = 2_000

/** Signals a whole process group, named by its leader. That nobody of it is left is no error. */
export const signalGroup = (leader: number | undefined, signal: NodeJS.Signals): void => {
  if (leader === undefined) return
  try {
    process.kill(-leader, signal)
  } catch {
    // ESRCH: all have ended.
  }
}

/**
 * Runs a program to its end, in a process group of its own so that a terminal's
 * Ctrl-C does not reach it. Interruption ends the whole group: by SIGTERM, at
 * which the host helper ends every descendant of its own, even one in another
 * group, and by SIGKILL when that does not help. Fails with the error's code when it cannot be started.
 *
 * Not Effect's spawner: at the end that one waits for the whole group to be
 * gone, and the runtime leaves dead members which the machine's init may take a
 * second to collect.
 */
export const runProgram = (program: string, args: ReadonlyArray<string>): Effect.Effect<Ended, string> =>
  Effect.callback((resume) => {
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], detached: true })
    // Without a free descriptor Node gives none, and then says so by its event.
    const output: Readable | undefined = child.stderr
    let stderr = ""
    output?.setEncoding("utf8")
    output?.on("data", (text: string) => {
      if (stderr.length < maxStderr) stderr += text
    })
    child.on("error", (error) => resume(Effect.fail(codeOf(error))))
    // A failure may leave members that nobody ends any more.
    child.on("exit", (code) => code === 0 || signalGroup(child.pid, "SIGKILL"))
    child.on("close", (code) => resume(Effect.succeed({ code: code ?? undefined, stderr })))
    return Effect.callback<void>((stopped) => {
      const finish = () => {
        clearTimeout(alarm)
        signalGroup(child.pid, "SIGKILL")
        // Whoever has left the group may still hold it.
        output?.destroy()
        stopped(Effect.void)
      }
      const alarm = setTimeout(finish, graceMillis)
      if (child.exitCode !== null || child.signalCode !== null) return finish()
      child.once("exit", finish)
      signalGroup(child.pid, "SIGTERM")
      // A stopped one would hear of it only when it goes on.
      signalGroup(child.pid, "SIGCONT")
    })
  })
