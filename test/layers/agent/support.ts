/**
 * The real agent, outside of any container.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { chownSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs"
import { createServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Deferred, Effect, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import {
  type AgentClient,
  connectAgent,
  type ProcessMessage,
  type SpawnSpec
} from "../../../src/layers/agent/AgentClient.ts"
import { unixSocket } from "../../../src/layers/agent/UnixTransport.ts"

const binary = new URL("../../../native/build/fiberbox-agent", import.meta.url).pathname

/** Whom the agent runs programs as here. */
export const ids =
  process.getuid?.() === 0
    ? { uid: 1000, gid: 1000 }
    : { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }

/** Long enough for a busy machine: it only bounds a broken test. */
export const deadline = 20_000

/** An agent of its own; `home` belongs to {@link ids}. */
export interface RunningAgent {
  readonly socket: string
  readonly home: string
  readonly process: ChildProcess
  readonly exited: Effect.Effect<void>
}

export const runAgent = Effect.fnUntraced(function* (...options: ReadonlyArray<string>) {
  const home = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const path = mkdtempSync(join(tmpdir(), "fba-"))
      chownSync(path, ids.uid, ids.gid)
      return path
    }),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const socketDir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "fbs-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const socket = join(socketDir, "a")
  const exited = yield* Deferred.make<void>()
  const child = yield* Effect.acquireRelease(
    Effect.map(listening(socket), (server) => {
      const child = spawn(binary, ["--listen-fd", "3", "--no-pid1", ...options], {
        stdio: ["ignore", "ignore", "inherit", descriptorOf(server)]
      })
      child.once("exit", () => Deferred.doneUnsafe(exited, Effect.void))
      server.close()
      return child
    }),
    (child) =>
      Effect.andThen(
        Effect.sync(() => child.kill()),
        Deferred.await(exited)
      )
  )
  const agent: RunningAgent = { socket, home, process: child, exited: Deferred.await(exited) }
  return agent
})

/** Listens under a name that is changed afterwards, because Node removes the one it has bound when it closes. */
const listening = (path: string): Effect.Effect<Server> =>
  Effect.callback((resume) => {
    const server = createServer()
    server.listen(`${path}.bound`, () => {
      renameSync(`${path}.bound`, path)
      resume(Effect.succeed(server))
    })
  })

/** Its file descriptor, of which Node has no public name. */
const descriptorOf = (server: Server): number => {
  const handle: unknown = Reflect.get(server, "_handle")
  if (typeof handle === "object" && handle !== null && "fd" in handle && typeof handle.fd === "number") {
    return handle.fd
  }
  throw new Error("a listening server has a descriptor")
}

/** A connection to it. */
export const connectTo = (agent: RunningAgent, options: { leaseMillis?: number; epoch?: string } = {}) =>
  connectAgent(unixSocket(agent.socket), {
    leaseMillis: options.leaseMillis ?? 0,
    epoch: options.epoch
  }).pipe(
    Effect.tap((client) => client.greeted(deadline)),
    Effect.provide(SecureRandom.layerWebCrypto)
  )

/** A test's own agent and a client of it. */
export const withAgent = <A, E, R>(
  body: (client: AgentClient, agent: RunningAgent) => Effect.Effect<A, E, R>,
  ...options: ReadonlyArray<string>
) =>
  Effect.scoped(
    Effect.flatMap(runAgent(...options), (agent) =>
      Effect.flatMap(connectTo(agent), (client) => body(client, agent))
    )
  )

let lastId = 0

/** A program with everything by default. */
export const program = (argv: ReadonlyArray<string>, more: Partial<SpawnSpec> = {}): SpawnSpec => ({
  ...ids,
  processId: `p${++lastId}`,
  argv,
  env: ["PATH=/usr/local/bin:/usr/bin:/bin"],
  cwd: "/",
  tty: undefined,
  stdin: false,
  identity: 0,
  limitMillis: undefined,
  journalBytes: 0,
  label: "",
  ...more
})

export const sh = (script: string, more: Partial<SpawnSpec> = {}) => program(["/bin/sh", "-c", script], more)

/** What a program wrote and how it ended. */
export interface Outcome {
  readonly stdout: string
  readonly stderr: string
  readonly exit: string
  readonly end: number
}

export const collect = <E>(messages: Stream.Stream<ProcessMessage, E>): Effect.Effect<Outcome, E> =>
  Effect.map(Stream.runCollect(messages), (all) => {
    const outputs: [Array<Uint8Array>, Array<Uint8Array>] = [[], []]
    let outcome = { exit: "none", end: -1 }
    for (const message of all) {
      if (message._tag === "Output") outputs[message.stream === 2 ? 1 : 0].push(message.data)
      if (message._tag === "Exit") {
        outcome = { exit: `${message.signalled ? "signal" : "code"} ${message.value}`, end: message.cursor }
      }
    }
    const text = (parts: ReadonlyArray<Uint8Array>) => Buffer.concat(parts).toString()
    return { stdout: text(outputs[0]), stderr: text(outputs[1]), ...outcome }
  })

/** How many processes of this machine have a text in their command line. */
export const countProcesses = (marker: string): number =>
  readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      return readFileSync(`/proc/${name}/cmdline`, "latin1").includes(marker)
    } catch {
      return false
    }
  }).length

/** How many processes of this machine have a name; unlike a command line, a process keeps it when its first thread has ended. */
export const countNamed = (name: string): number =>
  readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return readFileSync(`/proc/${pid}/comm`, "latin1") === `${name}\n`
    } catch {
      return false
    }
  }).length

/** Compiles the program of `threads.c` under a name in an agent's home; its path. */
export const threadsProgram = (agent: RunningAgent, name: string): string => {
  const path = join(agent.home, name)
  execFileSync("cc", ["-O1", "-o", path, new URL("./threads.c", import.meta.url).pathname, "-lpthread"])
  return path
}
