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

/** All steps, by number and name. */
export const migrations = {
  "1_create_sandboxes": createSandboxes,
  "2_create_keys": createKeys,
  "3_create_audit": createAudit
}
