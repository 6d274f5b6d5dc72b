import { fileURLToPath } from "node:url"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { ChildProcess } from "effect/process"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { Base, canRun, platform } from "./support.ts"

const program = fileURLToPath(new URL("./ready.ts", import.meta.url))

/** What a backend says of itself in a mount namespace of its own, after a shell has prepared that. */
const said = Effect.fnUntraced(function* (prepare: string, runtime = "runc", load = "", make = "") {
  const { path } = yield* Base
  const script = `${prepare || ":"}; exec "$0" "$@"`
  const args = ["--mount", "sh", "-c", script, process.execPath, program, path, runtime, load, make]
  const spawner = yield* ChildProcessSpawner
  return (yield* spawner.string(ChildProcess.make("unshare", args, { stderr: "inherit" }))).trim()
})

describe.runIf(canRun)("a container backend is ready", () => {
  layer(Base.layer.pipe(Layer.provideMerge(platform)), { excludeTestServices: true })((it) => {
    it.effect("where all is well", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* said(""), "ready")
      })
    )

    it.effect("not where control groups cannot be written", () =>
      Effect.gen(function* () {
        const freezer = `$(awk '$9 == "cgroup" && $NF ~ /freezer/ || $9 == "cgroup2" { print $5; exit }' /proc/self/mountinfo)`
        const answer = yield* said(`mount -o remount,bind,ro "${freezer}"`)
        assert.match(answer, /^Unsupported: .*cannot be written: EROFS/)
      })
    )

    it.effect("not without a runtime, nor with one that fails or does not answer", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { path } = yield* Base
        assert.match(
          yield* said("", "/nonexistent/runc"),
          /^Unsupported: .*runtime: \/nonexistent\/runc is missing/
        )
        yield* fs.writeFileString(`${path}/broken`, "#!/bin/sh\nexit 3\n", { mode: 0o755 })
        assert.match(yield* said("", `${path}/broken`), /^Unsupported: .*ended with code 3/)
        yield* fs.writeFileString(`${path}/hung`, "#!/bin/sh\nsleep 300 & wait\n", { mode: 0o755 })
        assert.match(yield* said("", `${path}/hung`), /^BackendFailed: .*gave no answer in 1500 ms/)
      })
    )

    it.effect("not without room on the disk", () =>
      Effect.gen(function* () {
        const { path } = yield* Base
        assert.match(
          yield* said(`mount -t tmpfs -o size=8m tmpfs ${path}`),
          /^ResourceExhausted: out of disk/
        )
        assert.match(
          yield* said(`mount -t tmpfs -o size=64m,nr_inodes=32 tmpfs ${path}`),
          /^ResourceExhausted: out of inodes/
        )
      })
    )

    it.effect("not without descriptors", () =>
      Effect.gen(function* () {
        assert.match(
          yield* said("ulimit -n 256", "runc", "full"),
          /^ResourceExhausted: out of file-descriptors/
        )
      })
    )

    it.effect("and says what was used up when one could not be made", () =>
      Effect.gen(function* () {
        const { path } = yield* Base
        assert.match(
          yield* said("ulimit -n 256", "runc", "full", "make"),
          /^ResourceExhausted: out of file-descriptors/
        )
        assert.match(
          yield* said(`mount -t tmpfs -o nr_inodes=12 tmpfs ${path}`, "runc", "", "make"),
          /^ResourceExhausted: out of disk/
        )
      })
    )
  })
})
