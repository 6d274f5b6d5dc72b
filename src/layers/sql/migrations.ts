/**
 * The tables of the store, in the steps by which they came to be. A step that
 * was released is never changed: a later one alters what it made.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

const createSandboxes = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  // The record is kept whole, as JSON; what is searched by stands beside it.
  yield* sql`CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    slug TEXT NOT NULL,
    status TEXT NOT NULL,
    idempotency_key TEXT,
    created_at REAL NOT NULL,
    killed_at REAL,
    record TEXT NOT NULL
  ) STRICT`
  yield* sql`CREATE INDEX sandboxes_order ON sandboxes (owner, created_at, id)`
  yield* sql`CREATE UNIQUE INDEX sandboxes_slug ON sandboxes (owner, slug) WHERE status <> 'killed'`
  yield* sql`CREATE UNIQUE INDEX sandboxes_key ON sandboxes (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL`
  yield* sql`CREATE INDEX sandboxes_killed ON sandboxes (killed_at) WHERE killed_at IS NOT NULL`
  yield* sql`CREATE TABLE events (
    sandbox_id TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (sandbox_id, sequence)
  ) STRICT, WITHOUT ROWID`
})

const createKeys = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE keys (
    id TEXT PRIMARY KEY NOT NULL,
    created_at REAL NOT NULL,
    record TEXT NOT NULL,
    last_used_at REAL
  ) STRICT`
})

const createAudit = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY NOT NULL,
    entry TEXT NOT NULL
  ) STRICT`
})

/**
 * What is added up, counted and searched by comes out of the record into columns; `record` stays the truth. An index
 * that leaves the killed out stays small however many of those are remembered.
 */
const spreadRecords = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  for (const column of [
    "host TEXT NOT NULL DEFAULT ''",
    "backend TEXT NOT NULL DEFAULT ''",
    "expires_at REAL",
    "expiry_action TEXT",
    "memory_bytes REAL NOT NULL DEFAULT 0",
    "cpus REAL NOT NULL DEFAULT 0",
    "pids REAL NOT NULL DEFAULT 0",
    "disk_bytes REAL NOT NULL DEFAULT 0"
  ]) {
    yield* sql.unsafe(`ALTER TABLE sandboxes ADD COLUMN ${column}`)
  }
  // A record that cannot be read must not stand in the way of the others.
  const inRecord = (path: string, ...types: ReadonlyArray<string>) =>
    sql.literal(`CASE WHEN json_valid(record) THEN
      CASE WHEN typeof(record ->> '${path}') IN (${types.map((type) => `'${type}'`).join()})
        THEN record ->> '${path}' END END`)
  const amount = (path: string) => sql`coalesce(${inRecord(path, "integer", "real")}, 0)`
  // An id is sb_<host>_<26 characters>.
  yield* sql`UPDATE sandboxes SET
    host = substr(id, 4, length(id) - 30),
    backend = coalesce(${inRecord("$.backend", "text")}, ''),
    expires_at = ${inRecord("$.expiresAt", "integer", "real")},
    expiry_action = ${inRecord("$.spec.ttl.action", "text")},
    memory_bytes = ${amount("$.spec.limits.memoryBytes")},
    cpus = ${amount("$.spec.limits.cpus")},
    pids = ${amount("$.spec.limits.pids")},
    disk_bytes = ${amount("$.spec.limits.diskBytes")}`
  yield* sql`DROP INDEX sandboxes_order`
  yield* sql`CREATE INDEX sandboxes_order ON sandboxes (owner, created_at, id, status)`
  yield* sql`CREATE INDEX sandboxes_living ON sandboxes (owner, created_at, id, status)
    WHERE status <> 'killed'`
  yield* sql`CREATE INDEX sandboxes_usage
    ON sandboxes (owner, memory_bytes, cpus, pids, disk_bytes, expiry_action, expires_at)
    WHERE status <> 'killed'`
})

/** All steps, by number and name. */
export const migrations = {
  "1_create_sandboxes": createSandboxes,
  "2_create_keys": createKeys,
  "3_create_audit": createAudit,
  "4_spread_records": spreadRecords
}

/** The number of the newest step. */
export const newest = Math.max(...Object.keys(migrations).map((name) => Number.parseInt(name, 10)))
