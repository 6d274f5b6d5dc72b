/**
 * One open SQLite database, used synchronously: in this thread, or in one of
 * its own (`SqliteWorker.ts`). It stands on Node alone, so that such a thread
 * has hardly anything to load.
 */
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"
import { SqliteFiles } from "./SqliteFiles.ts"

/** How a database is opened. */
export interface DatabaseOptions {
  /** Path of the file, or `:memory:`. */
  readonly filename: string
  readonly synchronous: "off" | "normal" | "full"
  /** How long a statement waits while another process holds the database. */
  readonly busyMillis: number
  readonly readOnly: boolean
  /** Compiled statements kept for reuse. */
  readonly cacheSize: number
}

/** One statement to carry out. */
export interface Request {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
  /** What shall come back: rows as objects, rows as lists, or what SQLite itself answers. */
  readonly shape: "rows" | "values" | "raw"
  /** Whether its compiled form is kept for the next time. */
  readonly cached: boolean
  /** Whether integers come as bigints. */
  readonly bigints: boolean
}

/** What went wrong with a statement, as plain data that can go from thread to thread. */
export interface Fault {
  readonly message: string
  /** SQLite's extended result code, where it is an error of SQLite's. */
  readonly errcode: number | undefined
  /** Whether the statement was not even compiled. */
  readonly atPrepare: boolean
}

/** What became of a statement, and whether a transaction is open after it. */
export type Answer = { readonly inTransaction: boolean } & (
  | { readonly value: unknown }
  | { readonly fault: Fault }
)

/**
 * The most that stays of the log of changes beside the database once it has been brought into it: it grows with the
 * largest transaction and would keep that size.
 */
const logBytes = 16 * 1024 * 1024

/** SQLITE_ERROR: whatever has no code of its own. */
const generalError = 1

class PrepareError extends Error {
  readonly errcode: number | undefined
  constructor(message: string, errcode: number | undefined) {
    super(message)
    this.errcode = errcode
  }
}

const codeOf = (cause: unknown): number | undefined =>
  cause instanceof Error && "errcode" in cause && typeof cause.errcode === "number"
    ? cause.errcode
    : undefined

/** What is thrown, as data. */
export const faultOf = (cause: unknown): Fault => ({
  message: cause instanceof Error ? cause.message : String(cause),
  errcode: codeOf(cause),
  atPrepare: cause instanceof PrepareError
})

/** An open database. */
export class SqliteDatabase {
  readonly #database: DatabaseSync
  readonly #statements: StatementCache
  /** Of one that shall be found again. */
  readonly #files: SqliteFiles | undefined

  /** Throws what SQLite says when it cannot be opened. */
  constructor(options: DatabaseOptions) {
    this.#database = open(options)
    this.#statements = new StatementCache(this.#database, options.cacheSize)
    if (options.filename !== inMemory && !options.readOnly && options.synchronous !== "off") {
      // The log is opened by whoever reads first.
      this.#database.prepare("PRAGMA page_count").get()
      this.#files = new SqliteFiles(options.filename, () => isWhole(options.filename))
    }
  }

  /** Carries out a statement. Never throws. A transaction is not begun in a file that is not the one of its path any more. */
  run(request: Request): Answer {
    try {
      if (beginsTransaction.test(request.sql)) this.#files?.check()
      const statement = request.cached
        ? this.#statements.get(request.sql)
        : this.#statements.prepare(request.sql)
      statement.setReadBigInts(request.bigints)
      const value = shapes[request.shape](statement, request.params.map(toSqliteValue))
      return { value, inTransaction: this.#database.isTransaction }
    } catch (cause) {
      return { fault: faultOf(cause), inTransaction: this.#database.isTransaction }
    }
  }

  close(): void {
    this.#database.close()
  }
}

/** The name of a database that is no file. */
const inMemory = ":memory:"

const beginsTransaction = /^begin\b/i

/** Whether a database has pages, and all of them, as a connection finds it that has none of them in memory. */
const isWhole = (filename: string): boolean => {
  try {
    const fresh = new DatabaseSync(filename, { readOnly: true })
    try {
      const first = (pragma: string) => Object.values(fresh.prepare(pragma).get() ?? {})[0]
      return first("PRAGMA page_count") !== 0 && first("PRAGMA quick_check(1)") === "ok"
    } finally {
      fresh.close()
    }
  } catch {
    return false
  }
}

const open = ({ busyMillis, filename, readOnly, synchronous }: DatabaseOptions): DatabaseSync => {
  const database = new DatabaseSync(filename, {
    readOnly,
    enableForeignKeyConstraints: true,
    enableDoubleQuotedStringLiterals: false,
    timeout: busyMillis
  })
  try {
    // First, because changing the journal's mode is a write too.
    database.exec(`PRAGMA synchronous = ${synchronous}`)
    if (!readOnly) {
      database.exec(`PRAGMA journal_mode = ${synchronous === "off" ? "MEMORY" : "WAL"}`)
      database.exec(`PRAGMA journal_size_limit = ${logBytes}`)
    }
    return database
  } catch (cause) {
    database.close()
    throw cause
  }
}

type Shape = (statement: StatementSync, params: Array<SQLInputValue>) => unknown

const rows: Shape = (statement, params) =>
  // `node:sqlite` makes rows without a prototype, which surprises comparisons.
  statement.all(...params).map((row) => ({ ...row }))

const values: Shape = (statement, params) => {
  statement.setReturnArrays(true)
  try {
    return statement.all(...params).map((row) => Object.values(row))
  } finally {
    statement.setReturnArrays(false)
  }
}

/** Rows, or the number of changes and the last row id. */
const raw: Shape = (statement, params) =>
  statement.columns().length > 0 ? statement.all(...params) : statement.run(...params)

const shapes = { rows, values, raw } as const

/** Compiles statements, and keeps those used last. */
class StatementCache {
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
    if (rest !== "") {
      throw new PrepareError(`one statement at a time: more follows "${statement.sourceSQL}"`, generalError)
    }
    return statement
  }
}

const compile = (database: DatabaseSync, sql: string): StatementSync => {
  try {
    return database.prepare(sql)
  } catch (cause) {
    const { errcode, message } = faultOf(cause)
    throw new PrepareError(message, errcode)
  }
}

/**
 * A parameter as SQLite takes it: booleans as 0 and 1, dates as ISO text,
 * bytes as a BLOB, `undefined` as NULL. Throws `TypeError` for what SQLite has
 * no value for.
 */
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
