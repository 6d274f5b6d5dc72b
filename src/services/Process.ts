/**
 * A handle on one process of one incarnation of a sandbox's machine.
 */
import { Effect, Semaphore, Stream } from "effect"
import { InvalidResponse } from "../domain/Errors.ts"
import { maxChunkBytes } from "../domain/FileSystem.ts"
import type { Generation, ProcessId, SandboxId } from "../domain/Ids.ts"
import { AttachOptions, type ExitStatus, type ProcessEvent, PtySize, Signal } from "../domain/Process.ts"
import type { MachineOperationError } from "../rpc/SandboxRpcs.ts"
import { decodeBytes, decodeInput } from "./Input.ts"
import type { Client } from "./SandboxClient.ts"

/** A process, running or ended. Its operations fail with `GenerationChanged` once the machine was replaced. */
export interface Process {
  readonly processId: ProcessId
  readonly pid: number
  readonly generation: Generation
  /** Reads its journal from a cursor on: `Started`, output, `Exited`. Ending the stream leaves the process running. */
  readonly events: (
    options?: typeof AttachOptions.Encoded
  ) => Stream.Stream<ProcessEvent, MachineOperationError>
  /** Waits until it has ended. */
  readonly exit: Effect.Effect<ExitStatus, MachineOperationError | InvalidResponse>
  /** Sends a signal to the process and its group. */
  readonly signal: (signal: Signal) => Effect.Effect<void, MachineOperationError>
  /** Kills it and all its descendants, and returns when none is left. */
  readonly kill: Effect.Effect<void, MachineOperationError>
  /**
   * Writes to its standard input, after all that was written before; waits while the program does not read.
   * `InvalidArgument` of the field `stdin` when that has ended: it was closed, the program has closed it or exited, or was
   * started without.
   */
  readonly write: (data: string | Uint8Array) => Effect.Effect<void, MachineOperationError>
  /** Ends its standard input. */
  readonly closeStdin: Effect.Effect<void, MachineOperationError>
}

/** A process that runs on a terminal. */
export interface Pty extends Process {
  /** What the terminal shows, as bytes, from the beginning; ends with the process. */
  readonly output: Stream.Stream<Uint8Array, MachineOperationError>
  readonly resize: (size: PtySize) => Effect.Effect<void, MachineOperationError>
}

/** Which process a handle is for. */
export interface ProcessRef {
  readonly processId: ProcessId
  readonly pid: number
  readonly generation: Generation
}

const decodeAttach = decodeInput(AttachOptions, "attach")
const decodeSize = decodeInput(PtySize, "size")
const decodeSignal = decodeInput(Signal, "signal")
const decodeData = decodeBytes("stdin")

/** An effect that appends to a process's standard input, in pieces that name their offset. */
export const makeStdinWriter = (
  client: Client,
  target: { readonly sandboxId: SandboxId; readonly processId: ProcessId; readonly generation?: Generation }
): ((data: string | Uint8Array) => Effect.Effect<void, MachineOperationError>) => {
  const lock = Semaphore.makeUnsafe(1)
  let offset: number | undefined
  return (data) =>
    Effect.gen(function* () {
      const bytes = yield* decodeData(data)
      // An empty write at 0 is a repeat, whose answer is how far standard input has come.
      let at = offset ?? (yield* client.WriteStdin({ ...target, offset: 0, data: new Uint8Array(0) }))
      let sent = 0
      while (sent < bytes.byteLength) {
        const piece = bytes.subarray(sent, sent + maxChunkBytes)
        const accepted = yield* client.WriteStdin({ ...target, offset: at, data: piece })
        sent += accepted - at
        at = accepted
        offset = at
      }
    }).pipe(lock.withPermit)
}

/** A handle over a client of the contract. */
export const makeProcess = (client: Client, sandboxId: SandboxId, ref: ProcessRef): Process => {
  const target = { sandboxId, processId: ref.processId, generation: ref.generation }
  const attach = (options: AttachOptions) => client.AttachProcess({ ...target, attach: options })
  return {
    processId: ref.processId,
    pid: ref.pid,
    generation: ref.generation,
    events: (options = {}) => Stream.unwrap(Effect.map(decodeAttach(options), attach)),
    exit: attach({ maxOutputBytes: 0 }).pipe(
      Stream.runLast,
      Effect.flatMap((last) =>
        last._tag === "Some" && last.value._tag === "Exited"
          ? Effect.succeed(last.value.status)
          : Effect.fail(new InvalidResponse({ reason: "a process's events ended before its exit" }))
      )
    ),
    signal: (signal) =>
      Effect.flatMap(decodeSignal(signal), (signal) => client.SignalProcess({ ...target, signal })),
    kill: client.KillProcess(target),
    write: makeStdinWriter(client, target),
    closeStdin: client.CloseStdin(target)
  }
}

/** A terminal handle over a client of the contract. */
export const makePty = (client: Client, sandboxId: SandboxId, ref: ProcessRef): Pty => {
  const process = makeProcess(client, sandboxId, ref)
  return {
    ...process,
    output: process.events().pipe(
      Stream.filter((event) => event._tag === "Output"),
      Stream.map((event) => event.data)
    ),
    resize: (size) =>
      Effect.flatMap(decodeSize(size), (size) =>
        client.ResizePty({ sandboxId, processId: ref.processId, generation: ref.generation, size })
      )
  }
}
