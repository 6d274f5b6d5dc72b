/**
 * What sandboxes left on disk that no store knows: a store that was lost, or
 * put back from an older copy, forgets sandboxes whose disks are still there.
 */
import { Schema } from "effect"
import { Owner, SandboxId } from "./Ids.ts"
import { CreateRequest } from "./Sandbox.ts"

/** What is left of one sandbox. */
export const Remnant = Schema.Struct({
  sandboxId: SandboxId,
  /** Whether its machine runs still; it is about to be ended then. */
  running: Schema.Boolean
})
export type Remnant = typeof Remnant.Type

/** What a sandbox shall be that is made of remains. */
export const AdoptRequest = Schema.Struct({
  sandboxId: SandboxId,
  /** Whose it shall be. */
  owner: Owner,
  /** Its name, image, limits and the rest, as for a new one: none of it is known any more. Its disk keeps its size. */
  request: CreateRequest
})
export type AdoptRequest = typeof AdoptRequest.Type
