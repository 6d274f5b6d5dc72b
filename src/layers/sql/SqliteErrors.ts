/**
 * What SQLite says went wrong, as the reasons of `effect/sql`.
 *
 * `node:sqlite` throws errors with `errcode`, SQLite's extended result code,
 * which the classification of `effect/sql` does not know; the meanings are the
 * same (https://www.sqlite.org/rescode.html).
 */
import { Predicate } from "effect"
import { SqlError } from "effect/sql"
import type { Fault } from "./SqliteDatabase.ts"
import { movedCode } from "./SqliteFiles.ts"

/** Where an error arose: while a statement was compiled, or while doing what `effect/sql` was asked for. */
export type Operation = "open" | "prepare" | "execute" | "executeRaw" | "executeValues" | "executeStream"

/** A {@link Fault} as the error that it was. */
class SqliteFault extends Error {
  readonly errcode: number | undefined
  constructor({ errcode, message }: Fault) {
    super(message)
    this.errcode = errcode
  }
}

/** The `SqlError` of what went wrong with a statement. */
export const faultError = (fault: Fault, operation: Operation): SqlError.SqlError =>
  sqlError(new SqliteFault(fault), fault.atPrepare ? "prepare" : operation)

const textOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** SQLite's extended result code of an error thrown by `node:sqlite`, where it is one. */
const resultCode = (cause: unknown): number | undefined =>
  Predicate.hasProperty(cause, "errcode") && typeof cause.errcode === "number" ? cause.errcode : undefined

/** The low byte of a result code is its family. */
const family = (code: number): number => code & 0xff

/**
 * The `SqlError` of whatever `node:sqlite` threw.
 *
 * Its reason is a `UniqueViolation` for a duplicate unique or primary key, a
 * `ConstraintError` for any other broken constraint, a `LockTimeoutError` when
 * somebody else holds the database, an `AuthorizationError` when it or its
 * directory may not be written, a `ConnectionError` when it cannot be opened, a
 * `SqlSyntaxError` for SQL that does not compile, and otherwise an
 * `UnknownError`; a full disk is among these, see {@link isDiskFull}.
 */
export const sqlError = (cause: unknown, operation: Operation): SqlError.SqlError =>
  SqlError.isSqlError(cause) ? cause : new SqlError.SqlError({ reason: reasonOf(cause, operation) })

const reasonOf = (cause: unknown, operation: Operation): SqlError.SqlErrorReason => {
  const detail = { cause, operation, message: textOf(cause) }
  const code = resultCode(cause)
  if (code === undefined) return new SqlError.UnknownError(detail)
  switch (code) {
    case 1555: // SQLITE_CONSTRAINT_PRIMARYKEY
    case 2067: // SQLITE_CONSTRAINT_UNIQUE
    case 2579: // SQLITE_CONSTRAINT_ROWID
      return new SqlError.UniqueViolation({
        ...detail,
        constraint: detail.message.split("constraint failed:")[1]?.trim() ?? "unknown"
      })
  }
  switch (family(code)) {
    case 1: // SQLITE_ERROR: whatever has no code of its own, at compile time always a mistake in the SQL
      return operation === "prepare" ? new SqlError.SqlSyntaxError(detail) : new SqlError.UnknownError(detail)
    case 3: // SQLITE_PERM
    case 8: // SQLITE_READONLY
      return new SqlError.AuthorizationError(detail)
    case 5: // SQLITE_BUSY
    case 6: // SQLITE_LOCKED
    case 15: // SQLITE_PROTOCOL
      return new SqlError.LockTimeoutError(detail)
    case 14: // SQLITE_CANTOPEN
      return new SqlError.ConnectionError(detail)
    case 19: // SQLITE_CONSTRAINT
      return new SqlError.ConstraintError(detail)
    case 23: // SQLITE_AUTH
      return new SqlError.AuthenticationError(detail)
    default:
      return new SqlError.UnknownError(detail)
  }
}

/** Whether the database could not grow: the disk, or the quota on it, is full. */
export const isDiskFull = (error: SqlError.SqlError): boolean => {
  const code = resultCode(error.reason.cause)
  return code !== undefined && family(code) === 13
}

/** Whether the file is no database, or a damaged one. */
export const isDamage = (error: SqlError.SqlError): boolean => {
  const code = resultCode(error.reason.cause)
  // SQLITE_CORRUPT and SQLITE_NOTADB
  return code !== undefined && (family(code) === 11 || family(code) === 26)
}

/** Whether the file that is open is not the one of its path any more: it was removed, replaced or cut short. */
export const isMoved = (error: SqlError.SqlError): boolean => resultCode(error.reason.cause) === movedCode
