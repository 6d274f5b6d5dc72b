/**
 * The store of sandboxes in an SQL database, written for SQLite.
 *
 * Every change is one transaction: a failed or interrupted one did nothing. How
 * much a power cut may undo is decided where the database is opened.
 */
import { Clock, Effect, Layer, Option, type Path, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { type BackendFailed, Conflict } from "../../domain/Errors.ts"
import { type EventBody, SandboxEvent } from "../../domain/Event.ts"
import type { Owner } from "../../domain/Ids.ts"
import type { ListRequest, Timestamp } from "../../domain/Sandbox.ts"
import type { Instance } from "../../services/Instance.ts"
import * as PageCursor from "../../services/PageCursor.ts"
import type { Admission } from "../../services/Quotas.ts"
import { eventsKept, SandboxRecord, SandboxStore } from "../../services/SandboxStore.ts"
import * as Database from "./Database.ts"
import { failed, guard } from "./Database.ts"

/** The store in the database of the `SqlClient`, whose tables are made or brought up to date first. */
export const layer: Layer.Layer<SandboxStore, BackendFailed, SqlClient.SqlClient> = Layer.effect(
  SandboxStore,
  Effect.map(SqlClient.SqlClient, (sql) => make(sql))
).pipe(Layer.provide(Database.migrated))

/** The store in the state directory of the instance. See {@link Database.layerInstance}. */
export const layerInstance: Layer.Layer<SandboxStore, BackendFailed, Instance | Path.Path> = layer.pipe(
  Layer.provide(Database.layerInstance)
)

const StoredRecord = Schema.fromJsonString(SandboxRecord)
const StoredEvent = Schema.fromJsonString(SandboxEvent)
const encodeRecord = Schema.encodeEffect(StoredRecord)
const encodeEvent = Schema.encodeEffect(StoredEvent)
const decodeRecords = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ record: StoredRecord })))
const decodeEvents = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ event: StoredEvent })))
const decodeUsage = Schema.decodeUnknownEffect(
  Schema.Tuple([
    Schema.Struct({
      sandboxes: Schema.Finite,
      memoryBytes: Schema.Finite,
      cpus: Schema.Finite,
      pids: Schema.Finite,
      diskBytes: Schema.Finite,
      freesAt: Schema.NullOr(Schema.Finite)
    })
  ])
)
const decodeLast = Schema.decodeUnknownEffect(Schema.Tuple([Schema.Struct({ last: Schema.Natural })]))

const make = (sql: SqlClient.SqlClient): SandboxStore["Service"] => {
  const records = (where: Statement.Fragment) =>
    sql`SELECT record FROM sandboxes WHERE ${where}`.pipe(
      Effect.flatMap(decodeRecords),
      Effect.map((rows) => rows.map((row) => row.record))
    )
  const one = (where: Statement.Fragment) => Effect.map(records(where), (found) => found[0])

  const columns = Effect.fnUntraced(function* (record: SandboxRecord) {
    return {
      id: record.id,
      owner: record.owner,
      slug: record.slug,
      status: record.status,
      idempotency_key: record.idempotencyKey,
      created_at: record.createdAt,
      killed_at: record.killedAt,
      record: yield* encodeRecord(record)
    }
  })

  /** Numbers events after those there are, and keeps the newest. */
  const append = Effect.fnUntraced(function* (
    record: SandboxRecord,
    at: Timestamp,
    bodies: ReadonlyArray<EventBody>
  ) {
    const [{ last }] = yield* Effect.flatMap(
      sql`SELECT coalesce(max(sequence), 0) AS last FROM events WHERE sandbox_id = ${record.id}`,
      decodeLast
    )
    const events = bodies.map((body, index): SandboxEvent => {
      const { id: sandboxId, generation } = record
      return { sandboxId, sequence: last + 1 + index, generation, at, body }
    })
    yield* Effect.forEach(
      events,
      (event) =>
        Effect.flatMap(encodeEvent(event), (text) => {
          const row = { sandbox_id: record.id, sequence: event.sequence, event: text }
          return sql`INSERT INTO events ${sql.insert(row)}`
        }),
      { discard: true }
    )
    const dropped = last + events.length - eventsKept
    if (dropped > 0) yield* sql`DELETE FROM events WHERE sandbox_id = ${record.id} AND sequence <= ${dropped}`
    return events
  })

  /** What is taken by the sandboxes that are not killed. */
  const usage = (where: Statement.Fragment) =>
    sql`SELECT count(*) AS sandboxes,
        coalesce(sum(record ->> '$.spec.limits.memoryBytes'), 0) AS memoryBytes,
        coalesce(sum(record ->> '$.spec.limits.cpus'), 0) AS cpus,
        coalesce(sum(record ->> '$.spec.limits.pids'), 0) AS pids,
        coalesce(sum(record ->> '$.spec.limits.diskBytes'), 0) AS diskBytes,
        min(CASE WHEN record ->> '$.spec.ttl.action' = 'kill' THEN record ->> '$.expiresAt' END) AS freesAt
      FROM sandboxes WHERE status <> 'killed' AND ${where}`.pipe(
      Effect.flatMap(decodeUsage),
      Effect.map(([row]) => ({ ...row, freesAt: row.freesAt ?? undefined }))
    )

  const create = Effect.fnUntraced(function* (record: SandboxRecord, admission?: Admission) {
    const { idempotencyKey: key, owner, slug } = record
    const before =
      key === undefined ? undefined : yield* one(sql`owner = ${owner} AND idempotency_key = ${key}`)
    if (before !== undefined) {
      if (before.requestDigest === record.requestDigest) return { record: before, existed: true }
      return yield* new Conflict({
        kind: "idempotency-key",
        id: before.id,
        reason: "the same key was used for another request"
      })
    }
    const holder = yield* one(sql`owner = ${owner} AND slug = ${slug} AND status <> 'killed'`)
    if (holder !== undefined) {
      return yield* new Conflict({ kind: "name", id: slug, reason: `it is the name of ${holder.id}` })
    }
    if (admission !== undefined) {
      const refusal = admission({
        owner: yield* usage(sql`owner = ${owner}`),
        service: yield* usage(sql`1`)
      })
      if (refusal !== undefined) return yield* refusal
    }
    yield* sql`INSERT INTO sandboxes ${sql.insert(yield* columns(record))}`
    yield* append(record, record.createdAt, [{ _tag: "Created" }])
    return { record, existed: false }
  })

  const save = Effect.fnUntraced(function* (record: SandboxRecord, bodies: ReadonlyArray<EventBody>) {
    const updated = yield* sql`UPDATE sandboxes SET ${sql.update(yield* columns(record), ["id"])}
      WHERE id = ${record.id} RETURNING id`
    if (updated.length === 0) return yield* failed("save")({ message: `there is no record of ${record.id}` })
    if (bodies.length === 0) return []
    return yield* append(record, yield* Clock.currentTimeMillis, bodies)
  })

  return {
    create: (record, admission) => create(record, admission).pipe(sql.withTransaction, guard("create")),
    save: (record, bodies) => save(record, bodies).pipe(sql.withTransaction, guard("save")),
    get: (id) => one(sql`id = ${id}`).pipe(guard("get")),
    find: (owner, idOrName) =>
      one(sql`owner = ${owner}
        AND (id = ${idOrName} OR (slug = ${idOrName} AND status <> 'killed'))`).pipe(guard("find")),
    list: (owner, request) => {
      const limit = request.limit ?? PageCursor.defaultPageSize
      return records(sql`${listed(sql, owner, request)} ORDER BY created_at, id LIMIT ${limit + 1}`).pipe(
        Effect.map((found) => PageCursor.page(found, limit)),
        guard("list")
      )
    },
    alive: records(sql`status <> 'killed' ORDER BY created_at, id`).pipe(guard("alive")),
    events: (id, after, limit) =>
      sql`SELECT event FROM events WHERE sandbox_id = ${id} AND sequence > ${after}
        ORDER BY sequence LIMIT ${limit}`.pipe(
        Effect.flatMap(decodeEvents),
        Effect.map((rows) => rows.map((row) => row.event)),
        guard("events")
      ),
    purge: (killedBefore) =>
      sql`DELETE FROM sandboxes WHERE killed_at < ${killedBefore} RETURNING id`.pipe(
        Effect.map((removed) => removed.length),
        guard("purge")
      )
  }
}

/** What a list request asks for, as a condition. */
const listed = (sql: SqlClient.SqlClient, owner: Owner, request: ListRequest): Statement.Fragment =>
  sql.and([
    sql`owner = ${owner}`,
    request.statuses === undefined ? sql`status <> 'killed'` : sql.in("status", request.statuses),
    ...Object.entries(request.labels ?? {}).map(
      ([key, value]) =>
        sql`EXISTS (SELECT 1 FROM json_each(record, '$.spec.labels') AS label
          WHERE label.key = ${key} AND label.value = ${value})`
    ),
    ...PageCursor.decode(request.cursor).pipe(
      Option.map(({ createdAt, id }) => sql`(created_at, id) > (${createdAt}, ${id})`),
      Option.toArray
    )
  ])
