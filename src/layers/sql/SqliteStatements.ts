/**
 * Compiled statements: a bounded cache of them, and the values that go in and
 * come out.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite"
import { sqlError, syntaxError } from "./SqliteErrors.ts"

/** Compiles statements, and keeps those used last. Throws `SqlError`. */
export class StatementCache {
  readonly #database: DatabaseSync
  readonly #capacity: number
  readonly #statements = new Map<string, StatementSync>()

  constructor(database: DatabaseSync, capacity: number) {
    this.#database = database
    this.#capacity = capacity
  }

  /** The compiled statement of a text, from the cache where it is. */
  get(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known !== undefined) {
      // A map keeps the order of insertion, so the least recently used is its first.
      this.#statements.delete(sql)
      this.#statements.set(sql, known)
      return known
    }
    const statement = this.prepare(sql)
    this.#statements.set(sql, statement)
    if (this.#statements.size > this.#capacity) {
      const [oldest] = this.#statements.keys()
      if (oldest !== undefined) this.#statements.delete(oldest)
    }
    return statement
  }

  /** A statement compiled anew. */
  prepare(sql: string): StatementSync {
    const statement = compile(this.#database, sql)
    // SQLite compiles the first statement of a text and ignores the rest of it in silence.
    const rest = sql.slice(statement.sourceSQL.length).replace(/\/\*[\s\S]*?\*\/|--.*|[\s;]+/g, "")
    if (rest !== "") throw syntaxError(`one statement at a time: more follows "${statement.sourceSQL}"`)
    return statement
  }
}

const compile = (database: DatabaseSync, sql: string): StatementSync => {
  try {
    return database.prepare(sql)
  } catch (cause) {
    throw sqlError(cause, "prepare")
  }
}

/**
 * Parameters as SQLite takes them: booleans as 0 and 1, dates as ISO text,
 * bytes as a BLOB, `undefined` as NULL. Throws `TypeError` for what SQLite has
 * no value for.
 */
export const toSqliteValues = (params: ReadonlyArray<unknown>): Array<SQLInputValue> =>
  params.map(toSqliteValue)

const toSqliteValue = (value: unknown): SQLInputValue => {
  switch (typeof value) {
    case "string":
    case "number":
    case "bigint":
      return value
    case "boolean":
      return value ? 1 : 0
    case "undefined":
      return null
  }
  if (value === null || value instanceof Uint8Array) return value
  if (value instanceof ArrayBuffer) return new Uint8Array(value)
  if (value instanceof Date) return value.toISOString()
  throw new TypeError(`SQLite has no value for a ${typeof value}; encode it first`)
}

/** A row as a plain object: `node:sqlite` makes them without a prototype, which surprises comparisons. */
export const toRow = (row: object): object => ({ ...row })
