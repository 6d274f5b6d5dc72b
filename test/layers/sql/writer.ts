// Run by a test as a process of its own: writes rows for ever and says of each, once it is written, that it is.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { SqlClient } from "effect/sql"
import * as SqliteClient from "../../../src/layers/sql/SqliteClient.ts"

const [, , filename = ":memory:", thread] = process.argv

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT`
  for (let n = 1; ; n++) {
    yield* sql.withTransaction(sql`INSERT INTO numbers ${sql.insert({ n })}`)
    yield* Console.log(n)
  }
})

NodeRuntime.runMain(
  Effect.provide(program, SqliteClient.layer({ filename, thread: thread === "own" ? "own" : "callers" }))
)
