/**
 * The one database of an instance, which its stores share: where it is, how
 * its tables come to be, and what its failures are to callers.
 */
import { Context, Effect, Layer, Path, Schema } from "effect"
import { Reactivity } from "effect/reactivity"
import { Migrator, SqlClient, SqlError } from "effect/sql"
import { BackendFailed } from "../../domain/Errors.ts"
import { StoreProbe } from "../../services/Health.ts"
import { Instance } from "../../services/Instance.ts"
import { migrations } from "./migrations.ts"
import * as SqliteClient from "./SqliteClient.ts"

/** A failure of the store in an operation of it; nothing was changed. */
export const failed =
  (operation: string) =>
  (error: { readonly message: string }): BackendFailed =>
    new BackendFailed({ backend: "store", operation, reason: error.message, outcome: "not-started" })

type Broken = SqlError.SqlError | Schema.SchemaError

/** Errors of the database, and rows that are not what they should be, become `BackendFailed`. */
export const guard =
  (operation: string) =>
  <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.catchIf(
      self,
      (error): error is Extract<E, Broken> => SqlError.isSqlError(error) || Schema.isSchemaError(error),
      (error) => Effect.fail(failed(operation)(error))
    )

/** Whether the database of the `SqlClient` is one that may be opened again, by a later version of us. */
const IsKept = Context.Reference<boolean>("fiberbox/layers/sql/IsKept", { defaultValue: () => true })

/** Makes the tables of the `SqlClient`'s database, or brings them up to date. */
export const migrated: Layer.Layer<never, BackendFailed, SqlClient.SqlClient> = Layer.effectDiscard(
  Effect.flatMap(
    IsKept,
    (kept): Effect.Effect<unknown, { readonly message: string }, SqlClient.SqlClient> =>
      kept
        ? Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: "migrations" })
        : // It begins empty and ends with us: nobody will ask which steps it has seen.
          Effect.all(Object.values(migrations), { discard: true })
  ).pipe(Effect.mapError(failed("migrate")))
)

/** Tries whether the `SqlClient`'s database can be written, for the service's health. */
export const probe: Layer.Layer<never, never, SqlClient.SqlClient> = Layer.effectContext(
  Effect.map(SqlClient.SqlClient, (sql) =>
    Context.make(
      StoreProbe,
      sql`PRAGMA user_version = 1`.pipe(sql.withTransaction, guard("write"), Effect.asVoid)
    )
  )
)

/**
 * The database `store.db` in the state directory of the instance. What a
 * persistent instance acknowledged survives a power cut. That of an ephemeral one ends with its
 * program, whose successors look at directories only, so nothing of it waits for the disk.
 */
export const layerInstance: Layer.Layer<SqlClient.SqlClient, BackendFailed, Instance | Path.Path> =
  Layer.unwrap(
    Effect.gen(function* () {
      const { ephemeral, stateDir } = yield* Instance
      const path = yield* Path.Path
      const open = SqliteClient.make({
        filename: path.join(stateDir, "store.db"),
        synchronous: ephemeral ? "off" : "full"
      })
      const client = Layer.effect(SqlClient.SqlClient, Effect.mapError(open, failed("open")))
      return Layer.merge(Layer.provide(client, Reactivity.layer), Layer.succeed(IsKept, !ephemeral))
    })
  )
