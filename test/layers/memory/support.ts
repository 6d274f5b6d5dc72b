import { Effect, type Scope, Stream } from "effect"
import { Generation, ProcessId, SandboxId } from "../../../src/domain/Ids.ts"
import type { ExitStatus, ProcessEvent } from "../../../src/domain/Process.ts"
import { type Limits, resolveSpec } from "../../../src/domain/Sandbox.ts"
import { Backend, type MachineRequest, type ProvisionError } from "../../../src/services/Backend.ts"
import type { Machine, SpawnRequest } from "../../../src/services/Machine.ts"

export const home = "/home/user"

/** The n-th sandbox of a test. */
export const sandboxId = (n = 0) => SandboxId.make(`sb_test_${"a".repeat(25)}${"abcdefgh"[n] ?? "a"}`)

export const request = (
  options: {
    readonly n?: number
    readonly generation?: number
    readonly limits?: Partial<Limits>
    readonly detached?: boolean
  } = {}
): MachineRequest => ({
  sandboxId: sandboxId(options.n),
  generation: Generation.make(options.generation ?? 1),
  spec: resolveSpec({ limits: options.limits ?? {} }),
  detached: options.detached ?? true
})

/** A machine, until the scope closes. */
export const provision = (
  options: Parameters<typeof request>[0] = {}
): Effect.Effect<Machine, ProvisionError, Backend | Scope.Scope> =>
  Effect.flatMap(Backend, (backend) => backend.provision(request(options)))

export const processId = (text: string) => ProcessId.make(text)

let count = 0

/** A program with everything filled in, under an id of its own. */
export const program = (
  argv: readonly [string, ...Array<string>],
  options: Partial<SpawnRequest> = {}
): SpawnRequest => ({
  processId: processId(`p${count++}`),
  argv,
  env: { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: home },
  cwd: home,
  user: "user",
  pty: undefined,
  stdin: false,
  identity: 0,
  journalBytes: 1024 * 1024,
  ...options
})

export const script = (text: string, options: Partial<SpawnRequest> = {}): SpawnRequest =>
  program(["sh", "-c", text], options)

export interface Outcome {
  readonly out: string
  readonly err: string
  readonly status: ExitStatus | undefined
}

/** What events say, in short. */
export const summary = (events: ReadonlyArray<ProcessEvent>): Outcome => {
  const decoder = new TextDecoder()
  const text = (stream: "stdout" | "stderr") =>
    events
      .map((event) => (event._tag === "Output" && event.stream === stream ? decoder.decode(event.data) : ""))
      .join("")
  const last = events.at(-1)
  return {
    out: text("stdout"),
    err: text("stderr"),
    status: last?._tag === "Exited" ? last.status : undefined
  }
}

/** Runs a program to its end. */
export const run = (machine: Machine, spawn: SpawnRequest) =>
  Effect.map(Stream.runCollect(machine.processes.run(spawn)), summary)

/** What a script says and its exit code. */
export const sh = (machine: Machine, text: string, options: Partial<SpawnRequest> = {}) =>
  Effect.map(run(machine, script(text, options)), ({ out, err, status }) => ({
    out,
    err,
    code: status?._tag === "Exited" ? status.code : status
  }))

/** Lets everything in the machines go as far as it can at this moment. */
export const settle = Effect.repeat(Effect.yieldNow, { times: 4 })

export const exited = (code: number): ExitStatus => ({ _tag: "Exited", code })
export const killed: ExitStatus = { _tag: "Signaled", signal: "SIGKILL", number: 9 }

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
