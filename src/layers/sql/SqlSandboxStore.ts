/**
 * The store of sandboxes in an SQL database, written for SQLite.
 *
 * Every change is one transaction: a failed or interrupted one did nothing. How
 * much a power cut may undo is decided where the database is opened.
 */
import { Clock, Effect, Layer, type Path, Schema } from "effect"
import { SqlClient, type Statement } from "effect/sql"
import { type BackendFailed, Conflict, type InvalidArgument } from "../../domain/Errors.ts"
import { type EventBody, SandboxEvent } from "../../domain/Event.ts"
import { groupOf, type IdempotencyKey, Owner, SandboxId } from "../../domain/Ids.ts"
import { type ListRequest, Timestamp } from "../../domain/Sandbox.ts"
import { Status } from "../../domain/Status.ts"
import type { Instance } from "../../services/Instance.ts"
import * as PageCursor from "../../services/PageCursor.ts"
import type { Admission } from "../../services/Quotas.ts"
import {
  type Known,
  keptIn,
  type SandboxRecord,
  SandboxStore,
  tombstonesKept
} from "../../services/SandboxStore.ts"
import * as Database from "./Database.ts"
import { failed, reading, writing } from "./Database.ts"
import { encodeRecord, makeReader } from "./SandboxRows.ts"

/** The store in the database of the `SqlClient`, whose tables are made or brought up to date first. */
export const layer: Layer.Layer<SandboxStore, BackendFailed | InvalidArgument, SqlClient.SqlClient> =
  Layer.effect(
    SandboxStore,
    Effect.map(SqlClient.SqlClient, (sql) => make(sql))
  ).pipe(Layer.provide(Database.migrated))

/** The store in the state directory of the instance. See {@link Database.layerInstance}. */
export const layerInstance: Layer.Layer<SandboxStore, BackendFailed | InvalidArgument, Instance | Path.Path> =
  layer.pipe(Layer.provide(Database.layerInstance))

/** How many killed sandboxes are forgotten in one step: others wait for the database meanwhile. */
const purgedAtOnce = 100

const StoredEvent = Schema.fromJsonString(SandboxEvent)
const encodeEvent = Schema.encodeEffect(StoredEvent)
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
const decodeTimes = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ killed_at: Timestamp })))
const decodeSizes = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ bytes: Schema.Natural })))
const decodeCounts = Schema.decodeUnknownEffect(
  Schema.Array(Schema.Struct({ status: Schema.String, count: Schema.Natural }))
)
const isStatus = Schema.is(Status)
const isOwner = Schema.is(Owner)
const decodeKnown = Schema.decodeUnknownEffect(
  Schema.Array(
    Schema.Struct({
      id: SandboxId,
      killed_at: Schema.NullOr(Timestamp),
      status: Schema.String,
      owner: Schema.String
    })
  )
)
/** What a sandbox is found by. */
interface Beside {
  readonly id: string
  readonly owner: string
  readonly slug: string
  readonly status: string
}

const make = (sql: SqlClient.SqlClient): SandboxStore["Service"] => {
  const { one, records } = makeReader(sql)

  const columns = Effect.fnUntraced(function* (record: SandboxRecord) {
    const { limits, ttl } = record.spec
    return {
      id: record.id,
      owner: record.owner,
      slug: record.slug,
      status: record.status,
      idempotency_key: record.idempotencyKey,
      created_at: record.createdAt,
      killed_at: record.killedAt,
      host: groupOf(record.id),
      backend: record.backend,
      expires_at: record.expiresAt,
      expiry_action: ttl?.action,
      memory_bytes: limits.memoryBytes,
      cpus: limits.cpus,
      pids: limits.pids,
      disk_bytes: limits.diskBytes,
      record: yield* encodeRecord(record)
    }
  })

  /** Writes events, the first of them with the number after `last`, and keeps the newest. */
  const append = Effect.fnUntraced(function* (
    { id: sandboxId, generation, status }: SandboxRecord,
    at: Timestamp,
    last: number,
    bodies: ReadonlyArray<EventBody>
  ) {
    const events = bodies.map(
      (body, index): SandboxEvent => ({ sandboxId, sequence: last + 1 + index, generation, at, body })
    )
    yield* Effect.forEach(
      events,
      (event) =>
        Effect.flatMap(encodeEvent(event), (text) => {
          const row = { sandbox_id: sandboxId, sequence: event.sequence, event: text }
          return sql`INSERT INTO events ${sql.insert(row)}`
        }),
      { discard: true }
    )
    const dropped = last + events.length - keptIn(status)
    if (dropped > 0) yield* sql`DELETE FROM events WHERE sandbox_id = ${sandboxId} AND sequence <= ${dropped}`
    return events
  })

  /** What is taken by the sandboxes that are not killed. */
  const usage = (where: Statement.Fragment) =>
    sql`SELECT count(*) AS sandboxes,
        coalesce(sum(memory_bytes), 0) AS memoryBytes,
        coalesce(sum(cpus), 0) AS cpus,
        coalesce(sum(pids), 0) AS pids,
        coalesce(sum(disk_bytes), 0) AS diskBytes,
        min(CASE WHEN expiry_action = 'kill' THEN expires_at END) AS freesAt
      FROM sandboxes INDEXED BY sandboxes_usage WHERE status <> 'killed' AND ${where}`.pipe(
      Effect.flatMap(decodeUsage),
      Effect.map(([row]) => ({ ...row, freesAt: row.freesAt ?? undefined }))
    )

  const byKey = (owner: Owner, key: IdempotencyKey) => one(sql`owner = ${owner} AND idempotency_key = ${key}`)

  /** Creations under way, and those that were given up and are not taken back yet: whether somebody has asked for the sandbox again. */
  const beginnings = new Map<SandboxId, { isWanted: boolean }>()

  const create = Effect.fnUntraced(function* (record: SandboxRecord, admission?: Admission) {
    const { idempotencyKey: key, owner, slug } = record
    const before = key === undefined ? undefined : yield* byKey(owner, key)
    if (before !== undefined) {
      if (before.requestDigest === record.requestDigest) {
        const beginning = beginnings.get(before.id)
        if (beginning !== undefined) beginning.isWanted = true
        return { record: before, existed: true }
      }
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
    // Remains that are adopted may have a row of which nothing can be read.
    if (admission === undefined && (yield* one(sql`id = ${record.id}`)) === undefined) {
      yield* sql`DELETE FROM sandboxes WHERE id = ${record.id}`
    }
    yield* sql`INSERT INTO sandboxes ${sql.insert(yield* columns(record))}`
    yield* append(record, record.createdAt, 0, [{ _tag: "Created" }])
    return { record, existed: false }
  })

  const save = Effect.fnUntraced(function* (record: SandboxRecord, bodies: ReadonlyArray<EventBody>) {
    const { id, unreadable } = record
    if (unreadable === true && record.status !== "killed") {
      return yield* failed("save")({ message: `the record of ${id} cannot be read; it can only be killed` })
    }
    const updated = yield* sql`UPDATE sandboxes SET ${sql.update(yield* columns(record), ["id"])}
      WHERE id = ${id} RETURNING id`
    if (updated.length === 0) return yield* failed("save")({ message: `there is no record of ${id}` })
    if (bodies.length === 0) return []
    const [{ last }] = yield* Effect.flatMap(
      sql`SELECT coalesce(max(sequence), 0) AS last FROM events WHERE sandbox_id = ${id}`,
      decodeLast
    )
    return yield* append(record, yield* Clock.currentTimeMillis, last, bodies)
  })

  /** What stands beside a record says what the record says. */
  const mend = Effect.fnUntraced(function* (record: SandboxRecord) {
    yield* Effect.logWarning(`what stands beside the record of ${record.id} was damaged; it is written anew`)
    yield* sql`UPDATE sandboxes SET ${sql.update(yield* columns(record), ["id"])} WHERE id = ${record.id}`
  })

  /** Those that are not killed. One that nobody would find by what stands beside its record can be found from then on. */
  const alive = Effect.gen(function* () {
    const living = sql`status <> 'killed'`
    const rows = yield* sql<Beside>`SELECT id, owner, slug, status FROM sandboxes WHERE ${living}`
    const beside = new Map(rows.map((row) => [row.id, row]))
    const found = yield* records(sql`${living} ORDER BY created_at, id`)
    yield* Effect.forEach(
      found.filter((record) => {
        const { owner, slug, status } = beside.get(record.id) ?? record
        const isSame = owner === record.owner && slug === record.slug && status === record.status
        return record.unreadable !== true && !isSame
      }),
      (record) =>
        Effect.ignore(mend(record).pipe(writing(sql, "mend")), {
          log: "Error",
          message: `${record.id} cannot be found by its name`
        }),
      { discard: true }
    )
    return found.filter(({ status }) => status !== "killed")
  })

  /** Those of the ids of which something can be read. */
  const known = Effect.fnUntraced(function* (ids: ReadonlyArray<SandboxId>) {
    const rows = yield* Effect.flatMap(
      sql`SELECT id, killed_at, status, owner FROM sandboxes WHERE id IN (${idsIn(sql, ids)})`,
      decodeKnown
    )
    const found = new Map<SandboxId, Known>()
    for (const { id, killed_at: killedAt, owner, status } of rows) {
      const isRead = (isStatus(status) && isOwner(owner)) || (yield* one(sql`id = ${id}`)) !== undefined
      if (isRead) found.set(id, { killedAt: killedAt ?? undefined })
    }
    return found
  })

  const find = Effect.fnUntraced(function* (owner: Owner, idOrName: string) {
    // By one index or by the other: with both in one condition all of an owner's would be looked through.
    const byId = yield* one(sql`id = ${idOrName} AND owner = ${owner}`)
    return byId ?? (yield* one(sql`owner = ${owner} AND slug = ${idOrName} AND status <> 'killed'`))
  })

  const list = Effect.fnUntraced(function* (owner: Owner, request: ListRequest) {
    const limit = request.limit ?? PageCursor.defaultPageSize
    const place = yield* PageCursor.decode(request.cursor)
    const where = listed(sql, owner, request, place)
    const sizes = yield* Effect.flatMap(
      sql`SELECT octet_length(record) AS bytes FROM sandboxes WHERE ${where} ORDER BY created_at, id LIMIT ${limit + 1}`,
      decodeSizes
    )
    const count = PageCursor.fitting(
      sizes.map(({ bytes }) => bytes),
      limit
    )
    const found = yield* records(sql`${where} ORDER BY created_at, id LIMIT ${count}`)
    return PageCursor.page(found, sizes.length > count)
  })

  /** The time before which whoever was killed is one too many; nobody, while there are few. */
  const overBudget = Effect.map(
    Effect.flatMap(
      sql`SELECT killed_at FROM sandboxes WHERE killed_at IS NOT NULL
        ORDER BY killed_at DESC LIMIT 1 OFFSET ${tombstonesKept - 1}`,
      decodeTimes
    ),
    ([row]) => row?.killed_at ?? Number.NEGATIVE_INFINITY
  )

  const purge = Effect.fnUntraced(function* (killedBefore: Timestamp, except: ReadonlyArray<SandboxId>) {
    const before = Math.max(killedBefore, yield* overBudget.pipe(reading("purge")))
    let purged = 0
    while (true) {
      const removed = yield* sql`DELETE FROM sandboxes WHERE id IN (
          SELECT id FROM sandboxes WHERE killed_at < ${before} AND id NOT IN (${idsIn(sql, except)})
          ORDER BY killed_at LIMIT ${purgedAtOnce}
        ) RETURNING id`.pipe(writing(sql, "purge"))
      purged += removed.length
      if (removed.length < purgedAtOnce) return purged
      yield* Effect.yieldNow
    }
  })

  return {
    create: (record, admission) => {
      const beginning = { isWanted: false }
      beginnings.set(record.id, beginning)
      const forget = Effect.sync(() => beginnings.delete(record.id))
      // Whoever is told that it was not created will not look after it. In a transaction, so that no other creation is half-way.
      const undo = sql.withTransaction(
        Effect.suspend(() =>
          beginning.isWanted ? Effect.void : Effect.asVoid(sql`DELETE FROM sandboxes WHERE id = ${record.id}`)
        )
      )
      return create(record, admission).pipe(
        writing(sql, "create", Effect.ensuring(undo, forget)),
        Effect.tapError((error) => (error.outcome === "unknown" ? Effect.void : forget)),
        Effect.tap(forget),
        Effect.onInterrupt(() => forget)
      )
    },
    save: (record, bodies) => save(record, bodies).pipe(writing(sql, "save")),
    get: (id) => one(sql`id = ${id}`).pipe(reading("get")),
    byKey: (owner, key) => byKey(owner, key).pipe(reading("find by key")),
    find: (owner, idOrName) => find(owner, idOrName).pipe(reading("find")),
    list: (owner, request) => list(owner, request).pipe(reading("list")),
    alive: alive.pipe(reading("alive")),
    count: sql`SELECT status, count(*) AS count FROM sandboxes INDEXED BY sandboxes_living
      WHERE status <> 'killed' GROUP BY status`.pipe(
      Effect.flatMap(decodeCounts),
      Effect.map(
        (rows) => new Map(rows.flatMap(({ status, count }) => (isStatus(status) ? [[status, count]] : [])))
      ),
      reading("count")
    ),
    known: (ids) => known(ids).pipe(reading("look for sandboxes")),
    events: (id, after, limit) =>
      sql`SELECT event FROM events WHERE sandbox_id = ${id} AND sequence > ${after}
        ORDER BY sequence LIMIT ${limit}`.pipe(
        Effect.flatMap(decodeEvents),
        Effect.map((rows) => rows.map((row) => row.event)),
        reading("events")
      ),
    purge: (killedBefore, except = []) => purge(killedBefore, except)
  }
}

/** A list of ids as one parameter, since the number of those is limited. */
const idsIn = (sql: SqlClient.SqlClient, ids: ReadonlyArray<SandboxId>): Statement.Fragment =>
  sql`SELECT value FROM json_each(${JSON.stringify(ids)})`

/** What a list request asks for, after a place, as a condition. */
const listed = (
  sql: SqlClient.SqlClient,
  owner: Owner,
  { labels = {}, statuses }: ListRequest,
  place: PageCursor.Place | undefined
): Statement.Fragment =>
  sql.and([
    sql`owner = ${owner}`,
    ...(statuses === undefined ? [] : [sql.in("status", statuses)]),
    // Also where it follows from the statuses: by this the index of the living is found.
    ...(statuses?.includes("killed") === true ? [] : [sql`status <> 'killed'`]),
    ...Object.entries(labels).map(
      ([key, value]) =>
        sql`EXISTS (SELECT 1 FROM json_each(iif(json_valid(record), record, '{}'), '$.spec.labels') AS label
          WHERE label.key = ${key} AND label.value = ${value})`
    ),
    ...(place === undefined ? [] : [sql`(created_at, id) > (${place.createdAt}, ${place.id})`])
  ])
