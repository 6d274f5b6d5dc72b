import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Context, Effect, Fiber, FileSystem, Latch, Layer, Logger, Schema, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { ChildProcess } from "effect/process"
import { Migrator, SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { KeyId } from "../../../src/domain/Access.ts"
import { PolicyDenied } from "../../../src/domain/Errors.ts"
import { IdempotencyKey, Owner } from "../../../src/domain/Ids.ts"
import { resolveSpec, SandboxInfo } from "../../../src/domain/Sandbox.ts"
import { Status } from "../../../src/domain/Status.ts"
import * as DirectoryInstance from "../../../src/layers/instance/DirectoryInstance.ts"
import * as MemorySandboxStore from "../../../src/layers/memory/MemorySandboxStore.ts"
import * as Database from "../../../src/layers/sql/Database.ts"
import { migrations } from "../../../src/layers/sql/migrations.ts"
import * as SqliteClient from "../../../src/layers/sql/SqliteClient.ts"
import * as SqlKeyStore from "../../../src/layers/sql/SqlKeyStore.ts"
import * as SqlSandboxStore from "../../../src/layers/sql/SqlSandboxStore.ts"
import { infoOf } from "../../../src/services/actor/Requests.ts"
import { StoreProbe } from "../../../src/services/Health.ts"
import { KeyStore } from "../../../src/services/Keys.ts"
import { SandboxStore } from "../../../src/services/SandboxStore.ts"
import { alice, bob, idOf, recordOf, sandboxStoreSuite, withoutUndefined } from "../sandboxStoreSuite.ts"

const client = SqliteClient.layer({ filename: ":memory:" })
const layer = Layer.provide(SqlSandboxStore.layer, client)

sandboxStoreSuite("sqlite", layer)

describe("sqlite", () => {
  const instance = (stateDir: string) =>
    SqlSandboxStore.layerInstance.pipe(
      Layer.provide(DirectoryInstance.layer({ stateDir })),
      Layer.provide(SecureRandom.layerWebCrypto)
    )

  it.effect("keeps all of it from one start of an instance to the next", () =>
    Effect.gen(function* () {
      const stateDir = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped({
        prefix: "fiberbox-store-"
      })
      const start = <A, E>(body: (store: SandboxStore["Service"]) => Effect.Effect<A, E>) =>
        SandboxStore.use(body).pipe(Effect.provide(instance(stateDir), { local: true }))
      yield* start((store) => store.create(recordOf(0)))
      yield* start((store) => store.save(recordOf(0, { status: "running" }), [{ _tag: "Adopted" }]))
      const [record, events] = yield* start((store) =>
        Effect.all([store.get(idOf(0)), store.events(idOf(0), 0, 10)])
      )
      assert.strictEqual(record?.status, "running")
      assert.deepStrictEqual(
        events.map((event) => event.body._tag),
        ["Created", "Adopted"]
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("refuses changes once its file was removed, and the service is not ready", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const stateDir = yield* fs.makeTempDirectoryScoped({ prefix: "fiberbox-store-" })
      const ground = Database.layerInstance.pipe(
        Layer.provide(DirectoryInstance.layer({ stateDir })),
        Layer.provide(SecureRandom.layerWebCrypto)
      )
      yield* Effect.gen(function* () {
        const store = yield* SandboxStore
        const probe = yield* StoreProbe
        yield* store.create(recordOf(0))
        yield* probe
        yield* fs.remove(`${stateDir}/store.db`)
        for (const change of [store.save(recordOf(0, { restarts: 1 }), []), store.create(recordOf(1))]) {
          const error = yield* Effect.flip<unknown, unknown, never>(change)
          assert.deepInclude(error, { _tag: "BackendFailed", outcome: "not-started" })
        }
        assert.match((yield* Effect.flip(probe)).message, /store\.db was removed/)
        assert.strictEqual((yield* store.get(idOf(0)))?.restarts, 0)
      }).pipe(
        Effect.provide(Layer.provideMerge(Layer.merge(SqlSandboxStore.layer, Database.probe), ground)),
        Effect.provide(Logger.layer([]))
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect(
    "changes nothing when the disk is full, and says that it did not and of what there is no more",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* SandboxStore
        yield* store.create(recordOf(0))
        const [{ page_count: pages }] = yield* Effect.flatMap(
          sql`PRAGMA page_count`,
          Schema.decodeUnknownEffect(Schema.Tuple([Schema.Struct({ page_count: Schema.Int })]))
        )
        yield* sql.unsafe(`PRAGMA max_page_count = ${pages}`)
        const large = recordOf(0, { spec: resolveSpec({ env: { A: "x".repeat(100_000) } }), restarts: 1 })
        const error = yield* Effect.flip(store.save(large, [{ _tag: "Updated" }]))
        assert.deepInclude(error, { _tag: "ResourceExhausted", resource: "store", outcome: "not-started" })
        assert.strictEqual((yield* store.get(idOf(0)))?.restarts, 0)
        assert.strictEqual((yield* store.events(idOf(0), 0, 10)).length, 1)
      }).pipe(Effect.provide(Layer.provideMerge(layer, client)))
  )

  it.effect("gives a failed stand-in for a record that cannot be read, which can only be killed", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SandboxStore
      const spec = resolveSpec({ limits: { memoryBytes: 5000 } })
      yield* store.create(recordOf(0, { status: "running", slug: "web", spec }))
      yield* store.create(recordOf(1))
      for (const broken of ['{"id":"sb"}', "not even JSON"]) {
        yield* sql`UPDATE sandboxes SET record = ${broken} WHERE id = ${idOf(0)}`
        const alive = yield* store.alive
        assert.deepStrictEqual(
          alive.map(({ id, status }) => [id, status]),
          [
            [idOf(0), "failed"],
            [idOf(1), "provisioning"]
          ]
        )
        assert.deepStrictEqual((yield* store.list(alice, {})).records, alive)
        assert.deepStrictEqual((yield* store.list(alice, { labels: { a: "b" } })).records, [])
        assert.strictEqual((yield* store.find(alice, "web"))?.id, idOf(0))
        yield* store
          .create(recordOf(2), ({ owner }) => {
            assert.deepInclude(owner, {
              sandboxes: 2,
              memoryBytes: 5000 + resolveSpec({}).limits.memoryBytes
            })
            return new PolicyDenied({ policy: "quota", reason: "only to look" })
          })
          .pipe(Effect.flip)
        const [standIn] = alive
        if (standIn === undefined) return assert.fail("no stand-in")
        const refused = yield* Effect.flip(store.save({ ...standIn, status: "provisioning" }, []))
        assert.strictEqual(refused._tag, "BackendFailed")
        assert.deepStrictEqual(yield* sql`SELECT record FROM sandboxes WHERE id = ${idOf(0)}`, [
          { record: broken }
        ])
      }
      // What stands beside the record may be damaged as well; it is told all the same.
      yield* sql`UPDATE sandboxes SET memory_bytes = 0, cpus = -1 WHERE id = ${idOf(0)}`
      const [standIn] = yield* store.alive
      if (standIn === undefined) return assert.fail("no stand-in")
      yield* Schema.encodeEffect(SandboxInfo)(infoOf(standIn))
      yield* store.save({ ...standIn, status: "killed", killedAt: 5 }, [])
      assert.deepStrictEqual([...(yield* store.known([idOf(0)])).values()], [{ killedAt: 5 }])
    }).pipe(Effect.provide(Layer.provideMerge(SqlSandboxStore.layer, client)))
  )

  it.effect("finds a sandbox again whose record is sound and what stands beside it is damaged", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SandboxStore
      yield* store.create(recordOf(0, { status: "running", slug: "web" }))
      yield* store.create(recordOf(1))
      const before = yield* store.list(alice, {})
      for (const damage of [
        sql`status = 'runnin'`,
        sql`owner = 'nobody'`,
        sql`owner = ''`,
        sql`slug = 'x'`
      ]) {
        yield* sql`UPDATE sandboxes SET ${damage} WHERE id = ${idOf(0)}`
        assert.deepStrictEqual((yield* store.known([idOf(0)])).size, 1)
        assert.strictEqual((yield* store.alive).length, 2)
        assert.deepStrictEqual(yield* store.list(alice, {}), before)
        assert.strictEqual((yield* store.find(alice, "web"))?.id, idOf(0))
        assert.deepStrictEqual(
          [...(yield* store.count)],
          [
            ["provisioning", 1],
            ["running", 1]
          ]
        )
      }
    }).pipe(Effect.provide(Layer.provideMerge(SqlSandboxStore.layer, client)))
  )

  it.effect("does not know a sandbox of which nothing can be read, and lets its remains be adopted", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SandboxStore
      yield* store.create(recordOf(1))
      for (const damage of [sql`status = 'runnin'`, sql`owner = ''`]) {
        yield* store.create(recordOf(0, { status: "running" }))
        yield* sql`UPDATE sandboxes SET record = '{', ${damage} WHERE id = ${idOf(0)}`
        assert.deepStrictEqual([...(yield* store.known([idOf(0), idOf(1)])).keys()], [idOf(1)])
        assert.deepStrictEqual(
          (yield* store.alive).map(({ id }) => id),
          [idOf(1)]
        )
        const { existed, record } = yield* store.create(recordOf(0, { status: "stopped" }))
        assert.deepStrictEqual([existed, record.status], [false, "stopped"])
        assert.strictEqual((yield* store.get(idOf(0)))?.status, "stopped")
        yield* sql`DELETE FROM sandboxes WHERE id = ${idOf(0)}`
      }
    }).pipe(Effect.provide(Layer.provideMerge(SqlSandboxStore.layer, client)))
  )

  /** A database as the version before the columns left it, with whatever records. */
  const older = (records: ReadonlyArray<readonly [n: number, record: string]>) =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const steps = Object.entries(migrations).slice(0, 3)
      yield* Migrator.make({})({
        loader: Migrator.fromRecord(Object.fromEntries(steps)),
        table: "migrations"
      })
      for (const [n, record] of records) {
        const row = { id: idOf(n), owner: alice, slug: `slug-${n}`, status: "running", created_at: n, record }
        yield* sql`INSERT INTO sandboxes ${sql.insert(row)}`
      }
    })

  it.effect(
    "takes over an older store, its columns filled from the records, also beside an unreadable one",
    () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const ttl = { afterMillis: 50, action: "kill" } as const
        const spec = resolveSpec({ limits: { memoryBytes: 77, cpus: 1.5, diskBytes: 88 }, ttl })
        const good = recordOf(0, { spec, expiresAt: 123.5, status: "running" })
        yield* older([
          [0, JSON.stringify(good)],
          [1, "no JSON"],
          [2, '{"expiresAt":"soon","spec":{"limits":{"cpus":[]}}}']
        ])
        const context = yield* Layer.build(SqlSandboxStore.layer)
        const store = Context.get(context, SandboxStore)
        assert.deepEqual(withoutUndefined(yield* store.get(idOf(0))), withoutUndefined(good))
        assert.deepStrictEqual(
          yield* sql`SELECT host, backend, expires_at, expiry_action, memory_bytes, cpus, pids, disk_bytes
          FROM sandboxes ORDER BY id`,
          [
            {
              host: "test",
              backend: "memory",
              expires_at: 123.5,
              expiry_action: "kill",
              memory_bytes: 77,
              cpus: 1.5,
              pids: spec.limits.pids,
              disk_bytes: 88
            },
            ...[1, 2].map(() => ({
              host: "test",
              backend: "",
              expires_at: null,
              expiry_action: null,
              memory_bytes: 0,
              cpus: 0,
              pids: 0,
              disk_bytes: 0
            }))
          ]
        )
        assert.deepStrictEqual(
          (yield* store.alive).map(({ status }) => status),
          ["running", "failed", "failed"]
        )
      }).pipe(Effect.scoped, Effect.provide(client))
  )

  it.effect("refuses a store of a later version with both versions, and changes nothing", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* older([[0, "whatever"]])
      yield* sql`INSERT INTO migrations (migration_id, name) VALUES (99, 'to_come')`
      const schema = yield* sql`SELECT name, sql FROM sqlite_schema`
      const refused = yield* Effect.flip(Layer.build(SqlSandboxStore.layer))
      assert.deepInclude(refused, { _tag: "InvalidArgument", field: "stateDir", isRetryable: false })
      assert.match(refused.message, /step 99 \(to_come\).* up to 4/)
      assert.deepStrictEqual(yield* sql`SELECT name, sql FROM sqlite_schema`, schema)
    }).pipe(Effect.scoped, Effect.provide(client))
  )

  it.effect("refuses a damaged file with what to do about it, and leaves it as it is", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const stateDir = yield* fs.makeTempDirectoryScoped({ prefix: "fiberbox-store-" })
      const text = "not a database, by far not a database".repeat(100)
      yield* fs.writeFileString(`${stateDir}/store.db`, text)
      const refused = yield* Effect.flip(Layer.build(instance(stateDir)))
      assert.deepInclude(refused, { _tag: "InvalidArgument", field: "stateDir" })
      assert.match(refused.message, /damaged .*fiberbox remains/)
      assert.strictEqual(yield* fs.readFileString(`${stateDir}/store.db`), text)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})

describe("a store that does not answer", () => {
  const persistent = Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const stateDir = yield* fs.makeTempDirectoryScoped({ prefix: "fiberbox-store-" })
    const layer = SqlSandboxStore.layerInstance.pipe(
      Layer.provide(DirectoryInstance.layer({ stateDir })),
      Layer.provide(SecureRandom.layerWebCrypto)
    )
    return { stateDir, store: Context.get(yield* Layer.build(layer), SandboxStore) }
  })

  /** Holds the database as a copying program does, until the scope closes. */
  const held = Effect.fnUntraced(function* (stateDir: string) {
    const program = fileURLToPath(new URL("./holder.ts", import.meta.url))
    const holder = yield* ChildProcess.make(process.execPath, [program, `${stateDir}/store.db`], {
      stderr: "inherit"
    })
    yield* holder.stdout.pipe(Stream.take(1), Stream.runDrain)
  })

  const turn = Effect.callback<void>((resume) => {
    setImmediate(() => resume(Effect.void))
  })

  it.live("because another process holds it, holds up its callers only, and tells them to try again", () =>
    Effect.gen(function* () {
      const { stateDir, store } = yield* persistent
      yield* store.create(recordOf(0))
      const refused = yield* Effect.gen(function* () {
        yield* held(stateDir)
        const saving = yield* Effect.forkChild(Effect.flip(store.save(recordOf(0, { restarts: 1 }), [])))
        // Before it has given up, the program goes through any number of turns.
        for (let n = 0; n < 200; n++) yield* turn
        assert.isUndefined(saving.pollUnsafe())
        return yield* Fiber.join(saving)
      }).pipe(Effect.scoped)
      assert.deepInclude(refused, { _tag: "BackendFailed", outcome: "not-started", isRetryable: true })
      yield* store.save(recordOf(0, { restarts: 2 }), [])
      assert.strictEqual((yield* store.get(idOf(0)))?.restarts, 2)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.effect("for whatever reason is given up after five seconds, and nothing was changed", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SandboxStore
      const holder = yield* Effect.forkChild(sql.withTransaction(Effect.never))
      yield* Effect.yieldNow
      const asked = yield* Effect.forkChild(
        Effect.all([Effect.flip(store.create(recordOf(0))), Effect.flip(store.alive)], {
          concurrency: "unbounded"
        })
      )
      yield* TestClock.adjust(5_000)
      for (const error of yield* Fiber.join(asked)) {
        assert.deepInclude(error, { _tag: "BackendFailed", outcome: "not-started", isRetryable: true })
      }
      yield* Fiber.interrupt(holder)
      assert.deepStrictEqual(yield* store.alive, [])
    }).pipe(Effect.provide(Layer.provideMerge(layer, client)))
  )

  /** A store whose commits are answered only while `disk` is open. */
  const slowStore = Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const disk = yield* Latch.make(true)
    const slow = new Proxy(sql, {
      get: (target, name) =>
        name === "withTransaction"
          ? <A, E, R>(self: Effect.Effect<A, E, R>) =>
              Effect.uninterruptible(Effect.tap(sql.withTransaction(self), disk.await))
          : Reflect.get(target, name)
    })
    const parts = yield* Layer.build(
      Layer.provide(
        Layer.merge(SqlSandboxStore.layer, SqlKeyStore.layer),
        Layer.succeed(SqlClient.SqlClient, slow)
      )
    )
    return { disk, store: Context.get(parts, SandboxStore), keys: Context.get(parts, KeyStore) }
  })
  const givenUp = <A, E extends { readonly outcome: string }>(change: Effect.Effect<A, E>) =>
    Effect.gen(function* () {
      const changing = yield* Effect.forkChild(Effect.flip(change), { startImmediately: true })
      yield* Effect.yieldNow
      yield* TestClock.adjust(5_000)
      assert.strictEqual((yield* Fiber.join(changing)).outcome, "unknown")
    })

  it.effect("in the last step of a creation does not keep what nobody knows of", () =>
    Effect.gen(function* () {
      const { disk, store } = yield* slowStore
      yield* disk.close
      yield* givenUp(store.create(recordOf(0)))
      yield* disk.open
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* store.alive, [])
    }).pipe(Effect.scoped, Effect.provide(client))
  )

  it.effect("in the last step of a creation keeps what was asked for again meanwhile", () =>
    Effect.gen(function* () {
      const { disk, store } = yield* slowStore
      const record = recordOf(0, { idempotencyKey: IdempotencyKey.make("again"), requestDigest: "same" })
      yield* disk.close
      yield* givenUp(store.create(record))
      const again = yield* Effect.forkChild(store.create({ ...record, id: idOf(1) }), {
        startImmediately: true
      })
      yield* disk.open
      const { existed, record: kept } = yield* Fiber.join(again)
      assert.deepStrictEqual([existed, kept.id], [true, idOf(0)])
      yield* Effect.yieldNow
      assert.deepStrictEqual(
        (yield* store.alive).map(({ id }) => id),
        [idOf(0)]
      )
    }).pipe(Effect.scoped, Effect.provide(client))
  )

  it.effect("in the last step of making a key keeps none whose token nobody has", () =>
    Effect.gen(function* () {
      const { disk, keys } = yield* slowStore
      const key = {
        id: KeyId.make("aaaaaaaaaa"),
        owner: Owner.make("alice"),
        scope: "read",
        label: "",
        createdAt: 0,
        hash: "0".repeat(64)
      } as const
      yield* disk.close
      yield* givenUp(keys.insert(key))
      yield* disk.open
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* keys.list, [])
    }).pipe(Effect.scoped, Effect.provide(client))
  )
})

/** One step of a random program on a store; few different values, so that they meet. */
const small = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
const Step = Schema.Union([
  Schema.TaggedStruct("create", {
    n: small(4),
    bob: Schema.Boolean,
    slug: small(2),
    key: Schema.optional(small(1)),
    digest: small(1),
    at: small(3),
    label: small(1)
  }),
  Schema.TaggedStruct("save", { n: small(4), status: Status, killedAt: small(5), events: small(2) }),
  Schema.TaggedStruct("find", { n: small(4), slug: Schema.optional(small(2)) }),
  Schema.TaggedStruct("list", {
    limit: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })),
    label: Schema.optional(small(1)),
    statuses: Schema.optional(Schema.Array(Status))
  }),
  Schema.TaggedStruct("purge", { before: small(5) })
])

type Store = SandboxStore["Service"]

const run = (
  store: Store,
  step: typeof Step.Type
): Effect.Effect<unknown, Effect.Error<ReturnType<Store["create"] | Store["list"]>>> => {
  switch (step._tag) {
    case "create":
      return store.create(
        recordOf(step.n, {
          owner: step.bob ? bob : alice,
          slug: `slug-${step.slug}`,
          createdAt: step.at,
          requestDigest: String(step.digest),
          idempotencyKey: step.key === undefined ? undefined : IdempotencyKey.make(`key-${step.key}`),
          spec: resolveSpec({ labels: { label: String(step.label) } })
        })
      )
    case "save":
      return Effect.flatMap(store.get(idOf(step.n)), (record) =>
        // The dead stay dead: the service never saves a killed one anew.
        record === undefined || record.status === "killed"
          ? Effect.void
          : store.save(
              {
                ...record,
                status: step.status,
                killedAt: step.status === "killed" ? step.killedAt : undefined
              },
              Array(step.events).fill({ _tag: "Updated" })
            )
      )
    case "find":
      return store.find(alice, step.slug === undefined ? idOf(step.n) : `slug-${step.slug}`)
    case "list":
      return allPages(store, step)
    case "purge":
      return store.purge(step.before)
  }
}

const allPages = Effect.fnUntraced(function* (
  store: Store,
  step: Extract<typeof Step.Type, { _tag: "list" }>
) {
  const { limit, statuses } = step
  const labels = step.label === undefined ? undefined : { label: String(step.label) }
  const pages: Array<unknown> = []
  let cursor: string | undefined
  do {
    const page = yield* store.list(alice, { limit, statuses, labels, cursor })
    pages.push(page)
    cursor = page.next
  } while (cursor !== undefined)
  return pages
})

it.effect.prop(
  "sqlite and memory answer every program of operations alike",
  { steps: Arbitrary.schema(Schema.Array(Step).check(Schema.isMaxLength(40))) },
  ({ steps }) =>
    Effect.gen(function* () {
      const memory = Context.get(yield* Layer.build(MemorySandboxStore.layer), SandboxStore)
      const sqlite = Context.get(yield* Layer.build(layer), SandboxStore)
      for (const step of steps) {
        const answer = (store: Store) =>
          run(store, step).pipe(
            // Reasons are for people: each store has its own words.
            Effect.mapError((error) => error._tag),
            Effect.result,
            Effect.map(withoutUndefined)
          )
        assert.deepEqual(yield* answer(sqlite), yield* answer(memory))
      }
      for (const n of [0, 1, 2, 3, 4]) {
        const events = (store: Store) => Effect.map(store.events(idOf(n), 0, 1000), withoutUndefined)
        assert.deepEqual(yield* events(sqlite), yield* events(memory))
      }
    }).pipe(Effect.scoped)
)
