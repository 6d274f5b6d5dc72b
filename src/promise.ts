/**
 * fiberbox for programs that are not written with Effect: the same sandboxes
 * with promises, async iterables, `await using` and `AbortSignal`.
 *
 * ```ts
 * import { Sandbox } from "fiberbox/promise"
 *
 * await using sandbox = await Sandbox.create({ image: "host" })
 * const { stdout } = await sandbox.commands.run("echo hello")
 * for await (const event of sandbox.commands.stream("make")) console.log(event)
 * ```
 *
 * Every method takes a `signal` in its options. What fails rejects with the
 * classes of `fiberbox` themselves, so `instanceof` tells them apart; each says
 * whether trying again may help (`isRetryable`) and whether it happened (`outcome`).
 */
import type { Sandbox as SandboxHandle } from "./promise/Lifted.ts"
import { type Statics, statics } from "./promise/Shared.ts"

export type * from "./domain/Capability.ts"
export * from "./domain/Errors.ts"
export type * from "./domain/Event.ts"
export type * from "./domain/FileSystem.ts"
export type * from "./domain/Ids.ts"
export type * from "./domain/Metrics.ts"
export type * from "./domain/Output.ts"
export type * from "./domain/Process.ts"
export type * from "./domain/Sandbox.ts"
export type * from "./domain/Status.ts"
export type { Items } from "./promise/Calls.ts"
export { Fiberbox, type FiberboxOptions } from "./promise/Fiberbox.ts"
export type { Lifted, Process, Pty } from "./promise/Lifted.ts"
export type { Place, Statics } from "./promise/Shared.ts"
export type { ByteSource, CallOptions } from "./promise/Source.ts"
export type { Argv, CommandResult } from "./services/Processes.ts"
export type { CreateOptions } from "./services/Sandboxes.ts"

/**
 * The handle on one sandbox. With `await using` it is let go at the end: one that
 * was made by `create` is killed then, any other stays as it is.
 */
export type Sandbox = SandboxHandle

/**
 * Creates, finds and ends sandboxes. The place they run in (a {@link Place}
 * among the options) is opened at the first call and shared by all that name
 * the same one. It does not keep the program running, but while a call is
 * pending, and is closed 10 seconds after its last handle was let go, or when
 * the program has nothing left to do. A program that is killed, or calls
 * `process.exit`, is followed by its containers within a minute (`orphanMillis`).
 * {@link Fiberbox} is for programs that want all that in their own hands.
 */
export const Sandbox: Statics = statics
