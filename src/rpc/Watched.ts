/**
 * The place in the answering of a call where the service counts, times and
 * audits it: after the caller is known, before the handler runs.
 *
 * ```ts
 * SandboxRpcs.middleware(Watched).middleware(Access) // the last one is the outermost
 * ```
 */
import { Effect, Layer } from "effect"
import { RpcMiddleware } from "effect/rpc"
import { Connection } from "../domain/Errors.ts"
import { Calls } from "../services/Calls.ts"

/** Surrounds handlers with {@link Calls}. `Connection` when the service takes no more calls. */
export class Watched extends RpcMiddleware.Service<Watched>()("fiberbox/rpc/Watched", {
  error: Connection
}) {
  static readonly layer: Layer.Layer<Watched, never, Calls> = Layer.effect(
    Watched,
    Effect.map(Calls, (calls) =>
      Watched.of((answer, { rpc, payload }) => calls.around(rpc._tag, payload)(answer))
    )
  )
}
