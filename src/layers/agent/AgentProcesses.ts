/**
 * The processes of a machine, as its agent runs them.
 */
import { constants } from "node:os"
import { Effect, Stream } from "effect"
import { InvalidArgument, Timeout } from "../../domain/Errors.ts"
import { ProcessId } from "../../domain/Ids.ts"
import { type ExitStatus, signalNumbers } from "../../domain/Process.ts"
import type { User } from "../../domain/Sandbox.ts"
import {
  type ListedProcess,
  type MachineEvent,
  type MachineProcesses,
  processInfoOf,
  type SpawnRequest
} from "../../services/Machine.ts"
import type { AgentClient, Ids, ProcessMessage, SpawnSpec } from "./AgentClient.ts"
import {
  cancelError,
  exhausted,
  offsetError,
  processError,
  spawnError,
  unreachable
} from "./AgentFailures.ts"
import type { AgentMachine, MachineFacts } from "./AgentMachine.ts"
import { noLimit, type ReplyOf, spawnFlags } from "./Protocol.ts"

/** How long a tree may take to die before the caller is told that it does not. */
const killMillis = 10_000

const stillAlive = new Timeout({ limit: "transport", millis: killMillis, outcome: "unknown" })

/** The ids of a sandbox's two users. */
export const idsOf = (user: User): Ids => (user === "root" ? { uid: 0, gid: 0 } : { uid: 1000, gid: 1000 })

const signalNames = new Map<number, string>()
for (const [name, number] of Object.entries(constants.signals)) {
  if (!signalNames.has(number)) signalNames.set(number, name)
}

const statusOf = (signalled: boolean, value: number): ExitStatus =>
  signalled
    ? { _tag: "Signaled", signal: signalNames.get(value) ?? `SIG${value}`, number: value }
    : { _tag: "Exited", code: value }

const toSpec = (request: SpawnRequest): SpawnSpec => ({
  ...idsOf(request.user),
  processId: request.processId,
  argv: request.argv,
  env: Object.entries(request.env).map(([name, value]) => `${name}=${value}`),
  cwd: request.cwd,
  tty: request.pty,
  stdin: request.stdin || request.pty !== undefined,
  journalBytes: request.journalBytes,
  label: request.label ?? "",
  identity: request.identity,
  limitMillis: request.limitMillis
})

const toEvent =
  (facts: MachineFacts) =>
  (message: ProcessMessage): MachineEvent => {
    switch (message._tag) {
      case "Spawned":
        return {
          _tag: "Started",
          pid: message.pid,
          startedAt: message.startedAt,
          generation: facts.generation,
          isolation: facts.isolation
        }
      case "Output":
        return {
          _tag: "Output",
          stream: message.stream === 2 ? "stderr" : "stdout",
          cursor: message.cursor,
          at: message.at,
          data: message.data
        }
      case "Truncated":
        return { _tag: "Truncated", from: message.from, to: message.to }
      case "Exit":
        return {
          _tag: "Exited",
          status: statusOf(message.signalled, message.value),
          cursor: message.cursor,
          at: message.at,
          timedOut: message.timedOut,
          treeAlive: message.treeAlive
        }
    }
  }

const toInfo = (facts: MachineFacts, process: ReplyOf<"Process">): ListedProcess => ({
  processId: ProcessId.make(process.processId),
  generation: facts.generation,
  pid: process.pid,
  argv: process.argv,
  user: process.uid === 0 ? "root" : "user",
  pty: (process.flags & spawnFlags.tty) !== 0,
  startedAt: process.startedAt,
  ...(process.exited ? { exit: statusOf(process.signalled, process.value) } : {}),
  oldest: process.oldest,
  end: process.end,
  label: process.label === "" ? undefined : process.label,
  identity: process.identity,
  leftMillis: process.leftMillis === noLimit ? undefined : process.leftMillis,
  treeAlive: process.treeAlive
})

/** Which supervisor has which program, as far as it was heard. One that has another program since has none of the first. */
const makeSupervisors = () => {
  const programs = new Map<number, string>()
  const supervisors = new Map<string, number>()
  return {
    note: (processId: string, supervisor: number) => {
      if (supervisor === 0) return
      const before = programs.get(supervisor)
      if (before !== undefined) supervisors.delete(before)
      programs.set(supervisor, processId)
      supervisors.set(processId, supervisor)
    },
    of: (processId: string) => supervisors.get(processId)
  }
}

/** The operations on processes. */
export const makeProcesses = (
  client: AgentClient,
  facts: MachineFacts
): MachineProcesses & Pick<AgentMachine, "supervisorOf"> => {
  const supervisors = makeSupervisors()
  const noting = (processId: string) => (message: ProcessMessage) => {
    if (message._tag === "Spawned") supervisors.note(processId, message.supervisor)
    return lift(message)
  }
  const millis = facts.transportMillis
  const asked = (operation: string) => ({ backend: facts.backend, operation })
  const lift = toEvent(facts)
  const list = client.processes(millis).pipe(
    Effect.map((processes) =>
      processes.map((process) => {
        supervisors.note(process.processId, process.supervisor)
        return toInfo(facts, process)
      })
    ),
    Effect.mapError((error) => unreachable(error, asked("list processes")))
  )
  /** Of a call on one process: one that has ended is no error to those who only want it to. */
  const onProcess = (operation: string, processId: string, call: ReturnType<AgentClient["ping"]>) =>
    call.pipe(
      Effect.catchIf(
        (error) => error._tag === "AgentFailed" && error.code === "closed",
        () => Effect.void
      ),
      Effect.mapError((error) => processError(error, processId, asked(operation)))
    )
  const spawnFailure = (request: SpawnRequest) => (error: Parameters<typeof spawnError>[0]) =>
    spawnError(error, request.argv[0], request.processId, asked("start a process"))

  return {
    supervisorOf: supervisors.of,
    list,
    run: (request) =>
      client
        .run(toSpec(request), millis)
        .pipe(Stream.map(noting(request.processId)), Stream.mapError(spawnFailure(request))),
    start: Effect.fnUntraced(function* (request: SpawnRequest) {
      const started = yield* Effect.mapError(client.spawn(toSpec(request), millis), spawnFailure(request))
      supervisors.note(request.processId, started.supervisor)
      if (started.existed) {
        const existing = (yield* list).find((info) => info.processId === request.processId)
        if (existing !== undefined) return processInfoOf(existing)
      }
      return {
        processId: request.processId,
        generation: facts.generation,
        pid: started.pid,
        argv: request.argv,
        user: request.user,
        pty: request.pty !== undefined,
        startedAt: started.startedAt,
        oldest: 0,
        end: 0
      }
    }),
    attach: (processId, cursor, holds) =>
      client.attach(processId, cursor, millis, holds).pipe(
        Stream.map(lift),
        Stream.mapError(
          (error) =>
            exhausted(error, "readers") ?? processError(error, processId, asked("attach to a process"))
        )
      ),
    signal: (processId, signal) =>
      onProcess("signal", processId, client.signal(processId, signalNumbers[signal], "group", millis)),
    cancel: (start, cause) =>
      client.cancel(start, cause, killMillis, killMillis + millis).pipe(
        Effect.mapError((error) => cancelError(error, asked("cancel"))),
        Effect.flatMap(({ treeGone, met }) => (treeGone ? Effect.succeed(met) : Effect.fail(stillAlive)))
      ),
    limit: (processId, leftMillis) =>
      onProcess("limit", processId, client.limit(processId, leftMillis, millis)),
    kill: (processId) =>
      client.kill(processId, killMillis, killMillis + millis).pipe(
        Effect.mapError((error) => processError(error, processId, asked("kill"))),
        Effect.filterOrFail(
          (treeGone) => treeGone,
          () => stillAlive
        ),
        Effect.asVoid
      ),
    writeStdin: (processId, offset, data) =>
      client.writeStdin(processId, offset, data, millis).pipe(
        // The program did not read all that time. Nothing was taken: the caller may offer it again.
        Effect.catchTag("AgentTimeout", () => Effect.succeed(offset)),
        Effect.mapError(
          (error) => offsetError(error) ?? processError(error, processId, asked("write to standard input"))
        )
      ),
    closeStdin: (processId) =>
      onProcess("close standard input", processId, client.closeStdin(processId, millis)),
    resize: (processId, { rows, cols }) =>
      client.resize(processId, rows, cols, millis).pipe(
        Effect.catchIf(
          (error) => error._tag === "AgentFailed" && error.code === "closed",
          () => Effect.void
        ),
        Effect.mapError((error) =>
          error._tag === "AgentFailed" && error.code === "invalid"
            ? new InvalidArgument({ field: "size", reason: "the process has no terminal" })
            : processError(error, processId, asked("resize a terminal"))
        )
      )
  }
}
