/**
 * The place in the answering of a call on the service itself where it is
 * counted, timed and audited: after the caller is known, before the handler runs.
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
