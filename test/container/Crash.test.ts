import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { ChildProcess } from "effect/process"
import type { Process } from "../../src/services/Process.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, service, temporary } from "./support.ts"

/** Runs `owner.ts` until it is ready and kills it. */
const killedOwner = Effect.fnUntraced(function* (base: string) {
  const program = fileURLToPath(new URL("./owner.ts", import.meta.url))
  const owner = yield* ChildProcess.make(process.execPath, [program, base], { stderr: "inherit" })
  yield* owner.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.takeUntil((line) => line.startsWith("ready")),
    Stream.runDrain
  )
  yield* owner.kill({ killSignal: "SIGKILL" })
}, Effect.scoped)

/** The lines a process writes, from the start of its journal, until `enough` of them. */
const linesOf = (process: Process, enough: number) =>
  process.events().pipe(
    Stream.filter((event) => event._tag === "Output"),
    Stream.map((event) => event.data),
    Stream.decodeText(),
    Stream.splitLines,
    Stream.take(enough),
    Stream.runCollect
  )

describe.runIf(canRun)("a program that is killed with SIGKILL", () => {
  it.live(
    "leaves its detached sandboxes to the next start, with processes, journals and time limits, and nothing of the scoped",
    () =>
      Effect.gen(function* () {
        const base = yield* temporary
        yield* killedOwner(base)
        assert.isAbove((yield* remains(base)).length, 0)
        yield* Effect.gen(function* () {
          const { sandboxes } = yield* Sandboxes.list()
          assert.deepStrictEqual(
            sandboxes.map((sandbox) => String(sandbox.name)),
            ["keeper"]
          )
          const keeper = yield* Sandboxes.connect("keeper")
          const { status, generation } = yield* keeper.waitForReady()
          assert.deepStrictEqual({ status, generation }, { status: "running", generation: 1 })
          assert.strictEqual(yield* keeper.files.readText("/home/user/note"), "written before the kill")

          const counter = yield* keeper.process.connect("counter")
          const lines = yield* linesOf(counter, 400)
          assert.deepStrictEqual(
            lines,
            Array.from({ length: 400 }, (_, index) => String(index))
          )
          // Its limit began under the killed program, and this one holds it to what is left.
          const limited = yield* keeper.process.connect("limited")
          assert.deepInclude(yield* limited.exit, { _tag: "Signaled", signal: "SIGKILL" })
          const events = yield* keeper.events().pipe(
            Stream.map(({ body }) => body._tag),
            Stream.takeUntil((tag) => tag === "ProcessTimedOut"),
            Stream.runCollect
          )
          assert.deepStrictEqual(events.slice(-2), ["Adopted", "ProcessTimedOut"])

          const directories = (yield* remains(base)).filter((name) => name.startsWith("s/"))
          assert.deepStrictEqual(directories, [`s/${keeper.id.slice("sb_".length)}`])
          yield* keeper.kill
          assert.deepStrictEqual(yield* remains(base), [])
        }).pipe(Effect.provide(service(base)))
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
