/**
 * The contract as it is served: what both ends of a connection speak.
 */
import { Schema } from "effect"
import { RpcMiddleware } from "effect/rpc"
import { Connection, InvalidArgument, PolicyDenied, ResourceExhausted } from "../domain/Errors.ts"
import { SandboxRpcs } from "./SandboxRpcs.ts"

/** Decides at the service whether a caller may make a call now. */
export class Access extends RpcMiddleware.Service<Access>()("fiberbox/rpc/Access", {
  error: Schema.Union([PolicyDenied, ResourceExhausted, InvalidArgument, Connection])
}) {}

/** The contract behind {@link Access}. */
export class ServedRpcs extends SandboxRpcs.middleware(Access) {}

/** Where the contract is served over WebSocket: the binary encoding, with acknowledgements. */
export const socketPath = "/rpc"

/** Where it is served over plain HTTP: POST, one JSON document a line. */
export const httpPath = "/rpc/http"
