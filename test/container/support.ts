/**
 * Whole programs with real containers: an instance in a directory of its own,
 * and what of it the host shows.
 */
import { Context, Effect, FileSystem, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { SandboxesClient } from "../../src/client.ts"
import { Container } from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { aliceToken, onlyAlice, serving } from "../rpc/support.ts"

export { canRunContainers as canRun } from "../canRunContainers.ts"

/** `Sandboxes` of a persistent instance below a directory. */
export const service = (base: string, state = "state") =>
  Container.layer({ baseDir: base, stateDir: `${base}/${state}` })

/** A service of containers below a directory, which kills them all when it ends: reached in this process, and over a connection. */
export const served = Effect.fnUntraced(function* (base: string, state = "state") {
  const actors = InProcess.client.pipe(
    Layer.provide(InProcess.actors({ onClose: "kill" })),
    Layer.provide(Container.parts({ baseDir: base, stateDir: `${base}/${state}` }))
  )
  const inside = Sandboxes.layer.pipe(Layer.provide(SecureRandom.layerWebCrypto), Layer.provideMerge(actors))
  const context = yield* Layer.build(serving().pipe(Layer.provideMerge(Layer.merge(inside, onlyAlice))))
  const { url } = Context.get(context, Server.ServerAddress)
  const reach = (transport: "websocket" | "http") =>
    Effect.map(
      Layer.build(Layer.fresh(SandboxesClient.layer({ url, token: aliceToken, transport }))),
      (context) => Context.get(context, Sandboxes)
    )
  return { url, inside: Context.get(context, Sandboxes), reach }
})

/** A directory that goes when the scope closes; short, as unix socket addresses are. */
export const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  fs.makeTempDirectoryScoped({ prefix: "fb-" })
)

const names = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    Effect.orElseSucceed(fs.readDirectory(path), (): Array<string> => [])
  )

const text = (path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => Effect.orElseSucceed(fs.readFileString(path), () => ""))

/** The living processes in control groups whose path holds `part`, with their command lines. */
export const processesIn = Effect.fnUntraced(function* (part: string) {
  const found: Array<string> = []
  for (const pid of (yield* names("/proc")).filter((name) => /^\d+$/.test(name))) {
    if (!(yield* text(`/proc/${pid}/cgroup`)).includes(part)) continue
    if (/^State:\s+[ZX]/m.test(yield* text(`/proc/${pid}/status`))) continue
    found.push((yield* text(`/proc/${pid}/cmdline`)).replaceAll("\0", " ").trim())
  }
  return found
})

/** What the host shows of an instance: processes, control groups, loop devices, sockets, directories, ids. */
export const remains = Effect.fnUntraced(function* (base: string, state = "state") {
  const { id } = JSON.parse(yield* text(`${base}/${state}/instance.json`)) as { readonly id: string }
  const found = (yield* processesIn(`fiberbox-${id}`)).map((command) => `process ${command}`)
  for (const hierarchy of yield* names("/sys/fs/cgroup")) {
    const groups = yield* names(`/sys/fs/cgroup/${hierarchy}/fiberbox-${id}`)
    found.push(
      ...groups.filter((name) => name.startsWith("local_")).map((name) => `group ${hierarchy}/${name}`)
    )
  }
  for (const name of yield* names("/sys/block")) {
    if ((yield* text(`/sys/block/${name}/loop/backing_file`)).startsWith(`${base}/${state}/`))
      found.push(name)
  }
  if ((yield* text("/proc/net/unix")).includes(`${base}/${state}/`)) found.push("socket")
  if ((yield* text("/proc/self/mountinfo")).includes(`${base}/${state}/`)) found.push("mount")
  for (const directory of ["s", "runc"]) {
    found.push(...(yield* names(`${base}/${state}/${directory}`)).map((name) => `${directory}/${name}`))
  }
  return found
})
