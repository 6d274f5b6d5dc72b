/**
 * The files of an open database, and whether they are still those that its
 * path names.
 *
 * A file that was removed or replaced is written on all the same: the kernel
 * keeps it for whoever has it open, and everything in it is gone when he ends.
 * SQLite looks at that only where a rollback journal is written, and there is
 * none beside a log of changes. Stands on Node alone, as `SqliteDatabase.ts`.
 */
import { type BigIntStats, statSync } from "node:fs"

/** SQLITE_READONLY_DBMOVED: what SQLite itself says of a file that is elsewhere than when it was opened. */
export const movedCode = 1032

/** The file of a name is not the one that is open any more. */
class MovedError extends Error {
  readonly errcode = movedCode
}

/** Never by opening it: whoever closes a file gives up all locks that his process has on it. */
const look = (path: string): BigIntStats | undefined =>
  statSync(path, { bigint: true, throwIfNoEntry: false })

/** A file, as it was opened, and how long it was when it was last looked at. */
interface File {
  readonly path: string
  readonly opened: BigIntStats | undefined
  size: bigint
}

/** The files of a database that has just been opened and read, so that its log of changes is beside it. */
export class SqliteFiles {
  readonly #files: ReadonlyArray<File>
  readonly #path: string
  readonly #isWhole: () => boolean

  /** `isWhole` reads the file anew, past all that its connections remember of it. */
  constructor(path: string, isWhole: () => boolean) {
    this.#path = path
    this.#isWhole = isWhole
    this.#files = [path, `${path}-wal`].map((file) => {
      const opened = look(file)
      return { path: file, opened, size: opened?.size ?? 0n }
    })
  }

  /** Throws what happened to them. Costs a few microseconds. */
  check(): void {
    let isShorter = false
    for (const file of this.#files) {
      const { opened, path, size } = file
      const now = look(path)
      if (now === undefined) {
        throw new MovedError(`${path} was removed while it was in use; ${advice}`)
      }
      if (now.dev !== opened?.dev || now.ino !== opened.ino) {
        throw new MovedError(`${path} was replaced while it was in use; ${advice}`)
      }
      isShorter ||= now.size < size
      file.size = now.size
    }
    // The file only grows, and so does its log, but where somebody has them tidied up (`VACUUM`, a checkpoint): no page is missing then.
    if (isShorter && !this.#isWhole()) {
      for (const file of this.#files) file.size = everShorter
      throw new MovedError(`${this.#path} was cut short while it was in use; ${advice}`)
    }
  }
}

/** What any file is shorter than, so that one that was cut short is looked at anew each time. */
const everShorter = 2n ** 63n

const advice = "put it back as it was, or start again"
