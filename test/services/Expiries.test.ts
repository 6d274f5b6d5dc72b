/**
 * Times to live and idle times, whatever the sandbox, the service and the clock do meanwhile.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { LeaseId } from "../../src/domain/Ids.ts"
import { history, inPlace, only, pass } from "./shaky.ts"

const hour = 3_600_000
const always = { _tag: "Always", initialMillis: 10_000, factor: 1, maxMillis: 10_000 } as const

describe("a time to live", () => {
  it.effect("of stop ends the restarts of a sandbox that has failed", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({
          ttl: { afterMillis: 5_000, action: "stop" },
          restartPolicy: always
        })
        yield* pass(3_000)
        yield* faults.killMachine(sandbox.id)
        yield* pass(3_000)
        const info = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([info.status, info.expiresAt], ["stopped", undefined])
        yield* pass(60_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "stopped")
        assert.strictEqual(place.tampering.asked.provision, 1)
      })
    )
  )

  it.effect("of pause is carried out when a sandbox that had failed runs again", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes, faults } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({
          ttl: { afterMillis: 5_000, action: "pause" },
          restartPolicy: always
        })
        yield* pass(3_000)
        yield* faults.killMachine(sandbox.id)
        yield* pass(3_000)
        const before = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([before.status, before.expiresAt], ["failed", before.createdAt + 5_000])
        yield* pass(10_000)
        const after = yield* sandboxes.get(sandbox.id)
        assert.deepStrictEqual([after.status, after.expiresAt], ["paused", undefined])
        assert.deepStrictEqual(place.logs, [])
      })
    )
  )

  for (const action of ["stop", "pause"] as const) {
    it.effect(
      `of ${action} is used up by a sandbox that is stopped already, and limits it no more when it starts`,
      () =>
        inPlace((place) =>
          Effect.gen(function* () {
            const { sandboxes } = yield* place.service
            const sandbox = yield* sandboxes.createDetached({ ttl: { afterMillis: 5_000, action } })
            yield* sandbox.stop()
            yield* pass(6_000)
            assert.isUndefined((yield* sandboxes.get(sandbox.id)).expiresAt)
            yield* sandbox.start
            yield* pass(hour, 60_000)
            assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "running")
            assert.strictEqual(only(yield* history(sandbox), "Expired").length, 1)
          })
        )
    )
  }

  it.effect("begins again only when it is set anew, once its action was carried out", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ ttl: { afterMillis: 5_000, action: "pause" } })
        yield* pass(6_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "paused")
        yield* sandbox.resume
        yield* pass(60_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "running")
        yield* sandbox.setExpiry({ ttl: { afterMillis: 5_000, action: "stop" } })
        yield* pass(6_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "stopped")
      })
    )
  )

  it.effect("passes within a second when the clock jumps an hour on", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ ttl: { afterMillis: hour, action: "kill" } })
        yield* pass(10_000)
        yield* place.shift(hour)
        yield* pass(1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "killed")
      })
    )
  )

  it.effect("follows the clock a day back, and passes on that day", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ ttl: { afterMillis: hour, action: "kill" } })
        yield* place.shift(-hour)
        yield* pass(hour + 1_000, 60_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "running")
        yield* pass(hour, 60_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "killed")
      })
    )
  )

  it.effect("that was set while its action is under way counts", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached({ ttl: { afterMillis: 5_000, action: "stop" } })
        yield* place.store.inject(
          "save",
          { _tag: "Delay", duration: "500 millis" },
          { when: ({ status }) => status === "stopping" }
        )
        yield* pass(5_100)
        yield* Effect.forkChild(sandbox.setExpiry({ ttl: { afterMillis: hour, action: "kill" } }))
        yield* pass(2_000)
        const info = yield* sandboxes.get(sandbox.id)
        assert.strictEqual(info.status, "stopped")
        assert.isAbove(info.expiresAt ?? 0, info.createdAt + hour)
      })
    )
  )
})

describe("the limit of a program", () => {
  it.effect("measures time that passes, and not the clock that jumps before its sandbox is paused", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached()
        yield* sandbox.process.start(["sleep", "100000"], { timeoutMillis: 30_000 })
        yield* pass(10_000, 1_000)
        yield* place.shift(-24 * hour)
        yield* sandbox.pause
        yield* pass(10_000, 1_000)
        yield* sandbox.resume
        const alive = Effect.map(sandbox.process.list, (list) =>
          list.filter(({ exit }) => exit === undefined)
        )
        yield* pass(19_000, 1_000)
        assert.lengthOf(yield* alive, 1)
        yield* pass(1_000, 1_000)
        assert.lengthOf(yield* alive, 0)
      })
    )
  )
})

describe("an idle time", () => {
  const idle = { idle: { afterMillis: 60_000, action: "pause" } } as const

  it.effect("measures use, and not the clock that jumps", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached(idle)
        yield* pass(10_000, 1_000)
        yield* place.shift(24 * hour)
        yield* pass(10_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "running")
        yield* place.shift(-48 * hour)
        yield* pass(41_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "paused")
      })
    )
  )

  it.effect("counts anew when a sandbox goes on", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { sandboxes } = yield* place.service
        const sandbox = yield* sandboxes.createDetached(idle)
        yield* pass(61_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "paused")
        yield* pass(hour, 60_000)
        yield* sandbox.resume
        yield* pass(59_000, 1_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "running")
        yield* pass(2_000)
        assert.strictEqual((yield* sandboxes.get(sandbox.id)).status, "paused")
      })
    )
  )
})

describe("a lease", () => {
  it.effect("does not lapse by a clock that jumps", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { client, sandboxes } = yield* place.service
        const lease = LeaseId.make("a-lease-of-a-test-client")
        yield* client.RenewLease({ lease, ttlMillis: 10_000 })
        const { id } = yield* client.CreateSandbox({ request: {}, detached: false, lease })
        yield* pass(5_000)
        yield* client.RenewLease({ lease, ttlMillis: 10_000 })
        yield* place.shift(hour)
        yield* pass(9_000)
        assert.strictEqual((yield* sandboxes.get(id)).status, "running")
        yield* place.shift(-48 * hour)
        yield* pass(2_000)
        assert.strictEqual((yield* sandboxes.get(id)).status, "killed")
      })
    )
  )
})

describe("the actor of a sandbox that was killed", () => {
  const release = pass(3 * 60_000, 5_000)

  it.effect("goes, whether a call, a time to live, an idle time or a lapsed lease did it", () =>
    inPlace((place) =>
      Effect.gen(function* () {
        const { actors, client, sandboxes } = yield* place.service
        const lease = LeaseId.make("a-lease-of-a-test-client")
        yield* client.RenewLease({ lease, ttlMillis: 10_000 })
        for (let round = 0; round < 3; round++) {
          const called = yield* sandboxes.createDetached()
          yield* sandboxes.createDetached({ ttl: { afterMillis: 10_000, action: "kill" } })
          yield* sandboxes.createDetached({ idle: { afterMillis: 10_000, action: "kill" } })
          yield* client.CreateSandbox({ request: {}, detached: false, lease })
          yield* called.kill
        }
        const kept = yield* sandboxes.createDetached()
        yield* release
        assert.deepStrictEqual(
          (yield* sandboxes.list()).sandboxes.map(({ id }) => id),
          [kept.id]
        )
        assert.strictEqual(yield* actors, 1)
      })
    )
  )
})
