/**
 * The handlers of the operations on the service itself. Whoever reaches them
 * has been found to be an administrator.
 */
import { Effect } from "effect"
import { Audit } from "../services/Audit.ts"
import { Keys } from "../services/Keys.ts"
import { AdminRpcs } from "./AdminRpcs.ts"

/** The handlers over the keys and the audit that are provided. */
export const layer = AdminRpcs.toLayer(
  Effect.gen(function* () {
    const keys = yield* Keys
    const audit = yield* Audit
    return AdminRpcs.of({
      ListKeys: () => keys.list,
      MintKey: keys.mint,
      RevokeKey: ({ keyId }) => keys.revoke(keyId),
      FollowAudit: audit.follow
    })
  })
)
