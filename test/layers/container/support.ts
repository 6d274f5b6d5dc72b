/**
 * Real containers for tests: a backend in an instance of its own, and what of
 * it can be seen from the host.
 */
import { NodeServices } from "@effect/platform-node"
import { Context, Effect, FileSystem, Layer, Schedule, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { Generation, makeProcessId, makeSandboxId, type SandboxId } from "../../../src/domain/Ids.ts"
import { exitCodeOf } from "../../../src/domain/Process.ts"
import { defaultLimits, type Limits, type SandboxSpec, type User } from "../../../src/domain/Sandbox.ts"
import * as AgentConnector from "../../../src/layers/container/AgentConnector.ts"
import * as ContainerBackend from "../../../src/layers/container/ContainerBackend.ts"
import type { ContainerOptions } from "../../../src/layers/container/Settings.ts"
import * as DirectoryInstance from "../../../src/layers/instance/DirectoryInstance.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Instance } from "../../../src/services/Instance.ts"
import type { Machine } from "../../../src/services/Machine.ts"

export { canRunContainers as canRun } from "../../canRunContainers.ts"

export const platform = Layer.merge(NodeServices.layer, SecureRandom.layerWebCrypto)

/** A directory that goes when the tests end; short, as unix socket addresses are. */
export class Base extends Context.Service<Base, { readonly path: string }>()("test/container/Base") {
  static readonly layer = Layer.effect(
    Base,
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      return { path: yield* fs.makeTempDirectoryScoped({ prefix: "fb-" }) }
    })
  )
}

/** A container backend, ephemeral or in a state directory below the base. */
export const backend = (options: { readonly state?: string; readonly container?: ContainerOptions } = {}) =>
  Layer.unwrap(
    Effect.map(Base, ({ path }) =>
      ContainerBackend.layer(options.container).pipe(
        Layer.provide(AgentConnector.layer),
        Layer.provideMerge(
          DirectoryInstance.layer({
            baseDir: path,
            stateDir: options.state === undefined ? undefined : `${path}/${options.state}`
          })
        )
      )
    )
  )

/** A backend with everything below it. */
export const everything = backend().pipe(Layer.provideMerge(Base.layer), Layer.provideMerge(platform))

export const specOf = (change: Partial<SandboxSpec> = {}, limits: Partial<Limits> = {}): SandboxSpec => ({
  image: "host",
  limits: { ...defaultLimits, ...limits },
  network: "none",
  env: {},
  labels: {},
  ports: [],
  restartPolicy: { _tag: "Never" },
  ...change
})

/** A machine that is removed when the scope closes. */
export const sandbox = Effect.fnUntraced(function* (
  spec: SandboxSpec = specOf(),
  options: { readonly id?: SandboxId; readonly generation?: number; readonly detached?: boolean } = {}
) {
  const service = yield* Backend
  const id = options.id ?? (yield* makeSandboxId("test"))
  const request = {
    sandboxId: id,
    generation: Generation.make(options.generation ?? 1),
    spec,
    detached: options.detached ?? false
  }
  yield* Effect.addFinalizer(() => Effect.orDie(service.remove(id)))
  const machine = yield* service.provision(request)
  return { id, request, machine }
})

/** Runs a shell command in a machine; `out` is both outputs as they came. */
export const sh = Effect.fnUntraced(function* (machine: Machine, command: string, user: User = "user") {
  const events = yield* machine.processes
    .run({
      processId: yield* makeProcessId,
      argv: ["/bin/sh", "-c", command],
      env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", HOME: "/tmp" },
      cwd: "/",
      user,
      pty: undefined,
      stdin: false,
      identity: 0,
      journalBytes: 1024 * 1024
    })
    .pipe(Stream.runCollect)
  const decoder = new TextDecoder()
  let out = ""
  let code = -1
  for (const event of events) {
    if (event._tag === "Output") out += decoder.decode(event.data, { stream: true })
    if (event._tag === "Exited") code = exitCodeOf(event.status)
  }
  return { code, out }
})

/** Everything on the host that carries the instance's name: processes, mounts, loop devices, groups, sockets, files. */
export const remains = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const { id, stateDir, baseDir } = yield* Instance
  const names = (path: string) => Effect.orElseSucceed(fs.readDirectory(path), (): Array<string> => [])
  const text = (path: string) => Effect.orElseSucceed(fs.readFileString(path), () => "")
  const found: Array<string> = []
  for (const pid of (yield* names("/proc")).filter((name) => /^\d+$/.test(name))) {
    // A zombie is a number that the machine's init has yet to collect.
    const dead = /^State:\s+[ZX]/m.test(yield* text(`/proc/${pid}/status`))
    if (!dead && (yield* text(`/proc/${pid}/cgroup`)).includes(`fiberbox-${id}`)) found.push(`process ${pid}`)
  }
  for (const line of (yield* text("/proc/self/mountinfo")).split("\n")) {
    if (line.includes(stateDir) || line.includes("/mnt/root")) found.push(`mount ${line}`)
  }
  for (const name of yield* names("/sys/block")) {
    const backing = yield* text(`/sys/block/${name}/loop/backing_file`)
    if (backing.includes(stateDir)) found.push(`loop device ${name}`)
  }
  for (const hierarchy of yield* names("/sys/fs/cgroup")) {
    const groups = yield* names(`/sys/fs/cgroup/${hierarchy}/fiberbox-${id}`)
    found.push(
      ...groups.filter((name) => name.startsWith("test_")).map((name) => `group ${hierarchy}/${name}`)
    )
  }
  if ((yield* text("/proc/net/unix")).includes(stateDir)) found.push("socket")
  for (const directory of ["s", "runc"]) {
    found.push(...(yield* names(`${stateDir}/${directory}`)).map((name) => `${directory}/${name}`))
  }
  for (const name of (yield* names(`${baseDir}/ids`)).filter((name) => /^\d+$/.test(name))) {
    if ((yield* text(`${baseDir}/ids/${name}`)) === id) found.push(`ids ${name}`)
  }
  return found
})

/** A process that has been killed and only has to leave the kernel, as the helper's child that warms the control groups. */
const isProcess = (name: string) => name.startsWith("process ")

/** What a look finds, once it finds no process any more, or after 5 seconds. */
export const settled = <E, R>(look: Effect.Effect<ReadonlyArray<string>, E, R>) =>
  Effect.repeat(look, {
    until: (found) => !found.some(isProcess),
    schedule: Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(500)])
  })

/** What stays of an instance whose machines have ended. */
export const leftovers = settled(remains)
