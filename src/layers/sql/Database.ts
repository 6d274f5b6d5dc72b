/**
 * The one database of an instance, which its stores share: where it is, how
 * its tables come to be, and what its failures are to callers.
 */
import { Context, Effect, Fiber, Layer, Path, Schema } from "effect"
import { Reactivity } from "effect/reactivity"
import { Migrator, SqlClient, SqlError } from "effect/sql"
import { BackendFailed, InvalidArgument, ResourceExhausted } from "../../domain/Errors.ts"
import { StoreProbe } from "../../services/Health.ts"
import { Instance } from "../../services/Instance.ts"
import type { WriteError } from "../../services/SandboxStore.ts"
import { migrations, newest } from "./migrations.ts"
import * as SqliteClient from "./SqliteClient.ts"
import { isDamage, isDiskFull } from "./SqliteErrors.ts"

/** A failure of the store in an operation of it; nothing was changed. */
export const failed =
  (operation: string) =>
  (error: { readonly message: string }): BackendFailed =>
    new BackendFailed({ backend: "store", operation, reason: error.message, outcome: "not-started" })

type Broken = SqlError.SqlError | Schema.SchemaError

/** How long a caller waits for the store, in milliseconds. */
export const storeMillis = 5_000

/** How long another process may hold the database before a statement gives up. Well below {@link storeMillis}, so that a reason is known. */
const busyTimeout = "2 seconds"

/** A failure of a change, which a full disk may refuse. */
const refused =
  (operation: string) =>
  (error: Broken): WriteError =>
    SqlError.isSqlError(error) && isDiskFull(error)
      ? new ResourceExhausted({
          resource: "store",
          reason: `could not ${operation}: the disk of store.db is full`
        })
      : failed(operation)(error)

/** Errors of the database, and rows that are not what they should be, become those of the contract. */
const translated =
  <Failed>(failed: (error: Broken) => Failed) =>
  <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.catchIf(
      self,
      (error): error is Extract<E, Broken> => SqlError.isSqlError(error) || Schema.isSchemaError(error),
      (error) => Effect.fail(failed(error))
    )

/** What is to be said of an operation that fails, and of one whose caller does not wait any longer, and done about that. */
interface Bounds<Failed> {
  readonly failed: (error: Broken) => Failed
  /** Whether it has happened, if it is given up now. */
  readonly outcome: () => BackendFailed["outcome"]
  /** Done once an operation of unknown outcome has ended all the same. */
  readonly undo: Effect.Effect<unknown, Broken>
}

/**
 * An operation of the store as its callers know it: it fails as they know it, and ends within
 * {@link storeMillis}. What a caller does not wait for any more goes on by itself, before whatever is asked next.
 */
const bounded =
  <Failed>(operation: string, { failed, outcome, undo }: Bounds<Failed>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkDetach(translated(failed)(self), { startImmediately: true })
      const done = fiber.pollUnsafe()
      if (done !== undefined) return yield* done
      const leave = Effect.sync(() => fiber.interruptUnsafe())
      const giveUp = Effect.gen(function* () {
        yield* leave
        const known = outcome()
        if (known === "unknown") {
          yield* Effect.forkDetach(
            Fiber.await(fiber).pipe(
              Effect.andThen(undo),
              Effect.catch((error) => Effect.logWarning(`could not undo: ${operation}: ${error.message}`))
            )
          )
        }
        const reason = `it has not answered within ${storeMillis / 1000} seconds`
        return yield* new BackendFailed({ backend: "store", operation, reason, outcome: known })
      })
      return yield* Fiber.join(fiber).pipe(
        Effect.onInterrupt(() => leave),
        Effect.timeoutOrElse({ duration: storeMillis, orElse: () => giveUp })
      )
    })

/** An operation that changes nothing. See {@link bounded}. */
export const reading = (operation: string) =>
  bounded(operation, { failed: failed(operation), outcome: () => "not-started", undo: Effect.void })

/**
 * An operation that changes something, in one transaction. What is given up before the last word of the transaction has
 * no effect; after it the outcome is `unknown`, and `undo` is done when it has ended. See {@link bounded}.
 */
export const writing =
  (sql: SqlClient.SqlClient, operation: string, undo: Bounds<never>["undo"] = Effect.void) =>
  <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      let isCommitting = false
      return self.pipe(
        Effect.tap(() =>
          Effect.sync(() => {
            isCommitting = true
          })
        ),
        sql.withTransaction,
        bounded(operation, {
          failed: refused(operation),
          outcome: () => (isCommitting ? "unknown" : "not-started"),
          undo
        })
      )
    })

/** Whether the database of the `SqlClient` is one that may be opened again, by a later version of us. */
const IsKept = Context.Reference<boolean>("fiberbox/layers/sql/IsKept", { defaultValue: () => true })

const Step = Schema.Struct({ migration_id: Schema.Natural, name: Schema.String })
const decodeSteps = Schema.decodeUnknownEffect(Schema.Array(Step))

/** Refuses a database whose tables a later version of us has changed. Nothing is written before. */
const refuseLater = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = yield* sql`SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'`
  if (tables.length === 0) return
  const [last] = yield* Effect.flatMap(
    sql`SELECT migration_id, name FROM migrations ORDER BY migration_id DESC LIMIT 1`,
    decodeSteps
  )
  if (last === undefined || last.migration_id <= newest) return
  return yield* new InvalidArgument({
    field: "stateDir",
    reason: `its store.db was last used by a later version of fiberbox: its tables are at step ${last.migration_id} (${last.name}), and this version knows the steps up to ${newest}; nothing was changed. Use that version, or another state directory`
  })
})

const upToDate = Effect.flatMap(
  IsKept,
  (
    kept
  ): Effect.Effect<
    unknown,
    SqlError.SqlError | Migrator.MigrationError | Schema.SchemaError | InvalidArgument,
    SqlClient.SqlClient
  > =>
    kept
      ? Effect.andThen(
          refuseLater,
          Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: "migrations" })
        )
      : // It begins empty and ends with us: nobody will ask which steps it has seen.
        Effect.all(Object.values(migrations), { discard: true })
)

/** What cannot be opened: a damaged file is not going to be another one at the next attempt. */
const unopened =
  (operation: string) =>
  <E extends { readonly message: string }>(error: E): BackendFailed | InvalidArgument => {
    if (error instanceof InvalidArgument) return error
    if (!SqlError.isSqlError(error) || !isDamage(error)) return failed(operation)(error)
    return new InvalidArgument({
      field: "stateDir",
      reason: `its store.db is damaged (${error.message}). Put back a copy of it; or move it away: what sandboxes have on disk is kept then, and \`fiberbox remains\` shows it`
    })
  }

/**
 * Makes the tables of the `SqlClient`'s database, or brings them up to date. One that a later version has changed
 * is refused as it is, with `InvalidArgument`; so is a damaged one.
 */
export const migrated: Layer.Layer<never, BackendFailed | InvalidArgument, SqlClient.SqlClient> =
  Layer.effectDiscard(Effect.mapError(upToDate, unopened("migrate")))

/** Tries whether the `SqlClient`'s database can be written, for the service's health. */
export const probe: Layer.Layer<never, never, SqlClient.SqlClient> = Layer.effectContext(
  Effect.map(SqlClient.SqlClient, (sql) =>
    Context.make(StoreProbe, sql`PRAGMA user_version = 1`.pipe(writing(sql, "write"), Effect.asVoid))
  )
)

/**
 * The database `store.db` in the state directory of the instance. What a
 * persistent instance acknowledged survives a power cut. That of an ephemeral one ends with its
 * program, whose successors look at directories only, so nothing of it waits for the disk.
 */
export const layerInstance: Layer.Layer<
  SqlClient.SqlClient,
  BackendFailed | InvalidArgument,
  Instance | Path.Path
> = Layer.unwrap(
  Effect.gen(function* () {
    const { ephemeral, stateDir } = yield* Instance
    const path = yield* Path.Path
    const open = SqliteClient.make({
      filename: path.join(stateDir, "store.db"),
      // Nobody else opens an ephemeral one's, and it waits for no disk.
      ...(ephemeral
        ? { synchronous: "off" as const }
        : { synchronous: "full" as const, thread: "own" as const, busyTimeout })
    })
    const client = Layer.effect(SqlClient.SqlClient, Effect.mapError(open, unopened("open")))
    return Layer.merge(Layer.provide(client, Reactivity.layer), Layer.succeed(IsKept, !ephemeral))
  })
)
