/**
 * The handlers of the operations on the service itself. Whoever reaches them
 * has been found to be an administrator.
 */
import { ByteSize, Effect, Layer } from "effect"
import { HttpIncomingMessage } from "effect/http"
import { RpcSerialization, RpcServer } from "effect/rpc"
import { Audit } from "../services/Audit.ts"
import { Keys } from "../services/Keys.ts"
import { Remains } from "../services/Remains.ts"
import { adminPath, ServedAdminRpcs } from "./AdminRpcs.ts"
import * as Server from "./Server.ts"
import { Watched } from "./Watched.ts"

/** No request is larger. */
const maxBytes = 64 * 1024

/** The handlers over the keys, the audit and the remains that are provided. */
export const layer = ServedAdminRpcs.toLayer(
  Effect.gen(function* () {
    const keys = yield* Keys
    const audit = yield* Audit
    const remains = yield* Remains
    return ServedAdminRpcs.of({
      ListKeys: () => keys.list,
      MintKey: keys.mint,
      RevokeKey: ({ keyId }) => keys.revoke(keyId),
      FollowAudit: audit.follow,
      ListRemains: () => remains.list,
      AdoptRemains: remains.adopt,
      RemoveRemains: ({ sandboxId }) => remains.remove(sandboxId)
    })
  })
)

const answer = Effect.map(
  RpcServer.toHttpEffect(ServedAdminRpcs, { disableFatalDefects: true }),
  Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(maxBytes))
)

/** The route of a service on which administrators, and nobody else, reach them. */
export const route = Layer.unwrap(
  Effect.map(answer, (answer) => Server.route("POST", adminPath, "admin", answer))
).pipe(Layer.provide([layer, Watched.layer, RpcSerialization.layerNdjsonWith({ maxBufferSize: maxBytes })]))
