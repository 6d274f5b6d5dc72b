/**
 * What the facade is written over: a client of the contract, whatever carries it.
 */
import { Context } from "effect"
import type { RpcClient, RpcGroup } from "effect/rpc"
import type { SandboxRpcs } from "../rpc/SandboxRpcs.ts"

/** A client of the contract whose transport's own errors have become ours. */
export interface Client extends RpcClient.RpcClient<RpcGroup.Rpcs<typeof SandboxRpcs>> {}

/** The client that {@link Sandboxes} talks through: in process, or over a transport. */
export class SandboxClient extends Context.Service<SandboxClient, Client>()(
  "fiberbox/services/SandboxClient"
) {}
