/**
 * The life of a sandbox: a closed set of statuses and one table of what may
 * follow what. Everything that changes a status goes through this table.
 */
import { Schema } from "effect"

/** Where a sandbox is in its life. */
export const Status = Schema.Literals([
  "provisioning",
  "running",
  "paused",
  "stopping",
  "stopped",
  "restarting",
  "failed",
  "lost",
  "killed"
])
export type Status = typeof Status.Type

/** What may follow each status. `killed` is final. */
export const transitions: { readonly [S in Status]: ReadonlyArray<Status> } = {
  provisioning: ["running", "failed", "killed"],
  running: ["paused", "stopping", "restarting", "failed", "lost", "killed"],
  paused: ["running", "stopping", "failed", "lost", "killed"],
  stopping: ["stopped", "failed", "killed"],
  stopped: ["provisioning", "killed"],
  restarting: ["running", "failed", "killed"],
  failed: ["provisioning", "stopped", "killed"],
  lost: ["running", "provisioning", "failed", "killed"],
  killed: []
}

/** Whether the table lets a sandbox go from one status to another. */
export const canBecome = (from: Status, to: Status): boolean => transitions[from].includes(to)

/** What a caller may ask of a sandbox's life. */
export const Command = Schema.Literals(["start", "stop", "restart", "pause", "resume", "kill"])
export type Command = typeof Command.Type

/** The status each command leads to when it succeeds. */
export const target: { readonly [C in Command]: Status } = {
  start: "running",
  stop: "stopped",
  restart: "running",
  pause: "paused",
  resume: "running",
  kill: "killed"
}

/** The settled statuses from which a command may be given; asked for in the status it leads to, a command succeeds and does nothing. */
export const allowedFrom: { readonly [C in Command]: ReadonlyArray<Status> } = {
  start: ["stopped", "failed", "lost"],
  stop: ["running", "paused", "failed"],
  restart: ["running"],
  pause: ["running"],
  resume: ["paused"],
  kill: ["provisioning", "running", "paused", "stopping", "stopped", "restarting", "failed", "lost"]
}

/** What a lifecycle command means in a status: nothing to do, something to do, or refused. */
export const decide = (command: Command, status: Status): "done" | "proceed" | "refused" => {
  if (allowedFrom[command].includes(status)) return "proceed"
  return command !== "restart" && status === target[command] ? "done" : "refused"
}

/** Whether a sandbox is on its way from one status to another, which is the service's to bring to an end. */
export const isTransitional = (status: Status): boolean =>
  status === "provisioning" || status === "stopping" || status === "restarting"

/**
 * What the action of a time limit means in a status: to be carried out;
 * nothing, because the sandbox is there already (or has come further: one that is stopped need not be
 * paused); or to be carried out as soon as the sandbox is in another status.
 */
export const decideExpiry = (
  action: "kill" | "stop" | "pause",
  status: Status
): "proceed" | "done" | "later" => {
  if (action === "pause" && status === "stopped") return "done"
  const meaning = decide(action, status)
  return meaning === "refused" ? "later" : meaning
}
