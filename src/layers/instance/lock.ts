/**
 * A lock on a directory that ends with the process that holds it, however that
 * ends: the kernel releases it, no file is left that lies.
 *
 * Node has no call for file locks, but SQLite takes one for a transaction that
 * begins `EXCLUSIVE`. The transaction writes nothing and never ends.
 */
import { DatabaseSync } from "node:sqlite"
import { Effect, type Scope } from "effect"
import type { SqlError } from "effect/sql"
import { sqlError } from "../sql/SqliteErrors.ts"

/**
 * Holds the lock whose file is `path` until the scope closes. The file is made
 * when missing; its directory must exist. Fails at once, with the reason
 * `LockTimeoutError` when somebody holds it (this process included), and
 * `ConnectionError` or `AuthorizationError` when the file cannot be written.
 *
 * The lock is a POSIX record lock: it must not lie on a network file system, and it
 * is lost when anything else in this process opens and closes the file.
 */
export const acquire = (path: string): Effect.Effect<void, SqlError.SqlError, Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(
      Effect.try({ try: () => lock(path), catch: (cause) => sqlError(cause, "open") }),
      (database) => Effect.sync(() => database.close())
    )
  )

const lock = (path: string): DatabaseSync => {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    database.exec("BEGIN EXCLUSIVE")
    return database
  } catch (cause) {
    database.close()
    throw cause
  }
}
