/**
 * What `fiberbox doctor` looks at: the machine, what each backend needs, and
 * the proof, which is a sandbox that runs a program.
 */
import { existsSync, statfsSync } from "node:fs"
import { arch, release } from "node:os"
import { dirname } from "node:path"
import { Effect, type Layer } from "effect"
import { Sandboxes } from "../services/Sandboxes.ts"
import type { BackendReport, Check, Report } from "./Doctor.ts"
import { describe } from "./Failure.ts"

const system: Effect.Effect<ReadonlyArray<Check>> = Effect.sync(() => [
  {
    name: "node",
    status: "ok",
    detail: `${process.version} on ${process.platform} ${arch()}, kernel ${release()}`
  }
])

/** Makes a sandbox and runs a program in it. */
const proof = <E>(layer: Layer.Layer<Sandboxes, E>): Effect.Effect<Check> =>
  Effect.gen(function* () {
    const sandbox = yield* Sandboxes.create()
    const { isolation } = yield* sandbox.process.run(["echo", "hello"])
    return { name: "a sandbox", status: "ok", detail: `ran a program; isolation: ${isolation}` } as const
  }).pipe(
    Effect.scoped,
    Effect.provide(layer),
    Effect.timeout("30 seconds"),
    Effect.catchCause((cause) =>
      Effect.succeed({ name: "a sandbox", status: "failed", detail: describe(cause).message } as const)
    )
  )

/** A backend works when its needs are met and the proof succeeds; without its needs it is not tried. */
const report = Effect.fnUntraced(function* <E>(
  backend: string,
  needs: ReadonlyArray<Check>,
  layer: Layer.Layer<Sandboxes, E>
): Effect.fn.Return<BackendReport> {
  const lacks = needs.some((check) => check.status === "failed")
  const checks = lacks ? needs : [...needs, yield* proof(layer)]
  return { backend, works: checks.every((check) => check.status !== "failed"), checks }
})

/** What the probe's shorter names stand for. */
const titles: Readonly<Record<string, string>> = {
  runtime: "OCI runtime",
  helper: "mount helper",
  mounts: "private mounts",
  "user-namespace": "user namespaces",
  disk: "loop disk, overlay",
  "layer /usr": "idmapped /usr"
}

const container = Effect.gen(function* () {
  const { Container } = yield* Effect.promise(() => import("../container.ts"))
  const { probe } = yield* Effect.promise(() => import("../layers/container/Probe.ts"))
  const { defaultPrograms } = yield* Effect.promise(() => import("../layers/container/Settings.ts"))
  const { defaultBaseDir } = yield* Effect.promise(() => import("../layers/instance/DirectoryInstance.ts"))
  const baseDir = yield* defaultBaseDir
  const found = yield* probe({ ...defaultPrograms, baseDir })
  const needs = found.map(({ detail, fix, name, ok, required }): Check => {
    const status = ok ? "ok" : required ? "failed" : "warning"
    const told = { name: titles[name] ?? name, status, detail: detail === "" ? "works" : detail } as const
    return fix === "" ? told : { ...told, fix }
  })
  return yield* report("container", [...needs, diskSpace(baseDir)], Container.layer())
})

const memory = Effect.gen(function* () {
  const { Memory } = yield* Effect.promise(() => import("../memory.ts"))
  return yield* report("memory", [], Memory.layer())
})

/** Each sandbox may write 2 GiB unless told otherwise; images and disks lie in the base directory. */
const enoughBytes = 2 * 1024 ** 3

const diskSpace = (baseDir: string): Check => {
  let directory = baseDir
  while (!existsSync(directory)) directory = dirname(directory)
  const { bavail, bsize } = statfsSync(directory)
  const free = bavail * bsize
  const detail = `${(free / 1024 ** 3).toFixed(1)} GiB free for ${baseDir}`
  return free >= enoughBytes
    ? { name: "disk space", status: "ok", detail }
    : { name: "disk space", status: "warning", detail, fix: "free some, or set FIBERBOX_BASE_DIR" }
}

/** Looks at everything. */
export const examine = Effect.fnUntraced(function* (version: string, defaultBackend: string) {
  const backends = [yield* container, yield* memory]
  const ok = backends.some(({ backend, works }) => backend === defaultBackend && works)
  const report: Report = { ok, defaultBackend, version, system: yield* system, backends }
  return report
})
