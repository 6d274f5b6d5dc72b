/**
 * What a backend can do, and how strongly it separates a sandbox from the rest.
 */
import { Schema } from "effect"

/**
 * How a machine is kept apart, weakest first: `none` (a simulation or plain
 * processes), `container` (Linux namespaces and limits), `microvm` (its own
 * kernel), `remote` (somebody else's promise).
 */
export const IsolationLevel = Schema.Literals(["none", "container", "microvm", "remote"])
export type IsolationLevel = typeof IsolationLevel.Type

/** Abilities that a backend may lack; a request that needs a missing one is `Unsupported`. */
export const Capability = Schema.Literals([
  "pause",
  "stop",
  "adopt",
  "pty",
  "watch",
  "dial",
  "metrics",
  "snapshot",
  "limit-memory",
  "limit-cpus",
  "limit-pids",
  "limit-disk",
  "limit-inodes",
  "network-none",
  "network-allow",
  "network-full"
])
export type Capability = typeof Capability.Type
