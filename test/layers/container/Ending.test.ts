import { assert, describe, layer } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Logger } from "effect"
import { ChildProcess } from "effect/process"
import { Generation } from "../../../src/domain/Ids.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Instance } from "../../../src/services/Instance.ts"
import { backend, canRun, everything, leftovers, sandbox, sh, specOf } from "./support.ts"

/** The agent's process, as the host numbers it. */
const agentOf = Effect.fnUntraced(function* (id: string) {
  const fs = yield* FileSystem.FileSystem
  const { stateDir } = yield* Instance
  return Number(yield* fs.readFileString(`${stateDir}/s/${id.slice(3)}/pid`))
})

describe.runIf(canRun)("the end of a container's machine", () => {
  layer(everything, { excludeTestServices: true })((it) => {
    it.effect("is told when its agent dies, and the sandbox's disk can be started again", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        const { id, machine, request } = yield* sandbox()
        yield* sh(machine, "echo kept > /home/user/file")
        const pid = yield* agentOf(id)
        yield* Effect.sync(() => process.kill(pid, "SIGKILL"))
        const exit = yield* Effect.timeout(machine.exited, "2 seconds")
        assert.deepStrictEqual(exit, { reason: "the machine's agent ended", outOfMemory: false })
        assert.strictEqual((yield* Effect.flip(machine.pause))._tag, "SandboxFailed")
        const again = yield* service.provision(request)
        assert.strictEqual((yield* sh(again, "cat /home/user/file")).out, "kept\n")
      }).pipe(Effect.scoped)
    )

    it.effect("says when memory ran out", () =>
      Effect.gen(function* () {
        const { id, machine } = yield* sandbox(specOf({}, { memoryBytes: 64 * 1024 * 1024 }))
        yield* sh(machine, `perl -e 'my $x = "a" x (256 * 1024 * 1024)'`)
        const pid = yield* agentOf(id)
        yield* Effect.sync(() => process.kill(pid, "SIGKILL"))
        assert.isTrue((yield* Effect.timeout(machine.exited, "2 seconds")).outOfMemory)
      }).pipe(Effect.scoped)
    )

    it.effect("comes by itself when its service is gone for longer than it waits", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        // The scope of a machine is the service's end of it.
        const { request } = yield* Effect.scoped(sandbox())
        yield* Effect.scoped(service.provision(request))
        const running = Effect.map(service.list, (refs) =>
          refs.some((ref) => ref.sandboxId === request.sandboxId && ref.generation !== undefined)
        )
        yield* Effect.repeat(running, { until: (runs) => !runs }).pipe(Effect.timeout("5 seconds"))
        yield* service.remove(request.sandboxId)
        assert.deepStrictEqual(yield* leftovers, [])
      }).pipe(Effect.provide(backend({ container: { orphanMillis: 200 } })))
    )

    it.effect(
      "comes though somebody on the host holds its mounts, who is named, and the next start waits for them",
      () =>
        Effect.gen(function* () {
          const service = yield* Backend
          const lines: Array<string> = []
          const logger = Logger.make(({ message }) => {
            lines.push(String(message))
          })
          const { id, machine, request } = yield* sandbox()
          yield* sh(machine, "echo kept > /home/user/file")
          const pid = yield* agentOf(id)
          const holder = yield* ChildProcess.make("nsenter", ["-t", String(pid), "-m", "sleep", "3091"])
          const enters = ChildProcess.make("sh", [
            "-c",
            `until [ $(readlink /proc/${holder.pid}/ns/mnt) = $(readlink /proc/${pid}/ns/mnt) ]; do :; done`
          ])
          yield* Effect.flatMap(enters, ({ exitCode }) => exitCode)
          yield* Effect.timeout(machine.terminate, "8 seconds").pipe(Effect.provide(Logger.layer([logger])))
          assert.include(lines.join("\n"), `still in use by process ${holder.pid} (sleep)`)
          assert.deepStrictEqual(yield* service.list, [{ sandboxId: id, generation: undefined }])
          const next = { ...request, generation: Generation.make(2) }
          const starting = yield* Effect.forkChild(service.provision(next), { startImmediately: true })
          yield* holder.kill({ killSignal: "SIGKILL" })
          const again = yield* Fiber.join(starting)
          assert.strictEqual((yield* sh(again, "cat /home/user/file")).out, "kept\n")
        }).pipe(Effect.scoped)
    )

    it.effect("does not come by itself to a detached one", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        const { request } = yield* Effect.scoped(sandbox())
        const detached = { ...request, detached: true }
        yield* Effect.scoped(service.provision(detached))
        yield* Effect.sleep("600 millis")
        assert.strictEqual((yield* service.list)[0]?.generation, request.generation)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const machine = yield* service.adopt(detached)
            assert.strictEqual((yield* sh(machine, "echo alive")).out, "alive\n")
          })
        )
      }).pipe(Effect.provide(backend({ container: { orphanMillis: 200 } })))
    )
  })
})
