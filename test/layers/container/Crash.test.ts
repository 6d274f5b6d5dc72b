import { fileURLToPath } from "node:url"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { Backend } from "../../../src/services/Backend.ts"
import { Base, backend, canRun, platform, settled } from "./support.ts"

/** A program that starts two machines in an ephemeral instance, killed some time after it began. Returns the instance's id. */
const killedOwner = Effect.fnUntraced(function* (base: string, after: "ready" | number) {
  const program = fileURLToPath(new URL("./owner.ts", import.meta.url))
  const owner = yield* ChildProcess.make(process.execPath, [program, base], { stderr: "inherit" })
  const lines = yield* owner.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.takeUntil((line) => after !== "ready" || line === "ready"),
    Stream.runCollect
  )
  if (after !== "ready") yield* Effect.sleep(after)
  yield* owner.kill({ killSignal: "SIGKILL" })
  return Array.from(lines)[0] ?? ""
}, Effect.scoped)

/** What the host still shows of an instance below a directory. */
const leftOf = Effect.fnUntraced(function* (base: string, id: string) {
  const fs = yield* FileSystem.FileSystem
  const read = (path: string) => Effect.orElseSucceed(fs.readFileString(path), () => "")
  const left = [
    ...(yield* fs.readDirectory(`${base}/ephemeral`)),
    ...(yield* fs.readDirectory(`${base}/ids`))
  ]
  for (const name of yield* fs.readDirectory("/sys/block")) {
    if ((yield* read(`/sys/block/${name}/loop/backing_file`)).startsWith(base)) left.push(name)
  }
  for (const hierarchy of yield* fs.readDirectory("/sys/fs/cgroup")) {
    const group = `/sys/fs/cgroup/${hierarchy}/fiberbox-${id}`
    if (yield* fs.exists(group)) left.push(group)
  }
  if ((yield* read("/proc/net/unix")).includes(base)) left.push("socket")
  for (const pid of (yield* fs.readDirectory("/proc")).filter((name) => /^\d+$/.test(name))) {
    const command = yield* read(`/proc/${pid}/cmdline`)
    if (command.includes("fiberbox-host") && command.includes(base)) left.push(`process ${pid}`)
  }
  return left
})

const remainsOf = (base: string, id: string) => settled(leftOf(base, id))

describe.runIf(canRun)("a service that is killed", () => {
  layer(Base.layer.pipe(Layer.provideMerge(platform)), { excludeTestServices: true })((it) => {
    it.effect("leaves machines that the next start of anybody removes", () =>
      Effect.gen(function* () {
        const { path } = yield* Base
        const id = yield* killedOwner(path, "ready")
        assert.isAbove((yield* leftOf(path, id)).length, 10)
        yield* Effect.scoped(Effect.asVoid(Backend)).pipe(Effect.provide(backend({ state: "next" })))
        assert.deepStrictEqual(yield* remainsOf(path, id), [])
      })
    )

    it.effect(
      "in the middle of a start leaves nothing more than that",
      () =>
        // Seven programs are started and killed one after the other.
        Effect.gen(function* () {
          const { path } = yield* Base
          for (const millis of [5, 10, 15, 20, 25, 30, 40]) {
            const id = yield* killedOwner(path, millis)
            yield* Effect.asVoid(Backend).pipe(Effect.provide(backend({ state: "next" })))
            assert.deepStrictEqual(yield* remainsOf(path, id), [], `killed after ${millis} ms`)
          }
        }),
      120_000
    )
  })
})
