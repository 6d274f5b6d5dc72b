import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, FileSystem, Layer, Logger, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { KeyId } from "../../src/domain/Access.ts"
import type { AuditEntry } from "../../src/domain/Audit.ts"
import { BackendFailed } from "../../src/domain/Errors.ts"
import { Owner } from "../../src/domain/Ids.ts"
import * as MemoryAuditStore from "../../src/layers/auth/MemoryAuditStore.ts"
import * as MemoryKeyStore from "../../src/layers/auth/MemoryKeyStore.ts"
import * as SqlAuditStore from "../../src/layers/sql/SqlAuditStore.ts"
import * as SqliteClient from "../../src/layers/sql/SqliteClient.ts"
import * as SqlKeyStore from "../../src/layers/sql/SqlKeyStore.ts"
import { Audit, AuditStore, auditKept, flushMillis } from "../../src/services/Audit.ts"
import { type KeyRecord, KeyStore } from "../../src/services/Keys.ts"

const alice = Owner.make("alice")
const stores = {
  memory: Layer.merge(MemoryKeyStore.layer, MemoryAuditStore.layer),
  sqlite: Layer.merge(SqlKeyStore.layer, SqlAuditStore.layer).pipe(
    Layer.provide(SqliteClient.layer({ filename: ":memory:" }))
  )
}

const key = (n: number, change: Partial<KeyRecord> = {}): KeyRecord => ({
  id: KeyId.make(String.fromCharCode(97 + n).repeat(10)),
  owner: alice,
  scope: "exec",
  label: `key ${n}`,
  createdAt: 1000 - n,
  hash: "0".repeat(64),
  ...change
})

const entry = (sequence: number): AuditEntry => ({
  sequence,
  at: sequence,
  durationMillis: 0.5,
  caller: "alice",
  owner: alice,
  operation: "RunProcess",
  outcome: "ok"
})

for (const [name, layer] of Object.entries(stores)) {
  const promise = <E>(text: string, body: Effect.Effect<void, E, KeyStore | AuditStore>) =>
    it.effect(text, () => Effect.provide(body, Layer.fresh(layer)))

  describe(`${name}: a store of keys`, () => {
    promise(
      "gives back what was put in, oldest first, and notes its use",
      Effect.gen(function* () {
        const store = yield* KeyStore
        yield* store.insert(key(0, { expiresAt: 5.5 }))
        yield* store.insert(key(1))
        yield* store.touch(key(0).id, 77)
        assert.deepStrictEqual(yield* store.get(key(0).id), key(0, { expiresAt: 5.5, lastUsedAt: 77 }))
        const listed = yield* store.list
        assert.sameMembers(
          listed.map(({ label }) => label),
          ["key 1", "key 0"]
        )
      })
    )

    promise(
      "forgets what was removed",
      Effect.gen(function* () {
        const store = yield* KeyStore
        yield* store.insert(key(0))
        assert.deepStrictEqual(
          [yield* store.remove(key(0).id), yield* store.remove(key(0).id)],
          [true, false]
        )
        assert.isUndefined(yield* store.get(key(0).id))
        yield* store.touch(key(0).id, 1)
        assert.deepStrictEqual(yield* store.list, [])
      })
    )
  })

  describe(`${name}: a store of the audit`, () => {
    promise(
      "gives entries back in pages, and keeps the newest",
      Effect.gen(function* () {
        const store = yield* AuditStore
        assert.strictEqual(yield* store.last, 0)
        yield* store.append([entry(1), entry(2), entry(3)])
        assert.deepStrictEqual(yield* store.read(1, 1), [entry(2)])
        assert.strictEqual(yield* store.last, 3)
      })
    )

    promise(
      "keeps an entry once that comes again because its first writing was not answered",
      Effect.gen(function* () {
        const store = yield* AuditStore
        yield* store.append([entry(1), entry(2)])
        yield* store.append([entry(1), entry(2), entry(3)])
        assert.deepStrictEqual(yield* store.read(0, 10), [entry(1), entry(2), entry(3)])
      })
    )
  })
}

describe("sqlite: a store of the audit", () => {
  it.effect("drops the oldest beyond those it keeps", () =>
    Effect.gen(function* () {
      const store = yield* AuditStore
      yield* store.append([entry(1), entry(2)])
      yield* store.append([entry(auditKept + 1)])
      assert.deepStrictEqual(yield* store.read(0, 10), [entry(2), entry(auditKept + 1)])
    }).pipe(Effect.provide(stores.sqlite))
  )
})

describe("the audit", () => {
  const audit = Audit.layer.pipe(Layer.provideMerge(MemoryAuditStore.layer), Layer.fresh)
  const { sequence: _, ...body } = entry(1)

  it.effect("tells a follower what there was and what comes", () =>
    Effect.gen(function* () {
      const { record, follow } = yield* Audit
      record(body)
      const first = yield* Stream.runCollect(Stream.take(follow(), 1))
      record({ ...body, operation: "WriteFile" })
      record({ ...body, operation: "KillProcess" })
      const later = yield* Effect.forkChild(Stream.runCollect(Stream.take(follow({ after: 1 }), 3)))
      yield* TestClock.adjust(flushMillis)
      record({ ...body, operation: "ReadFile" })
      yield* TestClock.adjust(flushMillis)
      const told = [...first, ...(yield* Fiber.join(later))]
      assert.deepStrictEqual(
        told.map(({ sequence, operation }) => [sequence, operation]),
        [
          [1, "RunProcess"],
          [2, "WriteFile"],
          [3, "KillProcess"],
          [4, "ReadFile"]
        ]
      )
    }).pipe(Effect.provide(audit))
  )

  it.effect("goes on with its numbers where the last service ended, and loses nothing at an end", () =>
    Effect.gen(function* () {
      const store = yield* Layer.build(MemoryAuditStore.layer)
      const during = Effect.gen(function* () {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Layer.fresh(Audit.layer), scope)
        Context.get(context, Audit).record(body)
        yield* Scope.close(scope, Exit.void)
      }).pipe(Effect.provideContext(store))
      yield* during
      yield* during
      const { read } = Context.get(store, AuditStore)
      assert.deepStrictEqual(
        (yield* read(0, 10)).map(({ sequence }) => sequence),
        [1, 2]
      )
    })
  )

  it.effect("writes later, in order, what a full disk did not take; tries seldom, and says so once", () => {
    const errors: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Error") errors.push(String(message))
    })
    const kept: Array<number> = []
    let full = true
    let attempts = 0
    const broken = Layer.succeed(AuditStore, {
      append: (entries) =>
        full
          ? Effect.suspend(() => {
              attempts++
              return Effect.fail(
                new BackendFailed({
                  backend: "store",
                  operation: "write",
                  reason: "full",
                  outcome: "not-started"
                })
              )
            })
          : Effect.sync(() => void kept.push(...entries.map(({ sequence }) => sequence))),
      read: () => Effect.succeed([]),
      last: Effect.succeed(0)
    })
    return Effect.gen(function* () {
      const { record } = yield* Audit
      record(body)
      yield* TestClock.adjust("1 hour")
      assert.isBelow(attempts, 150)
      record(body)
      full = false
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(kept, [1, 2])
      assert.deepStrictEqual(errors, ["could not write the audit; trying again: store could not write: full"])
    }).pipe(Effect.provide(Layer.provide(Audit.layer, broken)), Effect.provide(Logger.layer([logger])))
  })

  it.effect("is in the database of its instance", () =>
    Effect.gen(function* () {
      const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped({ prefix: "fb-audit-" })
      const open = SqlAuditStore.layer.pipe(
        Layer.provide(SqliteClient.layer({ filename: `${directory}/store.db` }))
      )
      const using = <A, E>(body: (store: AuditStore["Service"]) => Effect.Effect<A, E>) =>
        AuditStore.use(body).pipe(Effect.provide(open, { local: true }))
      yield* using((store) => store.append([entry(1)]))
      assert.strictEqual(yield* using((store) => store.last), 1)
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
