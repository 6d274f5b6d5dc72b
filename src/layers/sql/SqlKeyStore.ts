/**
 * API keys in an SQL database, written for SQLite.
 */
import { Effect, Layer, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import type { BackendFailed, InvalidArgument } from "../../domain/Errors.ts"
import { KeyRecord, KeyStore } from "../../services/Keys.ts"
import { migrated, reading, writing } from "./Database.ts"

const StoredKey = Schema.fromJsonString(KeyRecord)
const encodeKey = Schema.encodeEffect(StoredKey)
const decodeRows = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ record: StoredKey, last_used_at: Schema.NullOr(Schema.Finite) }))
)

const make = (sql: SqlClient.SqlClient): KeyStore["Service"] => {
  const keys = (where: Statement.Fragment) =>
    sql`SELECT record, last_used_at FROM keys WHERE ${where} ORDER BY created_at, id`.pipe(
      Effect.flatMap(decodeRows),
      Effect.map((rows) =>
        rows.map(
          ({ record, last_used_at: at }): KeyRecord => (at === null ? record : { ...record, lastUsedAt: at })
        )
      )
    )
  return {
    insert: (key) =>
      Effect.flatMap(encodeKey(key), (record) => {
        const row = { id: key.id, created_at: key.createdAt, record, last_used_at: key.lastUsedAt }
        return sql`INSERT INTO keys ${sql.insert(row)}`
      }).pipe(
        // Nobody has its token who is told that it was not made.
        writing(sql, "insert a key", sql`DELETE FROM keys WHERE id = ${key.id}`),
        Effect.asVoid
      ),
    get: (id) =>
      keys(sql`id = ${id}`).pipe(
        Effect.map((found) => found[0]),
        reading("get a key")
      ),
    list: keys(sql`1`).pipe(reading("list keys")),
    remove: (id) =>
      sql`DELETE FROM keys WHERE id = ${id} RETURNING id`.pipe(
        Effect.map((removed) => removed.length > 0),
        writing(sql, "remove a key")
      ),
    touch: (id, at) =>
      sql`UPDATE keys SET last_used_at = ${at} WHERE id = ${id}`.pipe(
        writing(sql, "touch a key"),
        Effect.asVoid
      )
  }
}

/** Keys in the database of the `SqlClient`, whose tables are made or brought up to date first. */
export const layer: Layer.Layer<KeyStore, BackendFailed | InvalidArgument, SqlClient.SqlClient> =
  Layer.effect(KeyStore, Effect.map(SqlClient.SqlClient, make)).pipe(Layer.provide(migrated))
