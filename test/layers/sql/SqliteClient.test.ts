import { DatabaseSync } from "node:sqlite"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, FileSystem, Logger, Path, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { SqlClient } from "effect/sql"
import * as SqliteClient from "../../../src/layers/sql/SqliteClient.ts"
import { isDiskFull, isMoved } from "../../../src/layers/sql/SqliteErrors.ts"

const temporaryFile = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  return path.join(yield* fs.makeTempDirectoryScoped({ prefix: "fiberbox-sql-" }), "test.db")
})

const withNumbers = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE numbers (n INTEGER PRIMARY KEY, label TEXT UNIQUE) STRICT`
  const insert = (n: number) => sql`INSERT INTO numbers ${sql.insert({ n })}`
  const all = Effect.map(sql<{ readonly n: number }>`SELECT n FROM numbers ORDER BY n`, (rows) =>
    rows.map((row) => row.n)
  )
  return { sql, insert, all }
})

describe.each(["callers", "own"] as const)("carried out in the thread of: %s", (thread) => {
  const memory = SqliteClient.layer({ thread, filename: ":memory:" })

  describe("values", () => {
    it.effect("come back as they went in: text, numbers, bytes, nulls, booleans as 0 and 1", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE kinds (a TEXT, b REAL, c INTEGER, d BLOB, e TEXT, f INTEGER) STRICT`
        const row = { a: "žluť", b: 0.1, c: -5, d: new Uint8Array([0, 255]), e: null, f: true }
        yield* sql`INSERT INTO kinds ${sql.insert(row)}`
        assert.deepStrictEqual(yield* sql`SELECT * FROM kinds`, [{ ...row, f: 1 }])
      }).pipe(Effect.provide(memory))
    )

    it.effect("an integer no number can hold is an error, and exact when asked for as a bigint", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const big = 9_007_199_254_740_993n
        const query = sql`SELECT ${big} AS n`
        assert.isTrue(Exit.isFailure(yield* Effect.exit(query)))
        const rows = yield* Effect.provideService(query, SqlClient.SafeIntegers, true)
        assert.deepStrictEqual(rows, [{ n: big }])
      }).pipe(Effect.provide(memory))
    )

    it.effect("columns of one name are all there when rows are asked for as values", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        assert.deepStrictEqual(yield* sql`SELECT 1 AS a, 2 AS a`.values, [[1, 2]])
        assert.deepStrictEqual(yield* sql`SELECT 1 AS a, 2 AS b`, [{ a: 1, b: 2 }])
      }).pipe(Effect.provide(memory))
    )

    it.effect("the raw result of a write counts its changes", () =>
      Effect.gen(function* () {
        const { sql, insert } = yield* withNumbers
        yield* insert(7)
        assert.deepStrictEqual(yield* sql`UPDATE numbers SET label = 'x'`.raw, {
          changes: 1,
          lastInsertRowid: 7
        })
      }).pipe(Effect.provide(memory))
    )

    it.effect("a stream gives every row of a result larger than one pull, and can be left early", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        yield* sql`WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 1000)
        INSERT INTO numbers (n) SELECT n FROM s`
        const rows = sql<{ readonly n: number }>`SELECT n FROM numbers ORDER BY n`.stream
        const numbers = yield* Stream.runCollect(Stream.map(rows, (row) => row.n))
        assert.deepStrictEqual(Array.from(numbers), yield* all)
        assert.strictEqual((yield* Stream.runCollect(Stream.take(rows, 3))).length, 3)
        yield* insert(1001)
        assert.strictEqual((yield* all).length, 1001)
      }).pipe(Effect.provide(memory))
    )

    it.effect("more statements than the cache holds all work", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const query = (n: number) => sql<{ readonly n: number }>`SELECT ${sql.literal(String(n))} AS n`
        const twice = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]
        const answers = yield* Effect.forEach(twice, query)
        assert.deepStrictEqual(
          answers.map((rows) => rows[0]?.n),
          twice
        )
      }).pipe(Effect.provide(SqliteClient.layer({ thread, filename: ":memory:", statementCacheSize: 3 })))
    )
  })

  describe("transactions", () => {
    it.effect("a failed one leaves nothing behind", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        const failed = yield* insert(1).pipe(
          Effect.andThen(Effect.fail("no")),
          sql.withTransaction,
          Effect.flip
        )
        assert.strictEqual(failed, "no")
        assert.deepStrictEqual(yield* all, [])
      }).pipe(Effect.provide(memory))
    )

    it.effect("a nested one that fails takes back its own part only", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        const inner = insert(2).pipe(
          Effect.andThen(sql.withTransaction(insert(3))),
          Effect.andThen(Effect.fail("no")),
          sql.withTransaction,
          Effect.ignore
        )
        yield* sql.withTransaction(Effect.all([insert(1), inner, insert(4)]))
        assert.deepStrictEqual(yield* all, [1, 4])
      }).pipe(Effect.provide(memory))
    )

    it.effect("nobody sees or disturbs one in progress", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        const begun = yield* Deferred.make<void>()
        const proceed = yield* Deferred.make<void>()
        const writer = yield* insert(1).pipe(
          Effect.andThen(Deferred.succeed(begun, undefined)),
          Effect.andThen(Deferred.await(proceed)),
          Effect.andThen(insert(2)),
          sql.withTransaction,
          Effect.forkChild
        )
        yield* Deferred.await(begun)
        const reader = yield* Effect.forkChild(all)
        const other = yield* Effect.forkChild(sql.withTransaction(insert(3)))
        yield* Effect.yieldNow
        assert.isUndefined(reader.pollUnsafe())
        yield* Deferred.succeed(proceed, undefined)
        assert.deepStrictEqual(yield* Fiber.join(reader), [1, 2])
        yield* Fiber.joinAll([writer, other])
        assert.deepStrictEqual(yield* all, [1, 2, 3])
      }).pipe(Effect.provide(memory))
    )

    it.effect("an interrupted one is rolled back and the database goes on", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        const begun = yield* Deferred.make<void>()
        const writer = yield* insert(1).pipe(
          Effect.andThen(Deferred.succeed(begun, undefined)),
          Effect.andThen(Effect.never),
          sql.withTransaction,
          Effect.forkChild
        )
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(writer)
        assert.deepStrictEqual(yield* all, [])
        yield* sql.withTransaction(insert(2))
        assert.deepStrictEqual(yield* all, [2])
      }).pipe(Effect.provide(memory))
    )

    it.effect("a hundred fibers that each read and then write lose no update", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        yield* insert(0)
        const increment = Effect.gen(function* () {
          const [n = -1] = yield* all
          yield* Effect.yieldNow
          yield* sql`UPDATE numbers SET n = ${n + 1}`
        }).pipe(sql.withTransaction)
        yield* Effect.all(
          Array.from({ length: 100 }, () => increment),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(yield* all, [100])
      }).pipe(Effect.provide(memory))
    )

    it.effect("one whose commit is refused is rolled back and the database goes on", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE parents (id INTEGER PRIMARY KEY) STRICT`
        yield* sql`CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED) STRICT`
        const orphan = sql.withTransaction(sql`INSERT INTO children ${sql.insert({ parent: 1 })}`)
        assert.strictEqual((yield* Effect.flip(orphan)).reason._tag, "ConstraintError")
        yield* sql.withTransaction(sql`INSERT INTO parents ${sql.insert({ id: 1 })}`)
        yield* orphan
        assert.strictEqual((yield* sql`SELECT * FROM children`).length, 1)
      }).pipe(Effect.provide(memory))
    )
  })

  describe("errors", () => {
    it.effect("a mistake in the SQL is a SqlSyntaxError, a second statement too", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const reason = (text: string) =>
          Effect.map(Effect.flip(sql.unsafe(text)), (error) => error.reason._tag)
        assert.strictEqual(yield* reason("SELEKT 1"), "SqlSyntaxError")
        assert.strictEqual(yield* reason("SELECT * FROM nowhere"), "SqlSyntaxError")
        assert.strictEqual(yield* reason("SELECT 1; SELECT 2"), "SqlSyntaxError")
        assert.deepStrictEqual(yield* sql.unsafe("SELECT 1 AS a; -- done\n/* really */"), [{ a: 1 }])
      }).pipe(Effect.provide(memory))
    )

    it.effect("a duplicate key, unique or primary, is a UniqueViolation that names it", () =>
      Effect.gen(function* () {
        const { sql, insert } = yield* withNumbers
        yield* sql`INSERT INTO numbers (n, label) VALUES (1, 'one')`
        const primary = (yield* Effect.flip(insert(1))).reason
        const unique = (yield* Effect.flip(sql`INSERT INTO numbers (n, label) VALUES (2, 'one')`)).reason
        assert.deepInclude(primary, { _tag: "UniqueViolation", constraint: "numbers.n" })
        assert.deepInclude(unique, { _tag: "UniqueViolation", constraint: "numbers.label" })
      }).pipe(Effect.provide(memory))
    )

    it.effect("a full disk is told apart, fails the transaction whole, and passes", () =>
      Effect.gen(function* () {
        const { sql, insert, all } = yield* withNumbers
        yield* sql`CREATE TABLE bytes (b BLOB) STRICT`
        yield* sql.unsafe("PRAGMA max_page_count = 20")
        const error = yield* insert(1).pipe(
          Effect.andThen(sql`INSERT INTO bytes ${sql.insert({ b: new Uint8Array(1_000_000) })}`),
          sql.withTransaction,
          Effect.flip
        )
        assert.isTrue(isDiskFull(error))
        assert.isFalse(error.isRetryable)
        assert.deepStrictEqual(yield* all, [])
        yield* insert(2)
        assert.deepStrictEqual(yield* all, [2])
      }).pipe(Effect.provide(memory))
    )

    it.effect("a value SQLite cannot hold is an error and not a crash", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const error = yield* Effect.flip(sql`SELECT ${{ some: "object" }}`)
        assert.match(error.message, /no value for a object/)
      }).pipe(Effect.provide(memory))
    )
  })

  describe("files", () => {
    it.effect("writing to a database opened for reading is an AuthorizationError", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        yield* Effect.provide(withNumbers, SqliteClient.layer({ thread, filename }))
        const error = yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          assert.deepStrictEqual(yield* sql`SELECT * FROM numbers`, [])
          return yield* Effect.flip(sql`INSERT INTO numbers (n) VALUES (1)`)
        }).pipe(Effect.provide(SqliteClient.layer({ thread, filename, readOnly: true })))
        assert.strictEqual(error.reason._tag, "AuthorizationError")
      }).pipe(Effect.provide(NodeServices.layer))
    )

    it.effect("a database that cannot be opened is a ConnectionError, and one that is none is an error", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const open = (name: string) =>
          Effect.flip(
            Effect.scoped(Effect.provide(withNumbers, SqliteClient.layer({ thread, filename: name })))
          )
        const missing = yield* open(`${filename}/nowhere`)
        assert.strictEqual(missing.reason._tag, "ConnectionError")
        yield* (yield* FileSystem.FileSystem).writeFileString(
          filename,
          "not a database, by far not a database"
        )
        assert.match((yield* open(filename)).message, /not a database/)
      }).pipe(Effect.provide(NodeServices.layer))
    )

    it.effect("another holder of the database is a LockTimeoutError, which may be retried", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const layer = SqliteClient.layer({ thread, filename, busyTimeout: 0 })
        const error = yield* Effect.gen(function* () {
          const { sql } = yield* withNumbers
          const other = Effect.gen(function* () {
            const second = yield* SqlClient.SqlClient
            return yield* Effect.flip(second`INSERT INTO numbers (n) VALUES (1)`)
          }).pipe(Effect.provide(layer, { local: true }))
          return yield* sql.withTransaction(other)
        }).pipe(Effect.provide(layer))
        assert.strictEqual(error.reason._tag, "LockTimeoutError")
        assert.isTrue(error.isRetryable)
      }).pipe(Effect.provide(NodeServices.layer))
    )

    it.effect(
      "one that waits for nothing takes back what failed all the same, with no journal beside it",
      () =>
        Effect.gen(function* () {
          const filename = yield* temporaryFile
          const fs = yield* FileSystem.FileSystem
          const path = yield* Path.Path
          yield* Effect.gen(function* () {
            const { sql, insert, all } = yield* withNumbers
            yield* insert(1)
            yield* insert(2).pipe(Effect.andThen(insert(1)), sql.withTransaction, Effect.flip)
            assert.deepStrictEqual(yield* all, [1])
            assert.deepStrictEqual(yield* sql`PRAGMA synchronous`, [{ synchronous: 0 }])
            assert.deepStrictEqual(yield* fs.readDirectory(path.dirname(filename)), [path.basename(filename)])
          }).pipe(Effect.provide(SqliteClient.layer({ thread, filename, synchronous: "off" })))
        }).pipe(Effect.provide(NodeServices.layer))
    )

    /** What is logged as an error. */
    const listened = Effect.sync(() => {
      const errors: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => {
        if (logLevel === "Error") errors.push(String(message))
      })
      return { errors, listening: Logger.layer([logger]) }
    })

    for (const suffix of ["", "-wal"]) {
      for (const harm of ["removed", "replaced"] as const) {
        it.effect(
          `no transaction begins once its file${suffix} was ${harm}, the log says so once, and it goes on when that is back`,
          () =>
            Effect.gen(function* () {
              const fs = yield* FileSystem.FileSystem
              const filename = yield* temporaryFile
              const file = `${filename}${suffix}`
              const aside = `${filename}.aside`
              const { errors, listening } = yield* listened
              yield* Effect.gen(function* () {
                const { sql, insert, all } = yield* withNumbers
                const write = (n: number) => sql.withTransaction(insert(n))
                yield* write(1)
                yield* fs.rename(file, aside)
                if (harm === "replaced") yield* fs.copyFile(aside, file)
                for (const n of [2, 3]) assert.isTrue(isMoved(yield* Effect.flip(write(n))))
                assert.deepStrictEqual(yield* all, [1])
                assert.deepStrictEqual(errors, [
                  `the store is written no more: ${file} was ${harm} while it was in use; put it back as it was, or start again`
                ])
                yield* fs.rename(aside, file)
                yield* write(4)
                assert.deepStrictEqual(yield* all, [1, 4])
                yield* fs.rename(file, aside)
                yield* Effect.flip(write(5))
                assert.strictEqual(errors.length, 2)
                yield* fs.rename(aside, file)
              }).pipe(Effect.provide(SqliteClient.layer({ thread, filename })), Effect.provide(listening))
            }).pipe(Effect.provide(NodeServices.layer))
        )
      }
    }

    it.effect("no transaction begins once its file was cut short, but where it was tidied up", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const filename = yield* temporaryFile
        const { errors, listening } = yield* listened
        yield* Effect.gen(function* () {
          const { sql, insert } = yield* withNumbers
          const write = (n: number) => sql.withTransaction(insert(n))
          const size = Effect.map(fs.stat(filename), (info) => Number(info.size))
          const intoFile = sql`PRAGMA wal_checkpoint(TRUNCATE)`
          yield* sql`CREATE TABLE bytes (b BLOB) STRICT`
          yield* sql`INSERT INTO bytes ${sql.insert({ b: new Uint8Array(100_000) })}`
          yield* intoFile
          yield* write(1)
          const large = yield* size
          yield* sql`DELETE FROM bytes`
          yield* sql`VACUUM`
          yield* intoFile
          assert.isBelow(yield* size, large)
          yield* write(2)
          yield* intoFile
          assert.deepStrictEqual(errors, [])
          yield* fs.truncate(filename, 4096)
          assert.isTrue(isMoved(yield* Effect.flip(write(3))))
          assert.match(errors.join(), /cut short/)
        }).pipe(Effect.provide(SqliteClient.layer({ thread, filename })), Effect.provide(listening))
      }).pipe(Effect.provide(NodeServices.layer))
    )

    for (const rest of [0, 4096, 8192]) {
      it.effect(
        `no transaction begins once only ${rest} bytes are left of a file that was smaller when it was last seen`,
        () =>
          Effect.gen(function* () {
            const fs = yield* FileSystem.FileSystem
            const filename = yield* temporaryFile
            const { errors, listening } = yield* listened
            yield* Effect.gen(function* () {
              const { sql, insert } = yield* withNumbers
              const write = Effect.flip(sql.withTransaction(insert(2)))
              for (let n = 0; n < 8; n++)
                yield* sql.withTransaction(sql.unsafe(`CREATE TABLE t${n} (b TEXT) STRICT`))
              // Somebody else brings the log into the file.
              const other = new DatabaseSync(filename)
              other.exec("PRAGMA wal_checkpoint(TRUNCATE)")
              other.close()
              yield* fs.truncate(filename, rest)
              assert.isTrue(isMoved(yield* write))
              assert.isTrue(isMoved(yield* write))
              assert.match(errors.join(), /was cut short/)
            }).pipe(Effect.provide(SqliteClient.layer({ thread, filename })), Effect.provide(listening))
          }).pipe(Effect.provide(NodeServices.layer))
      )
    }

    it.live("what was acknowledged is there after kill -9, without a gap", () =>
      Effect.gen(function* () {
        const filename = yield* temporaryFile
        const program = fileURLToPath(new URL("./writer.ts", import.meta.url))
        // With an option that no thread can have.
        const options = ["--expose-gc", program, filename, thread]
        const writer = yield* ChildProcess.make(process.execPath, options, {
          stderr: "inherit"
        })
        const lines = yield* writer.stdout.pipe(
          Stream.decodeText(),
          Stream.splitLines,
          Stream.tap((line) => (line === "200" ? writer.kill({ killSignal: "SIGKILL" }) : Effect.void)),
          Stream.runCollect
        )
        const acknowledged = Number(Array.from(lines).findLast((line) => line !== ""))
        assert.isAtLeast(acknowledged, 200)
        const kept = yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          return yield* sql<{ readonly n: number }>`SELECT n FROM numbers ORDER BY n`
        }).pipe(Effect.provide(SqliteClient.layer({ thread, filename })))
        assert.isAtLeast(kept.length, acknowledged)
        assert.deepStrictEqual(
          kept.map((row) => row.n),
          kept.map((_, index) => index + 1)
        )
      }).pipe(Effect.provide(NodeServices.layer))
    )
  })
})
