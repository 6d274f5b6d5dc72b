/**
 * Leases: a client's promise to still want something. What a lease holds ends
 * when the client has not renewed it in time, because a server cannot tell a
 * dead client from a slow connection in any other way. It is measured by a
 * clock that nobody sets: an hour that the wall clock jumps is no time in which a client was silent.
 *
 * Leases are not recorded. After a restart of the service whatever was held is
 * held again, by who finds it, for {@link graceMillis}: time for a living
 * client to come back.
 */
import { Clock, Context, Effect, FiberMap, Layer, Metric } from "effect"
import type { LeaseId, Owner } from "../domain/Ids.ts"
import { monotonicMillis } from "./Alarms.ts"
import * as ServiceMetrics from "./ServiceMetrics.ts"

/** How long a lease lives that nobody has renewed yet, in milliseconds. */
export const graceMillis = 60_000

/** Ends what a lease holds: because its client was not heard of for so many milliseconds, or with undefined because it has ended the lease. It never fails. */
export type Release = (silentMillis: number | undefined) => Effect.Effect<void>

interface Lease {
  ttlMillis: number
  expiresAt: number
  readonly holds: Map<string, Release>
}

/** The leases of one service. */
export class Leases extends Context.Service<
  Leases,
  {
    /** Extends a lease to so many milliseconds from now; one that does not exist begins. */
    readonly renew: (owner: Owner, lease: LeaseId, ttlMillis: number) => Effect.Effect<void>
    /** Ends a lease at once, and with it what it holds. */
    readonly end: (owner: Owner, lease: LeaseId) => Effect.Effect<void>
    /** Ties something to a lease under a name; the same name again replaces it. */
    readonly hold: (owner: Owner, lease: LeaseId, name: string, release: Release) => Effect.Effect<void>
    /** Unties what has ended by itself. */
    readonly drop: (owner: Owner, lease: LeaseId, name: string) => void
  }
>()("fiberbox/services/Leases") {
  /** Leases on this service's clock. Closing the layer ends none of what they hold. */
  static readonly layer: Layer.Layer<Leases> = Layer.effect(
    Leases,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const now = () => monotonicMillis(clock)
  const leases = new Map<string, Lease>()
  const watches = yield* FiberMap.make<string>()
  const keyOf = (owner: Owner, lease: LeaseId) => `${owner}\0${lease}`

  const release = (key: string, silentMillis: number | undefined) =>
    Effect.suspend(() => {
      const holds = leases.get(key)?.holds.values() ?? []
      leases.delete(key)
      return Effect.forEach(holds, (release) => release(silentMillis), {
        concurrency: "unbounded",
        discard: true
      })
    })

  const watch = (key: string, lease: Lease): Effect.Effect<void> =>
    Effect.gen(function* () {
      const left = lease.expiresAt - now()
      if (left <= 0) {
        yield* Metric.update(ServiceMetrics.leaseLapses, 1)
        return yield* Effect.uninterruptible(release(key, lease.ttlMillis))
      }
      yield* Effect.sleep(left)
      return yield* watch(key, lease)
    })

  const existing = Effect.fnUntraced(function* (key: string, ttlMillis: number) {
    const found = leases.get(key)
    if (found !== undefined) return found
    const lease: Lease = { ttlMillis, expiresAt: now() + ttlMillis, holds: new Map() }
    leases.set(key, lease)
    yield* FiberMap.run(watches, key, watch(key, lease))
    return lease
  })

  return Leases.of({
    renew: Effect.fnUntraced(function* (owner, id, ttlMillis) {
      const key = keyOf(owner, id)
      const lease = yield* existing(key, ttlMillis)
      const before = lease.expiresAt
      lease.ttlMillis = ttlMillis
      lease.expiresAt = now() + ttlMillis
      // Who watches it sleeps until the time that was known before.
      if (lease.expiresAt < before) yield* FiberMap.run(watches, key, watch(key, lease))
    }),
    end: (owner, id) => {
      const key = keyOf(owner, id)
      return Effect.andThen(FiberMap.remove(watches, key), release(key, undefined))
    },
    hold: Effect.fnUntraced(function* (owner, id, name, release) {
      const lease = yield* existing(keyOf(owner, id), graceMillis)
      lease.holds.set(name, release)
    }),
    drop: (owner, id, name) => {
      leases.get(keyOf(owner, id))?.holds.delete(name)
    }
  })
})
