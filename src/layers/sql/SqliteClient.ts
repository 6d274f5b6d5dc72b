/**
 * `effect/sql` over the SQLite that Node carries (`node:sqlite`): no driver to
 * install, nothing to compile.
 *
 * One client is one connection. Statements of different fibers take turns, and
 * a transaction holds the connection until it ends. A statement runs to its end
 * once begun, with the whole program waiting: right for a small local store,
 * not for large scans.
 *
 * **Durability.** What a statement outside a transaction or a committed
 * transaction acknowledged survives the death of the process at any moment,
 * `kill -9` included. With `synchronous: "full"` every commit also waits for
 * the disk and survives a power cut; with `"normal"` a power cut may undo the
 * latest commits, but never leaves the database inconsistent
 * (https://www.sqlite.org/pragma.html#pragma_synchronous, in WAL mode). With
 * `"off"` nothing waits for the disk and undoing is kept in memory: for a
 * database that nobody opens again when the process has ended.
 */
import { DatabaseSync, type StatementSync } from "node:sqlite"
import { Context, Duration, Effect, Layer, Option, type Scope, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, type SqlError, Statement } from "effect/sql"
import { type Operation, sqlError } from "./SqliteErrors.ts"
import { StatementCache, toRow, toSqliteValues } from "./SqliteStatements.ts"

/** How a database is opened. */
export interface SqliteConfig {
  /** Path of the database file (made when missing), or `:memory:`. */
  readonly filename: string
  /** What a commit waits for; default `normal`. See the durability note of this module. */
  readonly synchronous?: "off" | "normal" | "full" | undefined
  /**
   * How long a statement waits while another process holds the database,
   * before it fails with a `LockTimeoutError`. The whole program stands still
   * meanwhile, so it is short: default 1 second.
   */
  readonly busyTimeout?: Duration.Input | undefined
  /** Opens the database for reading only; it must exist. */
  readonly readOnly?: boolean | undefined
  /** Compiled statements kept for reuse; default 200. */
  readonly statementCacheSize?: number | undefined
}

/**
 * Opens a database for as long as the scope lives.
 *
 * Integers arrive as numbers, and one that a number cannot hold exactly fails
 * the statement; provide `SqlClient.SafeIntegers` to receive all as bigints.
 * BLOBs arrive as `Uint8Array`. Transactions begin `IMMEDIATE`, nested ones are
 * savepoints. Fails with a `SqlError` when the database cannot be opened.
 */
export const make = Effect.fnUntraced(function* (
  config: SqliteConfig
): Effect.fn.Return<SqlClient.SqlClient, SqlError.SqlError, Scope.Scope | Reactivity.Reactivity> {
  const database = yield* open(config)
  const acquirers = SqlClient.makeSqliteAcquirers({
    connection: Effect.succeed(makeConnection(database, config.statementCacheSize ?? 200)),
    semaphore: Semaphore.makeUnsafe(1),
    isTransaction: (connection) => connection.isTransaction()
  })
  return yield* SqlClient.make({
    ...acquirers,
    compiler: Statement.makeCompilerSqlite(),
    driver: "sqlite-node",
    spanAttributes: [["db.system.name", "sqlite"]],
    prepareTransactionControls: true,
    beginTransaction: "BEGIN IMMEDIATE",
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`
  })
})

/** The `SqlClient` of one database, open for as long as the layer lives. See {@link make}. */
export const layer = (config: SqliteConfig): Layer.Layer<SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.provide(Layer.effect(SqlClient.SqlClient, make(config)), Reactivity.layer)

const open = (config: SqliteConfig): Effect.Effect<DatabaseSync, SqlError.SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => openDatabase(config),
      catch: (cause) => sqlError(cause, "open")
    }),
    (database) => Effect.sync(() => database.close())
  )

const openDatabase = (config: SqliteConfig): DatabaseSync => {
  const database = new DatabaseSync(config.filename, {
    readOnly: config.readOnly ?? false,
    enableForeignKeyConstraints: true,
    enableDoubleQuotedStringLiterals: false,
    timeout: Duration.toMillis(config.busyTimeout ?? "1 second")
  })
  try {
    const { synchronous = "normal" } = config
    // First, because changing the journal's mode is a write too.
    database.exec(`PRAGMA synchronous = ${synchronous}`)
    if (config.readOnly !== true) {
      database.exec(`PRAGMA journal_mode = ${synchronous === "off" ? "MEMORY" : "WAL"}`)
    }
    return database
  } catch (cause) {
    database.close()
    throw cause
  }
}

interface SqliteConnection extends SqlConnection.Connection {
  readonly isTransaction: () => boolean
}

type Transform = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

const makeConnection = (database: DatabaseSync, cacheSize: number): SqliteConnection => {
  const cache = new StatementCache(database, cacheSize)
  const cached = (sql: string) => cache.get(sql)
  const fresh = (sql: string) => cache.prepare(sql)

  const run = <A>(
    operation: Operation,
    prepare: (sql: string) => StatementSync,
    sql: string,
    use: (statement: StatementSync) => A
  ): Effect.Effect<A, SqlError.SqlError> =>
    Effect.withFiber((fiber) =>
      Effect.try({
        try: () => {
          const statement = prepare(sql)
          statement.setReadBigInts(Context.get(fiber.context, SqlClient.SafeIntegers))
          return use(statement)
        },
        catch: (cause) => sqlError(cause, operation)
      })
    )

  return {
    isTransaction: () => database.isTransaction,
    execute: (sql, params, transform) => run("execute", cached, sql, rows(params, transform)),
    executeUnprepared: (sql, params, transform) => run("execute", fresh, sql, rows(params, transform)),
    executeValues: (sql, params) => run("executeValues", cached, sql, values(params)),
    executeValuesUnprepared: (sql, params) => run("executeValues", fresh, sql, values(params)),
    executeRaw: (sql, params) => run("executeRaw", cached, sql, raw(params)),
    executeStream: (sql, params, transform) =>
      // A statement of its own: one from the cache could be begun again by somebody else half way through.
      run("executeStream", fresh, sql, (statement) => statement.iterate(...toSqliteValues(params))).pipe(
        Effect.map((iterator) => streamRows(iterator, transform)),
        Stream.unwrap
      )
  }
}

const rows =
  (params: ReadonlyArray<unknown>, transform: Transform) =>
  (statement: StatementSync): ReadonlyArray<object> => {
    const found = statement.all(...toSqliteValues(params)).map(toRow)
    return transform === undefined ? found : transform(found)
  }

const values =
  (params: ReadonlyArray<unknown>) =>
  (statement: StatementSync): ReadonlyArray<ReadonlyArray<unknown>> => {
    statement.setReturnArrays(true)
    try {
      return statement.all(...toSqliteValues(params)).map((row) => Object.values(row))
    } finally {
      statement.setReturnArrays(false)
    }
  }

/** What SQLite itself answers: rows, or the number of changes and the last row id. */
const raw = (params: ReadonlyArray<unknown>) => (statement: StatementSync) =>
  statement.columns().length > 0
    ? statement.all(...toSqliteValues(params))
    : statement.run(...toSqliteValues(params))

/** Rows a stream takes from the database at a time. */
const rowsPerPull = 128

const streamRows = (
  iterator: Iterator<object>,
  transform: Transform
): Stream.Stream<object, SqlError.SqlError> =>
  Stream.paginate(undefined, () =>
    Effect.try({
      try: (): readonly [ReadonlyArray<object>, Option.Option<undefined>] => {
        const found: Array<object> = []
        while (found.length < rowsPerPull) {
          const next = iterator.next()
          if (next.done === true) break
          found.push(toRow(next.value))
        }
        const more = found.length === rowsPerPull ? Option.some(undefined) : Option.none()
        return [transform === undefined ? found : transform(found), more]
      },
      catch: (cause) => sqlError(cause, "executeStream")
    })
  ).pipe(
    // An unfinished statement would keep its read transaction, and with it the growing log.
    Stream.ensuring(Effect.sync(() => iterator.return?.()))
  )
