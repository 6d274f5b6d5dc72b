import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Container } from "../../src/container.ts"
import { Memory } from "../../src/memory.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, temporary } from "../container/support.ts"
import { chainFrom, recorder, times } from "./support.ts"

/** What one traced use of a sandbox leaves, outermost first. */
const traced = Effect.fnUntraced(function* (
  use: (sandbox: Effect.Success<ReturnType<typeof Sandboxes.create>>) => Effect.Effect<unknown, unknown>
) {
  const { spans, layer } = recorder()
  const sandbox = yield* Sandboxes.create({
    limits: { memoryBytes: 64 * 1024 * 1024, diskBytes: 16 * 1024 * 1024 }
  })
  yield* use(sandbox).pipe(Effect.withSpan("program"), Effect.provide(layer))
  const root = spans.find((span) => span.name === "program")
  return root === undefined ? assert.fail("the program's own span is missing") : chainFrom(spans, root)
}, Effect.scoped)

const names = (chain: ReadonlyArray<{ readonly name: string }>) => chain.map(({ name }) => name)

describe("a trace in memory", () => {
  it.effect("of one exec goes from the caller to the backend, each within the one before", () =>
    Effect.gen(function* () {
      const chain = yield* traced((sandbox) => sandbox.process.run(["true"]))
      assert.deepStrictEqual(names(chain), [
        "program",
        "Sandbox.process.run",
        "Sandbox.client.ExecProcess",
        "Sandbox.ExecProcess",
        "Backend: run a process"
      ])
      assert.strictEqual(new Set(chain.map(({ traceId }) => traceId)).size, 1)
    }).pipe(Effect.provide(Memory.layer()))
  )

  it.effect("of a file operation goes the same way", () =>
    Effect.gen(function* () {
      const chain = yield* traced((sandbox) => sandbox.files.write("/tmp/x", "y"))
      assert.deepStrictEqual(names(chain).slice(1), [
        "Sandbox.files.write",
        "Sandbox.client.WriteFile",
        "Sandbox.WriteFile",
        "Backend: write a file"
      ])
    }).pipe(Effect.provide(Memory.layer()))
  )

  it.effect("tells of a failure where it happened and in all that was around it", () =>
    Effect.gen(function* () {
      const chain = yield* traced((sandbox) => Effect.ignore(sandbox.files.readText("/no/such/file")))
      const failed = chain.slice(1).map(({ status }) => status._tag === "Ended" && status.exit._tag)
      assert.deepStrictEqual(failed, ["Failure", "Failure", "Failure", "Failure"])
    }).pipe(Effect.provide(Memory.layer()))
  )
})

describe.runIf(canRun)("a trace in a container", () => {
  it.live("of one exec ends at the agent, and each span lies within the one before", () =>
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const chain = yield* traced((sandbox) => sandbox.process.run(["true"])).pipe(
        Effect.provide(Container.layer({ baseDir }))
      )
      assert.deepStrictEqual(names(chain).slice(1), [
        "Sandbox.process.run",
        "Sandbox.client.ExecProcess",
        "Sandbox.ExecProcess",
        "Backend: run a process",
        "Agent: Spawn"
      ])
      for (const [index, inner] of chain.entries()) {
        const outer = chain[index - 1]
        if (outer === undefined) continue
        const [from, to] = times(inner)
        assert.isTrue(times(outer)[0] <= from && from < to, inner.name)
        // An RPC server's span ends when its answer has been sent: its client may have it by then.
        if (inner.kind !== "server") assert.isTrue(to <= times(outer)[1], inner.name)
      }
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
