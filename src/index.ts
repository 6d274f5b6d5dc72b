/**
 * fiberbox: run untrusted code in sandboxes, with full typed control from an
 * Effect program.
 *
 * A program uses {@link Sandboxes}; what runs them is a layer of its own entry
 * point: `fiberbox/container`, `fiberbox/memory`.
 */
export * from "./domain/Capability.ts"
export * from "./domain/Errors.ts"
export * from "./domain/Event.ts"
export * from "./domain/FileSystem.ts"
export * from "./domain/Ids.ts"
export * from "./domain/Metrics.ts"
export * from "./domain/Output.ts"
export * from "./domain/Process.ts"
export * from "./domain/Sandbox.ts"
export * from "./domain/Status.ts"
export type { AsUser, FilesApi, ReadOptions, WriteOptions } from "./services/Files.ts"
export type { Process, Pty } from "./services/Process.ts"
export type {
  Argv,
  CommandApi,
  CommandResult,
  ProcessApi,
  ProcessOptions,
  PtyApi,
  RunError,
  RunOptions,
  StartOptions
} from "./services/Processes.ts"
export type { Sandbox } from "./services/Sandbox.ts"
export { type CreateOptions, Sandboxes } from "./services/Sandboxes.ts"
