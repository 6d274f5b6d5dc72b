/**
 * A service as a program of its own: started, ended, killed, started again.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Redacted, type Scope } from "effect"
import { find } from "../../src/service.ts"
import { canRun, remains, temporary } from "../container/support.ts"
import { end, found, launch } from "./program.ts"
import { sandboxesOf } from "./support.ts"

const promise = <E>(name: string, body: Effect.Effect<void, E, NodeServices.NodeServices | Scope.Scope>) =>
  it.live(name, () => body.pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 120_000)

describe("a service as a program", () => {
  promise(
    "logs as JSON when told to, ends well when asked to, and is gone then",
    Effect.gen(function* () {
      const base = yield* temporary
      const running = yield* launch({
        FIBERBOX_BASE_DIR: base,
        FIBERBOX_BACKEND: "memory",
        FIBERBOX_LOG: "json"
      })
      const { url } = yield* found(base, running)
      assert.strictEqual((yield* Effect.promise(() => fetch(`${url}/ready`))).status, 200)
      const code = yield* end(running, "SIGTERM")
      assert.oneOf(code, [0, 130, 143])
      const lines: ReadonlyArray<unknown> = running
        .log()
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line))
      const [serving] = lines
      assert.deepInclude(serving, { message: "serving", level: "INFO" })
      assert.isUndefined(yield* find(base))
    })
  )

  promise(
    "writes its log in key=value when nobody watches",
    Effect.gen(function* () {
      const base = yield* temporary
      const running = yield* launch({ FIBERBOX_BASE_DIR: base, FIBERBOX_BACKEND: "memory" })
      const { url } = yield* found(base, running)
      yield* end(running, "SIGTERM")
      assert.match(running.log(), new RegExp(`level=INFO .*message=serving .*url=${url}`))
    })
  )

  promise(
    "names the setting that is wrong",
    Effect.gen(function* () {
      const base = yield* temporary
      for (const [name, value] of [
        ["FIBERBOX_MAX_MEMORY", "much"],
        ["JWT_SECRET", "short"]
      ] as const) {
        const running = yield* launch({ FIBERBOX_BASE_DIR: base, FIBERBOX_BACKEND: "memory", [name]: value })
        assert.strictEqual(yield* running.ended, 1)
        assert.include(running.log(), name)
      }
    })
  )
})

describe.runIf(canRun)("a service of containers as a program", () => {
  const limits = { memoryBytes: 64 * 1024 * 1024, diskBytes: 16 * 1024 * 1024 }

  promise(
    "does not begin where it can never make a sandbox, as somebody other than root, and says why",
    Effect.gen(function* () {
      const base = yield* temporary
      yield* Effect.flatMap(FileSystem.FileSystem, (fs) => fs.chown(base, 65_534, 65_534))
      const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
      const running = yield* launch({ FIBERBOX_BASE_DIR: base }, nobody)
      assert.strictEqual(yield* running.ended, 1)
      assert.match(running.log(), /uid 65534 may not make containers/)
      assert.isUndefined(yield* find(base))
    })
  )

  promise(
    "leaves its sandboxes running when it ends or is killed, and has them again with all that they wrote",
    Effect.gen(function* () {
      const base = yield* temporary
      const env = { FIBERBOX_BASE_DIR: base, FIBERBOX_STATE_DIR: `${base}/state` }
      let token = ""
      const during = Effect.fnUntraced(function* <A, E>(
        signal: NodeJS.Signals,
        extra: Readonly<Record<string, string>>,
        body: (sandboxes: Effect.Success<ReturnType<typeof sandboxesOf>>) => Effect.Effect<A, E>
      ) {
        const running = yield* launch({ ...env, ...extra })
        const service = yield* found(base, running)
        // A client from before knows the token of the next one.
        token ||= Redacted.value(service.token)
        assert.strictEqual(Redacted.value(service.token), token)
        const result = yield* Effect.scoped(Effect.flatMap(sandboxesOf(service, token), body))
        yield* end(running, signal)
        return result
      })

      yield* during("SIGTERM", {}, (sandboxes) =>
        Effect.gen(function* () {
          const sandbox = yield* sandboxes.createDetached({ name: "box", limits })
          yield* sandbox.files.write("/home/user/kept", "kept")
          const counter = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"
          yield* sandbox.process.start(["sh", "-c", counter], { processId: "counter" })
        })
      )
      for (const signal of ["SIGKILL", "SIGTERM"] as const) {
        yield* during(signal, {}, (sandboxes) =>
          Effect.gen(function* () {
            const sandbox = yield* sandboxes.connect("box")
            assert.deepInclude(yield* sandbox.info, { status: "running", restarts: 0 })
            assert.strictEqual(yield* sandbox.files.readText("/home/user/kept"), "kept")
            const [process] = yield* sandbox.process.list
            assert.deepStrictEqual([process?.processId.toString(), process?.exit], ["counter", undefined])
          })
        )
      }
      yield* during("SIGTERM", { FIBERBOX_ON_CLOSE: "kill" }, (sandboxes) =>
        Effect.flatMap(sandboxes.connect("box"), (sandbox) => sandbox.info)
      )
      assert.deepStrictEqual(yield* remains(base), [])
    })
  )
})
