/**
 * The audit in an SQL database, written for SQLite.
 */
import { Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { AuditEntry } from "../../domain/Audit.ts"
import type { BackendFailed, InvalidArgument } from "../../domain/Errors.ts"
import { AuditStore, auditKept } from "../../services/Audit.ts"
import { migrated, reading, writing } from "./Database.ts"

const StoredEntry = Schema.fromJsonString(AuditEntry)
const encodeEntry = Schema.encodeEffect(StoredEntry)
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ entry: StoredEntry })))
const decodeLast = Schema.decodeUnknownEffect(Schema.Tuple([Schema.Struct({ last: Schema.Natural })]))

const make = (sql: SqlClient.SqlClient): AuditStore["Service"] => ({
  append: (entries) =>
    Effect.gen(function* () {
      const texts = yield* Effect.forEach(entries, (entry) => encodeEntry(entry))
      // In one statement, whatever their number. One that was given up on and was written all the same comes again.
      yield* sql`INSERT INTO audit (sequence, entry)
        SELECT value ->> '$.sequence', value FROM json_each(${`[${texts.join()}]`}) WHERE true
        ON CONFLICT (sequence) DO NOTHING`
      const oldest = (entries.at(-1)?.sequence ?? 0) - auditKept
      if (oldest > 0) yield* sql`DELETE FROM audit WHERE sequence <= ${oldest}`
    }).pipe(writing(sql, "write the audit")),
  read: (after, limit) =>
    sql`SELECT entry FROM audit WHERE sequence > ${after} ORDER BY sequence LIMIT ${limit}`.pipe(
      Effect.flatMap(decodeRows),
      Effect.map((rows) => rows.map((row) => row.entry)),
      reading("read the audit")
    ),
  last: sql`SELECT coalesce(max(sequence), 0) AS last FROM audit`.pipe(
    Effect.flatMap(decodeLast),
    Effect.map(([{ last }]) => last),
    reading("read the audit")
  )
})

/** The audit in the database of the `SqlClient`, whose tables are made or brought up to date first. */
export const layer: Layer.Layer<AuditStore, BackendFailed | InvalidArgument, SqlClient.SqlClient> =
  Layer.effect(AuditStore, Effect.map(SqlClient.SqlClient, make)).pipe(Layer.provide(migrated))
