/**
 * Serving sandboxes to other programs.
 *
 * ```ts
 * Layer.launch(Server.layer({ port: 7777 }).pipe(Layer.provide([client, authenticator])))
 * ```
 *
 * `client` is what is served, usually the handlers of this process (`InProcess`
 * of `fiberbox/rpc`), `authenticator` decides whom a token belongs to.
 */
export * as Server from "./rpc/Server.ts"
export { type AccessScope, Authenticator, type Caller, CurrentCaller } from "./services/Authenticator.ts"
