/**
 * `effect/sql` over the SQLite that Node carries (`node:sqlite`): no driver to
 * install, nothing to compile.
 *
 * One client is one connection. Statements of different fibers take turns, and
 * a transaction holds the connection until it ends. A statement runs to its end
 * once begun: SQLite in Node cannot be interrupted. So a database that a slow
 * disk or another process may hold up belongs in a thread of its own
 * (`thread: "own"`), where only those wait who ask it something; a statement costs some
 * 50 microseconds more there. With `thread: "callers"` the whole program waits for each statement.
 *
 * **Durability.** What a statement outside a transaction or a committed
 * transaction acknowledged survives the death of the process at any moment,
 * `kill -9` included. With `synchronous: "full"` every commit also waits for
 * the disk and survives a power cut; with `"normal"` a power cut may undo the
 * latest commits, but never leaves the database inconsistent
 * (https://www.sqlite.org/pragma.html#pragma_synchronous, in WAL mode). With
 * `"off"` nothing waits for the disk and undoing is kept in memory: for a
 * database that nobody opens again when the process has ended.
 *
 * **Its files.** All of that holds for the file that was opened. When it, or the
 * log of changes beside it, is not any more what its path names, because
 * somebody removed, replaced or shortened it, no transaction is begun (see
 * `SqliteFiles.ts`), and the log says so, until it is back. With `"off"` nobody will look for it.
 */
import { Context, Duration, Effect, Layer, Scope, Semaphore, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { SqlClient, type SqlConnection, type SqlError, Statement } from "effect/sql"
import { type Answer, type DatabaseOptions, faultOf, type Request, SqliteDatabase } from "./SqliteDatabase.ts"
import { faultError, isMoved, type Operation } from "./SqliteErrors.ts"
import { openThread } from "./SqliteThread.ts"

/** How a database is opened. */
export interface SqliteConfig {
  /** Path of the database file (made when missing), or `:memory:`. */
  readonly filename: string
  /** What a commit waits for; default `normal`. See the durability note of this module. */
  readonly synchronous?: "off" | "normal" | "full" | undefined
  /**
   * How long a statement waits while another process holds the database,
   * before it fails with a `LockTimeoutError`; default 1 second.
   */
  readonly busyTimeout?: Duration.Input | undefined
  /** Where statements are carried out; default `callers`. */
  readonly thread?: "callers" | "own" | undefined
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
  const options: DatabaseOptions = {
    filename: config.filename,
    synchronous: config.synchronous ?? "normal",
    busyMillis: Duration.toMillis(config.busyTimeout ?? "1 second"),
    readOnly: config.readOnly ?? false,
    cacheSize: config.statementCacheSize ?? 200
  }
  const acquirers = SqlClient.makeSqliteAcquirers({
    connection: config.thread === "own" ? yield* inThread(options) : Effect.succeed(yield* direct(options)),
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

interface SqliteConnection extends SqlConnection.Connection {
  readonly isTransaction: () => boolean
}

/** Carries out a statement, and fails with what went wrong. */
type Run = (request: Request, operation: Operation) => Effect.Effect<Answer, SqlError.SqlError>

/** A database in this thread. */
const direct = (options: DatabaseOptions): Effect.Effect<SqliteConnection, SqlError.SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => new SqliteDatabase(options),
      catch: (cause) => faultError(faultOf(cause), "open")
    }),
    (database) => Effect.sync(() => database.close())
  ).pipe(Effect.map((database) => makeConnection((request) => Effect.sync(() => database.run(request)))))

/** A database in a thread of its own. A thread that has ended is followed by another one. */
const inThread = Effect.fnUntraced(function* (options: DatabaseOptions) {
  const scope = yield* Effect.scope
  const begin = Effect.gen(function* () {
    const thread = yield* Effect.mapError(openThread(options), (fault) => faultError(fault, "open"))
    const connection = makeConnection((request, operation) =>
      // What is sent is carried out, whoever still waits for it; so whether a transaction is open is known only then.
      Effect.uninterruptible(Effect.mapError(thread.run(request), (fault) => faultError(fault, operation)))
    )
    return { thread, connection }
  }).pipe(Effect.provideService(Scope.Scope, scope))
  let current = yield* begin
  return Effect.suspend(() => {
    if (!current.thread.hasEnded()) return Effect.succeed(current.connection)
    return Effect.map(begin, (next) => {
      current = next
      return next.connection
    })
  })
})

type Transform = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

const makeConnection = (run: Run): SqliteConnection => {
  let inTransaction = false
  /** What was said of files that are not those that are open; nobody who asks something has to look after them. */
  let told = ""

  const fail = (error: SqlError.SqlError) =>
    Effect.suspend(() => {
      if (!isMoved(error) || error.message === told) return Effect.fail(error)
      told = error.message
      return Effect.andThen(Effect.logError(`the store is written no more: ${told}`), Effect.fail(error))
    })

  const ask = (operation: Operation, request: Omit<Request, "bigints">) =>
    Effect.withFiber((fiber) =>
      run({ ...request, bigints: Context.get(fiber.context, SqlClient.SafeIntegers) }, operation)
    ).pipe(
      // Only a thread that has ended fails here, and its transaction with it.
      Effect.tapError(() =>
        Effect.sync(() => {
          inTransaction = false
        })
      ),
      Effect.flatMap((answer) => {
        if (answer.inTransaction && !inTransaction) told = ""
        inTransaction = answer.inTransaction
        return "fault" in answer ? fail(faultError(answer.fault, operation)) : Effect.succeed(answer.value)
      })
    )

  const rows = (cached: boolean) => (sql: string, params: ReadonlyArray<unknown>, transform: Transform) =>
    Effect.map(ask("execute", { sql, params, shape: "rows", cached }), (value) => {
      const found = isRows(value) ? value : []
      return transform === undefined ? found : transform(found)
    })
  const values = (cached: boolean) => (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.map(ask("executeValues", { sql, params, shape: "values", cached }), (value) =>
      isLists(value) ? value : []
    )

  return {
    isTransaction: () => inTransaction,
    execute: rows(true),
    executeUnprepared: rows(false),
    executeValues: values(true),
    executeValuesUnprepared: values(false),
    executeRaw: (sql, params) => ask("executeRaw", { sql, params, shape: "raw", cached: true }),
    // All rows at once: an unfinished statement would keep its read transaction, and with it the growing log.
    executeStream: (sql, params, transform) =>
      Stream.unwrap(Effect.map(rows(false)(sql, params, transform), Stream.fromIterable))
  }
}

const isRows = (value: unknown): value is ReadonlyArray<object> => Array.isArray(value)
const isLists = (value: unknown): value is ReadonlyArray<ReadonlyArray<unknown>> => Array.isArray(value)
