/**
 * What `fiberbox doctor` looks at: the machine, what each backend needs, and
 * the proof, which is a sandbox that runs a program.
 */
import { arch, release } from "node:os"
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

const report = (backend: string, checks: ReadonlyArray<Check>): BackendReport => ({
  backend,
  works: checks.every((check) => check.status !== "failed"),
  checks
})

const container = Effect.gen(function* () {
  const { Container } = yield* Effect.promise(() => import("../container.ts"))
  return report("container", [yield* proof(Container.layer())])
})

const memory = Effect.gen(function* () {
  const { Memory } = yield* Effect.promise(() => import("../memory.ts"))
  return report("memory", [yield* proof(Memory.layer())])
})

/** Looks at everything. */
export const examine = Effect.fnUntraced(function* (
  version: string,
  defaultBackend: string
): Effect.fn.Return<Report> {
  const backends = [yield* container, yield* memory]
  const ok = backends.some(({ backend, works }) => backend === defaultBackend && works)
  return { ok, defaultBackend, version, system: yield* system, backends }
})
