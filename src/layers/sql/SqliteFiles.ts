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

/** The files of a database that has just been opened and read, so that its log of changes is beside it. */
export class SqliteFiles {
  readonly #files: ReadonlyArray<readonly [path: string, opened: BigIntStats | undefined]>
  readonly #path: string
  /** The least that its pages take in the file, once its log has been brought into it; in bytes. */
  readonly #smallest: () => bigint
  #size: bigint

  constructor(path: string, smallest: () => bigint) {
    this.#path = path
    this.#smallest = smallest
    this.#files = [path, `${path}-wal`].map((file) => [file, look(file)])
    this.#size = this.#files[0]?.[1]?.size ?? 0n
  }

  /** Throws what happened to them. Costs a few microseconds. */
  check(): void {
    for (const [path, opened] of this.#files) {
      const now = look(path)
      if (now === undefined) {
        throw new MovedError(`${path} was removed while it was in use; ${advice}`)
      }
      if (now.dev !== opened?.dev || now.ino !== opened.ino) {
        throw new MovedError(`${path} was replaced while it was in use; ${advice}`)
      }
      if (path === this.#path) this.#checkSize(now.size)
    }
  }

  /** It only grows; SQLite itself makes it shorter where somebody has it tidied up (`VACUUM`), and no page is missing then. */
  #checkSize(size: bigint): void {
    if (size < this.#size && size < this.#smallest()) {
      throw new MovedError(`${this.#path} was cut short while it was in use; ${advice}`)
    }
    this.#size = size
  }
}

const advice = "put it back as it was, or start again"
