import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Context, Effect, FileSystem, Layer, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlClient } from "effect/sql"
import { IdempotencyKey } from "../../../src/domain/Ids.ts"
import { resolveSpec } from "../../../src/domain/Sandbox.ts"
import { Status } from "../../../src/domain/Status.ts"
import * as DirectoryInstance from "../../../src/layers/instance/DirectoryInstance.ts"
import * as MemorySandboxStore from "../../../src/layers/memory/MemorySandboxStore.ts"
import * as SqliteClient from "../../../src/layers/sql/SqliteClient.ts"
import * as SqlSandboxStore from "../../../src/layers/sql/SqlSandboxStore.ts"
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

  it.effect("changes nothing when the disk is full, and says that it did not", () =>
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
      assert.deepInclude(error, { _tag: "BackendFailed", operation: "save", outcome: "not-started" })
      assert.strictEqual((yield* store.get(idOf(0)))?.restarts, 0)
      assert.strictEqual((yield* store.events(idOf(0), 0, 10)).length, 1)
    }).pipe(Effect.provide(Layer.provideMerge(layer, client)))
  )

  it.effect("fails at an unreadable record instead of leaving it out", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SandboxStore
      yield* store.create(recordOf(0))
      yield* sql`UPDATE sandboxes SET record = '{"id":"sb"}'`
      assert.strictEqual((yield* Effect.flip(store.alive))._tag, "BackendFailed")
    }).pipe(Effect.provide(Layer.provideMerge(SqlSandboxStore.layer, client)))
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
): Effect.Effect<unknown, Effect.Error<ReturnType<Store["create"]>>> => {
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
