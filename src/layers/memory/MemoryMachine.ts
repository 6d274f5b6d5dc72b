/**
 * A running in-memory machine, as a service holds it.
 */
import { Effect, type Scope, Stream } from "effect"
import { NotFound } from "../../domain/Errors.ts"
import type { Duplex, Machine, MachineError } from "../../services/Machine.ts"
import { Calls, holding } from "./MachineCalls.ts"
import { makeFiles } from "./MachineFiles.ts"
import { makeProcesses } from "./MachineProcesses.ts"
import { type CallLimits, type FaultTable, memoryFailed, withFault } from "./MemoryFaults.ts"
import { makeConnection } from "./Network.ts"
import type { RunningMachine } from "./RunningMachine.ts"

/** Makes the handle on a machine. */
export const makeMachine = (options: {
  readonly machine: RunningMachine
  readonly faults: FaultTable
  readonly limits: CallLimits
  readonly isDead: () => boolean
}): Machine => {
  const calls = new Calls(options)
  const { machine } = options
  const { kernel } = machine
  return {
    generation: machine.generation,
    isolation: "none",
    processes: makeProcesses(calls),
    files: makeFiles(calls),
    dial: (port) => dial(calls, port),
    pause: calls.outside(
      "pause",
      Effect.sync(() => kernel.pause())
    ),
    resume: calls.outside(
      "resume",
      Effect.sync(() => kernel.resume())
    ),
    // Nothing of it outlives its host.
    sync: Effect.void,
    metrics: calls.outside(
      "metrics",
      Effect.sync(() => ({
        at: kernel.now(),
        cpuMillis: kernel.cpuMicros / 1000,
        memoryBytes: agentBytes + kernel.memoryBytes(),
        memoryLimitBytes: machine.memoryLimitBytes,
        // The agent is one.
        pids: kernel.processes.size + 1,
        diskBytes: kernel.tree.usedBytes
      }))
    ),
    terminate: terminate(options),
    exited: machine.exited
  }
}

/** What an agent takes. */
const agentBytes = 1024 * 1024

const terminate = ({
  machine,
  faults,
  limits,
  isDead
}: Parameters<typeof makeMachine>[0]): Machine["terminate"] =>
  Effect.suspend(() => {
    if (isDead()) return Effect.fail(memoryFailed("terminate", "the service was killed", "not-started"))
    const end = Effect.sync(() => machine.end({ reason: "the machine was terminated", outOfMemory: false }))
    const fault = faults.take("terminate", machine.sandboxId)
    if (fault === undefined) return end
    const limit = { limit: "transport", millis: limits.transportMillis, outcome: "unknown" } as const
    return withFault(fault, "terminate", limit, (reason) => memoryFailed("terminate", reason, "unknown"), end)
  })

const dial = Effect.fnUntraced(function* (
  calls: Calls,
  port: number
): Effect.fn.Return<Duplex, NotFound | MachineError, Scope.Scope> {
  const { kernel } = calls.machine
  const { outside } = yield* holding<ReturnType<typeof makeConnection>, NotFound | MachineError>((keep) =>
    calls.call(
      "dial",
      Effect.suspend(() => {
        const listener = kernel.listeners.get(port)
        if (listener === undefined) return Effect.fail(new NotFound({ kind: "port", id: String(port) }))
        const connection = keep(makeConnection(kernel.schedule))
        listener.accept(connection.inside)
        return Effect.succeed(connection)
      })
    )
  )
  return {
    incoming: cutShort(calls, outside.incoming),
    send: (data) => Effect.asVoid(calls.waitFor(outside.send(data))),
    end: outside.end
  }
})

/** A stream that fails when the connection to the machine is cut. */
const cutShort = <A>(calls: Calls, stream: Stream.Stream<A>) =>
  Stream.interruptWhen(stream, calls.machine.cut)
