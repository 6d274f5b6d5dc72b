import { rmSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { documents, serve, temporary } from "./served.ts"
import { canRunContainers, fiberbox } from "./support.ts"

describe.runIf(canRunContainers)("sandboxes whose store was lost", () => {
  const lose = (baseDir: string) =>
    Effect.sync(() => {
      for (const end of ["", "-wal", "-shm"]) rmSync(`${baseDir}/service/store.db${end}`, { force: true })
    })

  it.live(
    "keep their disks, are shown by name, and can be adopted with all their files, or removed, with a service and without",
    () =>
      Effect.gen(function* () {
        const baseDir = yield* temporary
        const run = (...args: ReadonlyArray<string>) => fiberbox(args, { baseDir })
        const ok = (...args: ReadonlyArray<string>) =>
          Effect.map(run(...args), ({ code, err, out }) => {
            assert.strictEqual(code, 0, err)
            return out.trim()
          })
        const kept = yield* ok("create", "--name", "kept")
        const doomed = yield* ok("create", "--name", "doomed")
        yield* ok("exec", "kept", "--", "sh", "-c", "echo precious > file")
        yield* lose(baseDir)

        const noticed = yield* run("ls", "-q")
        assert.strictEqual(noticed.out, "")
        for (const word of [kept, doomed, "fiberbox remains"]) assert.include(noticed.err, word)
        const { running } = yield* serve([], { baseDir })
        const shown = documents(yield* ok("remains", "ls", "--json"))
        assert.sameDeepMembers(
          [...shown],
          [kept, doomed].map((sandboxId) => ({ sandboxId, running: false }))
        )
        assert.strictEqual(yield* ok("remains", "rm", doomed), doomed)
        assert.match((yield* run("remains", "rm", doomed)).err, new RegExp(`no sandbox ${doomed}`))
        assert.strictEqual(yield* ok("remains", "adopt", "--name", "rescued", kept), kept)
        assert.strictEqual(yield* ok("remains", "ls", "--json"), "")
        yield* ok("start", "rescued")
        assert.strictEqual(yield* ok("exec", "rescued", "--", "cat", "file"), "precious")
        yield* running.signal("SIGTERM")
        yield* running.ended

        yield* lose(baseDir)
        assert.strictEqual(yield* ok("remains", "adopt", kept), kept)
        yield* ok("start", kept)
        assert.strictEqual(yield* ok("exec", kept, "--", "cat", "file"), "precious")
        yield* ok("kill", kept)
      }).pipe(Effect.scoped),
    120_000
  )
})
