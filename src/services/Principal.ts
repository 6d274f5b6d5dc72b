/**
 * Who is calling. An embedding program is `local`; a server's authentication
 * sets it for each request.
 */
import { Context } from "effect"
import { localOwner, type Owner } from "../domain/Ids.ts"

/** The owner of what the present call creates, and of all it can see. */
export const Principal = Context.Reference<Owner>("fiberbox/services/Principal", {
  defaultValue: () => localOwner
})
