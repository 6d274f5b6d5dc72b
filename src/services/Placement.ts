/**
 * Where new sandboxes go: the shard group that is written into their ids.
 */
import { Context } from "effect"

/** The shard group of this host. One process on its own is `local`. */
export const Placement = Context.Reference<string>("fiberbox/services/Placement", {
  defaultValue: () => "local"
})
