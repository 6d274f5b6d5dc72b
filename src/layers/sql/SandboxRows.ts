/**
 * Rows of sandboxes as records. One that cannot be read is that sandbox's
 * trouble alone: a stand-in takes its place, and the log names it once.
 */
import { Effect, Result, Schema } from "effect"
import type { SqlClient, Statement } from "effect/sql"
import { Generation, Owner, SandboxId } from "../../domain/Ids.ts"
import { Limits, resolveSpec, Timestamp } from "../../domain/Sandbox.ts"
import { Status } from "../../domain/Status.ts"
import { SandboxRecord } from "../../services/SandboxStore.ts"

const StoredRecord = Schema.fromJsonString(SandboxRecord)

/** The text of a record. */
export const encodeRecord = Schema.encodeEffect(StoredRecord)

const decodeRecord = Schema.decodeUnknownEffect(StoredRecord)

/** What stands beside a record. */
const Columns = Schema.Struct({
  id: SandboxId,
  owner: Owner,
  slug: Schema.String,
  status: Status,
  created_at: Timestamp,
  killed_at: Schema.NullOr(Timestamp),
  backend: Schema.String,
  memory_bytes: Schema.Finite,
  cpus: Schema.Finite,
  pids: Schema.Finite,
  disk_bytes: Schema.Finite
})
const decodeColumns = Schema.decodeUnknownEffect(Schema.Tuple([Columns]))

/** No image has this name, so nothing is ever started from a specification that was made up. */
const noImage = "unreadable"

const isLimits = Schema.is(Limits)

/** The limits that stand beside a record, or, should they be no limits, those of every sandbox. */
const limitsOf = ({ cpus, disk_bytes, memory_bytes, pids }: typeof Columns.Type): Limits => {
  const { limits } = resolveSpec({})
  const found = { ...limits, memoryBytes: memory_bytes, cpus, pids, diskBytes: disk_bytes }
  return isLimits(found) ? found : limits
}

const standIn = (columns: typeof Columns.Type): SandboxRecord => {
  const isKilled = columns.status === "killed"
  return {
    id: columns.id,
    owner: columns.owner,
    slug: columns.slug,
    status: isKilled ? "killed" : "failed",
    reason: isKilled
      ? undefined
      : "its record in the store cannot be read; what it has on disk is kept until it is killed",
    generation: Generation.make(1),
    backend: columns.backend,
    isolation: "none",
    detached: true,
    spec: { ...resolveSpec({ image: noImage }), limits: limitsOf(columns) },
    createdAt: columns.created_at,
    restarts: 0,
    requestDigest: "",
    killedAt: columns.killed_at ?? undefined,
    unreadable: true
  }
}

interface Row {
  readonly id: unknown
  readonly record: unknown
}

/** Reads records of a database. */
export const makeReader = (sql: SqlClient.SqlClient) => {
  /** Ids whose records were found to be unreadable, and said to be. */
  const told = new Set<unknown>()

  /** What there is instead of a record; nothing when even the columns are not what they should be. */
  const replaced = Effect.fnUntraced(function* (id: unknown, error: Schema.SchemaError) {
    const columns = yield* sql`SELECT id, owner, slug, status, created_at, killed_at, backend,
        memory_bytes, cpus, pids, disk_bytes FROM sandboxes WHERE id = ${id}`.pipe(
      Effect.flatMap(decodeColumns),
      Effect.result
    )
    if (!told.has(id)) {
      told.add(id)
      const what = Result.isSuccess(columns) ? "it can be killed" : "`fiberbox remains` shows it"
      yield* Effect.logError(
        `the record of the sandbox ${String(id)} cannot be read; its disk is kept, and ${what}: ${error.message}`
      )
    }
    return Result.isSuccess(columns) ? standIn(columns.success[0]) : undefined
  })

  /** The records for which a condition, and what may follow one, holds. */
  const records = Effect.fnUntraced(function* (where: Statement.Fragment) {
    const rows = yield* sql<Row>`SELECT id, record FROM sandboxes WHERE ${where}`
    const found: Array<SandboxRecord> = []
    for (const { id, record } of rows) {
      const decoded = yield* Effect.result(decodeRecord(record))
      const read = Result.isSuccess(decoded) ? decoded.success : yield* replaced(id, decoded.failure)
      if (read !== undefined) found.push(read)
    }
    return found
  })

  const one = (where: Statement.Fragment) => Effect.map(records(where), (found) => found[0])

  return { records, one }
}
