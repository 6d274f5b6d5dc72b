/**
 * What the facade is written over: a client of the contract, whatever carries
 * it. In process it is the contract's handlers themselves.
 */
import { Context, type Effect, type Stream } from "effect"
import type { Rpc, RpcGroup, RpcSchema } from "effect/rpc"
import type { LeaseId } from "../domain/Ids.ts"
import type { SandboxRpcs } from "../rpc/SandboxRpcs.ts"

type Rpcs = RpcGroup.Rpcs<typeof SandboxRpcs>

type Answer<Current extends Rpc.Any, Extra> =
  Current extends Rpc.Rpc<infer _Tag, infer _Payload, infer Success, infer Error>
    ? Success extends RpcSchema.Stream<infer Item, infer ItemError>
      ? Stream.Stream<Item["Type"], ItemError["Type"] | Error["Type"] | Extra>
      : Effect.Effect<Success["Type"], Error["Type"] | Extra>
    : never

/** A client of the contract over something that has errors of its own besides the contract's. */
export type ClientWith<Extra> = {
  readonly [Current in Rpcs as Current["_tag"]]: (payload: Rpc.Payload<Current>) => Answer<Current, Extra>
}

/** A client of the contract whose transport's own errors, if it has any, have become ours. */
export type Client = ClientWith<never>

/**
 * The lease that holds what a remote caller's scopes and calls hold: undefined
 * for a caller in the service's own process, which needs none.
 */
export const CallerLease = Context.Reference<LeaseId | undefined>("fiberbox/services/CallerLease", {
  defaultValue: () => undefined
})

/**
 * Whether a call is made to let something go. Many of those follow each other
 * when a program ends, so they have one patience with a lost service together.
 */
export const Releasing = Context.Reference<boolean>("fiberbox/services/Releasing", {
  defaultValue: () => false
})

/** The client that {@link Sandboxes} talks through: in process, or over a transport. */
export class SandboxClient extends Context.Service<SandboxClient, Client>()(
  "fiberbox/services/SandboxClient"
) {}
