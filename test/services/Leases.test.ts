import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { LeaseId, Owner } from "../../src/domain/Ids.ts"
import { graceMillis, Leases } from "../../src/services/Leases.ts"

const owner = Owner.make("alice")
const lease = LeaseId.make("lease-of-alice-1")

/** Holds something, and tells whether it was released, and after how many milliseconds of silence. */
const held = Effect.gen(function* () {
  const leases = yield* Leases
  let released: { readonly silentMillis: number | undefined } | undefined
  const release = (silentMillis: number | undefined) =>
    Effect.sync(() => {
      released = { silentMillis }
    })
  yield* leases.hold(owner, lease, "a sandbox", release)
  return () => released
})

describe("a lease", () => {
  it.effect("that nobody renews keeps what it holds for a while", () =>
    Effect.gen(function* () {
      const released = yield* held
      yield* TestClock.adjust(graceMillis - 1)
      assert.isUndefined(released())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(released(), { silentMillis: graceMillis })
    }).pipe(Effect.provide(Leases.layer))
  )

  it.effect("lapses when its client said, though something was held before the client said it", () =>
    Effect.gen(function* () {
      const leases = yield* Leases
      const released = yield* held
      yield* leases.renew(owner, lease, 1_000)
      yield* TestClock.adjust(999)
      assert.isUndefined(released())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(released(), { silentMillis: 1_000 })
    }).pipe(Effect.provide(Leases.layer))
  )

  it.effect("lives as long as it is renewed", () =>
    Effect.gen(function* () {
      const leases = yield* Leases
      const released = yield* held
      for (let count = 0; count < 100; count++) {
        yield* leases.renew(owner, lease, 3_000)
        yield* TestClock.adjust(2_000)
      }
      assert.isUndefined(released())
      yield* leases.end(owner, lease)
      assert.deepStrictEqual(released(), { silentMillis: undefined })
    }).pipe(Effect.provide(Leases.layer))
  )

  it.effect("of another with the same name holds nothing of mine", () =>
    Effect.gen(function* () {
      const leases = yield* Leases
      const released = yield* held
      yield* leases.end(Owner.make("bob"), lease)
      assert.isUndefined(released())
    }).pipe(Effect.provide(Leases.layer))
  )
})
