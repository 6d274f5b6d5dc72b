/**
 * The lease of one client: it begins with the first thing it holds, is renewed
 * while the client lives, and ended with it. A client that dies loses what it
 * held when the lease lapses.
 */
import { Duration, Effect, Latch, type Scope } from "effect"
import type { LeaseId } from "../../domain/Ids.ts"
import { type Client, Releasing } from "../../services/SandboxClient.ts"

/** How long the end of a lease may take when the client closes, in milliseconds. */
const endMillis = 5_000

/**
 * A client that keeps the lease as soon as a call makes use of it. `ttl` is how
 * long what it holds outlives a dead client, 1 second to 10 minutes.
 */
export const keepLease = Effect.fnUntraced(function* (
  client: Client,
  lease: LeaseId,
  ttl: Duration.Input
): Effect.fn.Return<Client, never, Scope.Scope> {
  const ttlMillis = Duration.toMillis(Duration.fromInputUnsafe(ttl))
  const used = Latch.makeUnsafe(false)
  let isUsed = false

  const renew = client
    .RenewLease({ lease, ttlMillis })
    .pipe(
      Effect.ignore({ log: "Debug", message: "the lease could not be renewed" }),
      Effect.andThen(Effect.sleep(ttlMillis / 3)),
      Effect.forever
    )
  yield* Effect.addFinalizer(() =>
    isUsed
      ? client
          .EndLease({ lease })
          .pipe(
            Effect.timeout(endMillis),
            Effect.ignore({ log: "Debug", message: "the lease was left to lapse" }),
            Effect.provideService(Releasing, true)
          )
      : Effect.void
  )
  yield* Effect.forkScoped(Effect.andThen(used.await, renew))

  const held = (by: LeaseId | undefined) => {
    if (by !== lease || isUsed) return
    isUsed = true
    used.openUnsafe()
  }
  return {
    ...client,
    CreateSandbox: (payload) => {
      held(payload.lease)
      return client.CreateSandbox(payload)
    },
    RunProcess: (payload) => {
      held(payload.process.lease)
      return client.RunProcess(payload)
    },
    ExecProcess: (payload) => {
      held(payload.process.lease)
      return client.ExecProcess(payload)
    },
    StartProcess: (payload) => {
      held(payload.process.lease)
      return client.StartProcess(payload)
    }
  }
})
