import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { TestClock } from "effect/testing"
import { Generation, IdempotencyKey, Owner, SandboxId, SandboxName } from "../../src/domain/Ids.ts"
import { resolveSpec } from "../../src/domain/Sandbox.ts"
import type { Usages } from "../../src/services/Quotas.ts"
import {
  eventsKept,
  lastEventsKept,
  type SandboxRecord,
  SandboxStore
} from "../../src/services/SandboxStore.ts"

export const alice = Owner.make("alice")
export const bob = Owner.make("bob")

/** The id of the n-th sandbox of a test, ordered as n is. */
export const idOf = (n: number): SandboxId =>
  SandboxId.make(`sb_test_${String.fromCharCode(97 + n).repeat(26)}`)

/** Ids of more sandboxes than {@link idOf} has letters for. */
const manyIds = (n: number): SandboxId =>
  SandboxId.make(`sb_test_${String.fromCharCode(97 + (n % 26), 97 + Math.floor(n / 26)).repeat(13)}`)

/** The record of the n-th sandbox of a test. */
export const recordOf = (n: number, change: Partial<SandboxRecord> = {}): SandboxRecord => ({
  id: idOf(n),
  owner: alice,
  slug: `slug-${n}`,
  status: "provisioning",
  generation: Generation.make(1),
  backend: "memory",
  isolation: "none",
  detached: false,
  spec: resolveSpec({}),
  createdAt: 1000 + n,
  restarts: 0,
  requestDigest: "digest",
  ...change
})

const labelled = (labels: Record<string, string>) => ({ spec: resolveSpec({ labels }) })
const ids = (records: ReadonlyArray<SandboxRecord>) => records.map((record) => record.id)

/** What every store of sandboxes promises. */
export const sandboxStoreSuite = <E>(name: string, layer: Layer.Layer<SandboxStore, E>): void => {
  const promise = <F>(text: string, body: (store: SandboxStore["Service"]) => Effect.Effect<void, F>) =>
    it.effect(text, () => SandboxStore.use(body).pipe(Effect.provide(layer)))

  describe(`${name}: a store of sandboxes`, () => {
    promise("gives back what was recorded, and nothing for what was not", (store) =>
      Effect.gen(function* () {
        const record = recordOf(0, {
          name: SandboxName.make("web"),
          slug: "web",
          detached: true,
          spec: resolveSpec({
            env: { "odd name": "čau\n" },
            labels: { team: "a" },
            ports: [80, 8080],
            startCommand: "serve",
            restartPolicy: { _tag: "Always", initialMillis: 1, factor: 2, maxMillis: 3.5 },
            ttl: { afterMillis: 5, action: "pause" },
            network: { allow: ["example.org"] }
          }),
          startedAt: 5.25,
          reason: "because"
        })
        yield* store.create(record)
        assert.deepEqual(withoutUndefined(yield* store.get(record.id)), withoutUndefined(record))
        assert.isUndefined(yield* store.get(idOf(1)))
      })
    )

    promise("begins a sandbox's events with its creation and numbers the rest after it", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0))
        yield* TestClock.setTime(7777)
        const running = recordOf(0, { status: "running", generation: Generation.make(2) })
        const written = yield* store.save(running, [
          { _tag: "StatusChanged", from: "provisioning", to: "running" },
          { _tag: "Updated" }
        ])
        const common = { sandboxId: idOf(0), generation: 2, at: 7777 }
        assert.deepEqual(written.map(withoutUndefined), [
          { ...common, sequence: 2, body: { _tag: "StatusChanged", from: "provisioning", to: "running" } },
          { ...common, sequence: 3, body: { _tag: "Updated" } }
        ])
        const kept = yield* store.events(idOf(0), 0, 10)
        assert.deepEqual(kept[0], {
          sandboxId: idOf(0),
          generation: Generation.make(1),
          sequence: 1,
          at: 1000,
          body: { _tag: "Created" }
        })
        assert.deepEqual(kept.slice(1).map(withoutUndefined), written.map(withoutUndefined))
        assert.strictEqual((yield* store.get(idOf(0)))?.status, "running")
      })
    )

    promise("gives events after a number, so many as asked for", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0))
        yield* store.save(recordOf(0), Array(4).fill({ _tag: "Updated" }))
        const sequences = (after: number, limit: number) =>
          Effect.map(store.events(idOf(0), after, limit), (events) => events.map((event) => event.sequence))
        assert.deepStrictEqual(yield* sequences(2, 2), [3, 4])
        assert.deepStrictEqual(yield* sequences(5, 2), [])
      })
    )

    promise("keeps the newest events and goes on counting", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0))
        yield* store.save(recordOf(0), Array(eventsKept + 10).fill({ _tag: "Updated" }))
        const [last] = yield* store.save(recordOf(0), [{ _tag: "Adopted" }])
        assert.strictEqual(last?.sequence, eventsKept + 12)
        const kept = yield* store.events(idOf(0), 0, 2 * eventsKept)
        assert.strictEqual(kept.length, eventsKept)
        assert.strictEqual(kept[0]?.sequence, 13)
      })
    )

    promise("makes no second sandbox under a key, not even once the first was killed", (store) =>
      Effect.gen(function* () {
        const idempotencyKey = IdempotencyKey.make("once")
        assert.isFalse((yield* store.create(recordOf(0, { idempotencyKey }))).existed)
        const repeat = yield* store.create(recordOf(1, { idempotencyKey }))
        assert.deepInclude(repeat, { existed: true })
        assert.strictEqual(repeat.record.id, idOf(0))
        yield* store.save(recordOf(0, { idempotencyKey, status: "killed", killedAt: 2000 }), [])
        assert.isTrue((yield* store.create(recordOf(1, { idempotencyKey }))).existed)
        assert.isUndefined(yield* store.get(idOf(1)))
      })
    )

    promise("refuses the same key with another content, and allows it to another owner", (store) =>
      Effect.gen(function* () {
        const idempotencyKey = IdempotencyKey.make("once")
        yield* store.create(recordOf(0, { idempotencyKey }))
        const other = recordOf(1, { idempotencyKey, requestDigest: "another" })
        assert.deepInclude(yield* Effect.flip(store.create(other)), {
          _tag: "Conflict",
          kind: "idempotency-key"
        })
        assert.isUndefined(yield* store.get(idOf(1)))
        assert.isFalse((yield* store.create({ ...other, owner: bob })).existed)
      })
    )

    promise("refuses a name in use, until the sandbox that has it is killed", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0, { slug: "web" }))
        const second = recordOf(1, { slug: "web" })
        const refused = yield* Effect.flip(store.create(second))
        assert.deepInclude(refused, { _tag: "Conflict", kind: "name", id: "web" })
        yield* store.create(recordOf(2, { slug: "web", owner: bob }))
        yield* store.save(recordOf(0, { slug: "web", status: "killed", killedAt: 2000 }), [])
        assert.isFalse((yield* store.create(second)).existed)
        assert.strictEqual((yield* store.find(alice, "web"))?.id, idOf(1))
      })
    )

    promise("lets one of many that want a name at once have it", (store) =>
      Effect.gen(function* () {
        const attempts = Array.from({ length: 20 }, (_, n) =>
          Effect.exit(store.create(recordOf(n, { slug: "web" })))
        )
        const exits = yield* Effect.all(attempts, { concurrency: "unbounded" })
        assert.strictEqual(exits.filter((exit) => exit._tag === "Success").length, 1)
        assert.strictEqual((yield* store.alive).length, 1)
      })
    )

    promise("finds by id and by name, its owner's only, and killed ones by id only", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0, { slug: "web" }))
        assert.strictEqual((yield* store.find(alice, "web"))?.id, idOf(0))
        assert.strictEqual((yield* store.find(alice, idOf(0)))?.id, idOf(0))
        assert.isUndefined(yield* store.find(bob, "web"))
        assert.isUndefined(yield* store.find(bob, idOf(0)))
        yield* store.save(recordOf(0, { slug: "web", status: "killed", killedAt: 2000 }), [])
        assert.isUndefined(yield* store.find(alice, "web"))
        assert.strictEqual((yield* store.find(alice, idOf(0)))?.status, "killed")
      })
    )

    promise("lists in order of creation, each sandbox once, page by page", (store) =>
      Effect.gen(function* () {
        // Three of them at one time: their ids decide.
        const times = [5, 3, 3, 3, 1, 2, 2.5]
        yield* Effect.forEach(times, (createdAt, n) => store.create(recordOf(n, { createdAt })))
        yield* store.create(recordOf(9, { owner: bob }))
        const seen: Array<SandboxId> = []
        let cursor: string | undefined
        do {
          const page = yield* store.list(alice, { limit: 2, cursor })
          assert.isAtMost(page.records.length, 2)
          seen.push(...ids(page.records))
          cursor = page.next
        } while (cursor !== undefined)
        assert.deepStrictEqual(seen, [4, 5, 6, 1, 2, 3, 0].map(idOf))
      })
    )

    promise("lists a MiB of records at most, and goes on behind them", (store) =>
      Effect.gen(function* () {
        const labels = Object.fromEntries(
          Array.from({ length: 64 }, (_, index) => [`label-${index}`, "x".repeat(256)])
        )
        const all = Array.from({ length: 100 }, (_, n) => manyIds(n))
        yield* Effect.forEach(all, (id, n) =>
          store.create(recordOf(0, { ...labelled(labels), id, slug: `many-${n}`, createdAt: n }))
        )
        const first = yield* store.list(alice, { limit: 1000 })
        assert.isAtMost(JSON.stringify(first.records).length, 1024 * 1024 + 100)
        assert.isAbove(first.records.length, 50)
        const second = yield* store.list(alice, { limit: 1000, cursor: first.next })
        assert.deepStrictEqual([...ids(first.records), ...ids(second.records)], all)
        assert.isUndefined(second.next)
      })
    )

    promise(
      "has no next page when the last one is just full, and a page misses nothing made meanwhile",
      (store) =>
        Effect.gen(function* () {
          yield* Effect.forEach([0, 1, 2, 3], (n) => store.create(recordOf(n)))
          const first = yield* store.list(alice, { limit: 2 })
          yield* store.save(recordOf(1, { status: "killed", killedAt: 9 }), [])
          yield* store.create(recordOf(4))
          const second = yield* store.list(alice, { limit: 3, cursor: first.next })
          assert.deepStrictEqual(ids(second.records), [2, 3, 4].map(idOf))
          assert.isUndefined(second.next)
        })
    )

    promise("refuses a cursor that is none, and never takes it for the first page", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0))
        for (const cursor of ["", "nonsense", "e30", "!"]) {
          const refused = yield* Effect.flip(store.list(alice, { cursor }))
          assert.deepInclude(refused, { _tag: "InvalidArgument", field: "cursor", isRetryable: false })
        }
      })
    )

    promise("lists by labels, all of which must match whole", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0, labelled({ team: "a", tier: "1" })))
        yield* store.create(recordOf(1, labelled({ team: "a" })))
        yield* store.create(recordOf(2, labelled({ 'o"dd.$[0]': "%", team: "ab" })))
        const by = (labels: Record<string, string>) =>
          Effect.map(store.list(alice, { labels }), (page) => ids(page.records))
        assert.deepStrictEqual(yield* by({ team: "a" }), [0, 1].map(idOf))
        assert.deepStrictEqual(yield* by({ team: "a", tier: "1" }), [idOf(0)])
        assert.deepStrictEqual(yield* by({ tier: "a" }), [])
        assert.deepStrictEqual(yield* by({ 'o"dd.$[0]': "%" }), [idOf(2)])
        assert.deepStrictEqual(yield* by({}), [0, 1, 2].map(idOf))
      })
    )

    promise("lists by status, and killed ones only when asked for them", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0, { status: "running" }))
        yield* store.create(recordOf(1, { status: "paused" }))
        yield* store.create(recordOf(2))
        yield* store.save(recordOf(2, { status: "killed", killedAt: 1 }), [])
        const by = (request: Parameters<typeof store.list>[1]) =>
          Effect.map(store.list(alice, request), (page) => ids(page.records))
        assert.deepStrictEqual(yield* by({}), [0, 1].map(idOf))
        assert.deepStrictEqual(yield* by({ statuses: ["killed"] }), [idOf(2)])
        assert.deepStrictEqual(yield* by({ statuses: ["paused", "killed"] }), [1, 2].map(idOf))
        assert.deepStrictEqual(yield* by({ statuses: [] }), [])
        assert.deepStrictEqual(ids(yield* store.alive), [0, 1].map(idOf))
      })
    )

    promise("forgets what was killed before a time, with its events, and nothing else", (store) =>
      Effect.gen(function* () {
        yield* Effect.forEach([0, 1, 2], (n) => store.create(recordOf(n)))
        yield* store.save(recordOf(0, { status: "killed", killedAt: 100 }), [])
        yield* store.save(recordOf(1, { status: "killed", killedAt: 200 }), [])
        assert.strictEqual(yield* store.purge(200), 1)
        assert.isUndefined(yield* store.get(idOf(0)))
        assert.deepStrictEqual(yield* store.events(idOf(0), 0, 10), [])
        assert.strictEqual((yield* store.get(idOf(1)))?.status, "killed")
        assert.strictEqual((yield* store.events(idOf(2), 0, 10)).length, 1)
        assert.strictEqual(yield* store.purge(200), 0)
      })
    )

    promise("forgets nobody who is excepted, however long killed", (store) =>
      Effect.gen(function* () {
        yield* Effect.forEach([0, 1], (n) => store.create(recordOf(n)))
        yield* store.save(recordOf(0, { status: "killed", killedAt: 100 }), [])
        yield* store.save(recordOf(1, { status: "killed", killedAt: 100 }), [])
        assert.strictEqual(yield* store.purge(200, [idOf(0)]), 1)
        assert.deepStrictEqual([...(yield* store.known([0, 1].map(idOf)))], [[idOf(0), { killedAt: 100 }]])
      })
    )

    promise("forgets more killed ones than one step takes", (store) =>
      Effect.gen(function* () {
        const killed = (n: number) => ({ id: manyIds(n), slug: `slug-${n}` })
        const numbers = Array.from({ length: 350 }, (_, n) => n)
        yield* Effect.forEach(numbers, (n) => store.create(recordOf(0, killed(n))))
        yield* Effect.forEach(numbers, (n) =>
          store.save(recordOf(0, { ...killed(n), status: "killed", killedAt: n }), [])
        )
        assert.strictEqual(yield* store.purge(300), 300)
        assert.strictEqual((yield* store.known(numbers.map(manyIds))).size, 50)
      })
    )

    promise("keeps the last events only of one that is killed", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0))
        yield* store.save(recordOf(0), Array(200).fill({ _tag: "Updated" }))
        yield* store.save(recordOf(0, { status: "killed", killedAt: 5 }), [
          { _tag: "StatusChanged", from: "provisioning", to: "killed" }
        ])
        const kept = yield* store.events(idOf(0), 0, 1000)
        assert.strictEqual(kept.length, lastEventsKept)
        assert.strictEqual(kept.at(-1)?.body._tag, "StatusChanged")
        assert.strictEqual(kept.at(-1)?.sequence, 202)
      })
    )

    promise("knows who is recorded, and since when the killed are", (store) =>
      Effect.gen(function* () {
        yield* Effect.forEach([0, 1], (n) => store.create(recordOf(n)))
        yield* store.save(recordOf(1, { status: "killed", killedAt: 7 }), [])
        const known = yield* store.known([0, 1, 2].map(idOf))
        assert.deepStrictEqual(
          new Map(known),
          new Map([
            [idOf(0), { killedAt: undefined }],
            [idOf(1), { killedAt: 7 }]
          ])
        )
      })
    )

    promise("counts by status, the killed not", (store) =>
      Effect.gen(function* () {
        yield* store.create(recordOf(0, { status: "running" }))
        yield* store.create(recordOf(1, { status: "running", owner: bob }))
        yield* store.create(recordOf(2, { status: "paused" }))
        yield* store.create(recordOf(3))
        yield* store.save(recordOf(3, { status: "killed", killedAt: 1 }), [])
        assert.deepStrictEqual(
          new Map(yield* store.count),
          new Map([
            ["running", 2],
            ["paused", 1]
          ])
        )
      })
    )

    promise("tells a creation what its owner and all others have taken, not counting the killed", (store) =>
      Effect.gen(function* () {
        const limited = (memoryBytes: number, afterMillis: number) => ({
          spec: resolveSpec({ limits: { memoryBytes, cpus: 0.5 }, ttl: { afterMillis, action: "kill" } }),
          expiresAt: afterMillis
        })
        yield* store.create(recordOf(0, limited(10, 500)))
        yield* store.create(recordOf(1, { ...limited(20, 300), owner: bob }))
        yield* store.create(recordOf(2, limited(40, 100)))
        yield* store.save(recordOf(2, { ...limited(40, 100), status: "killed", killedAt: 1 }), [])
        const seen: Array<Usages> = []
        yield* store.create(recordOf(3), (usages) => {
          seen.push(usages)
          return undefined
        })
        const [usages] = seen
        assert.deepInclude(usages?.owner, { sandboxes: 1, memoryBytes: 10, cpus: 0.5, freesAt: 500 })
        assert.deepInclude(usages?.service, { sandboxes: 2, memoryBytes: 30, cpus: 1, freesAt: 300 })
      })
    )

    promise("refuses to save what was never created, and to create an id twice", (store) =>
      Effect.gen(function* () {
        const unknown = yield* Effect.flip(store.save(recordOf(0), [{ _tag: "Updated" }]))
        assert.deepInclude(unknown, { _tag: "BackendFailed", operation: "save", outcome: "not-started" })
        assert.deepStrictEqual(yield* store.events(idOf(0), 0, 10), [])
        yield* store.create(recordOf(0))
        const twice = yield* Effect.flip(store.create(recordOf(0, { slug: "other" })))
        assert.deepInclude(twice, { _tag: "BackendFailed", operation: "create" })
        assert.strictEqual((yield* store.get(idOf(0)))?.slug, "slug-0")
      })
    )
  })
}

/** Some stores keep a field that is undefined, some leave it out: it means the same. */
export const withoutUndefined = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null))
