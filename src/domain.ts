/**
 * The schemas of fiberbox alone: no service, no I/O.
 */
export * as Capability from "./domain/Capability.ts"
export * as Errors from "./domain/Errors.ts"
export * as Event from "./domain/Event.ts"
export * as FileSystem from "./domain/FileSystem.ts"
export * as Ids from "./domain/Ids.ts"
export * as Metrics from "./domain/Metrics.ts"
export * as Output from "./domain/Output.ts"
export * as Process from "./domain/Process.ts"
export * as Sandbox from "./domain/Sandbox.ts"
export * as Status from "./domain/Status.ts"
