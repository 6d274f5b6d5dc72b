import { existsSync, readFileSync, statSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { documents, serve, temporary } from "./served.ts"
import { canRunContainers, eventually, fiberbox, start } from "./support.ts"

describe("fiberbox serve", () => {
  it.live("says where it is and where the token is, is found while it runs, and ends well", () =>
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const { running, stateDir, tokenFile, url } = yield* serve(["--backend", "memory"], { baseDir })
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/)
      assert.strictEqual(stateDir, `${baseDir}/service`)
      assert.strictEqual(statSync(tokenFile).mode & 0o777, 0o600)
      const created = yield* fiberbox(["create", "--name", "one"], { baseDir })
      assert.strictEqual(created.code, 0)
      assert.include((yield* fiberbox(["ls"], { baseDir })).out, "one ")
      assert.include((yield* fiberbox(["ls"], { baseDir, env: { FIBERBOX_URL: url } })).out, "one ")
      yield* running.signal("SIGTERM")
      assert.strictEqual((yield* running.ended).code, 0)
      assert.match((yield* fiberbox(["keys", "ls"], { baseDir })).err, /none is running.*fiberbox serve/)
    }).pipe(Effect.scoped)
  )

  it.live("tells people the same in words", () =>
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const running = yield* start(["serve", "--backend", "memory", "--port", "0", "--ephemeral"], {
        baseDir
      })
      const said = yield* running.shows("Ctrl-C ends it.")
      assert.match(
        said,
        /^fiberbox serves at http:\/\/127\.0\.0\.1:\d+\n {2}token +\S+\/token\n {2}state +\S+\n/
      )
      yield* running.signal("SIGINT")
      const { code, err } = yield* running.ended
      assert.strictEqual(code, 0)
      assert.match(err, /level=INFO .*message=serving/)
    }).pipe(Effect.scoped)
  )

  it.live("lets calls under way finish, for as long as it was told", () =>
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const { running } = yield* serve(["--backend", "memory"], { baseDir })
      yield* fiberbox(["create", "--name", "one"], { baseDir })
      const script = "echo begun; sleep 1; echo done; exit 6"
      const call = yield* start(["exec", "one", "--", "sh", "-c", script], { baseDir, open: true })
      yield* call.shows("begun")
      yield* running.signal("SIGTERM")
      const ended = yield* call.ended
      assert.deepStrictEqual([ended.code, ended.out], [6, "begun\ndone\n"])
      assert.strictEqual((yield* running.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("waits for no call when it is told to end a second time", () =>
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const { running } = yield* serve(["--backend", "memory", "--drain", "10m"], { baseDir })
      yield* fiberbox(["create", "--name", "one"], { baseDir })
      const script = "echo begun; sleep 1000"
      const call = yield* start(["exec", "one", "--", "sh", "-c", script], { baseDir, open: true })
      yield* call.shows("begun")
      yield* running.signal("SIGTERM")
      // It has heard the first: two that come at the same time are one.
      yield* eventually(() => (existsSync(`${baseDir}/service.json`) ? undefined : true))
      yield* running.signal("SIGTERM")
      assert.strictEqual((yield* running.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("says in one line why it does not start: a port, a setting, a state directory", () =>
    Effect.gen(function* () {
      const baseDir = yield* temporary
      const { url } = yield* serve(["--backend", "memory", "--ephemeral"], { baseDir })
      const again = ["serve", "--backend", "memory", "--ephemeral"]
      const taken = yield* fiberbox([...again, "--port", new URL(url).port], { baseDir })
      assert.strictEqual(taken.code, 125)
      assert.match(taken.err, /EADDRINUSE.*--port chooses another/)
      const setting = yield* fiberbox(again, { baseDir, env: { FIBERBOX_PORT: "x" } })
      assert.match(setting.err, /^fiberbox: a setting of the environment is wrong: .*FIBERBOX_PORT.*\n$/)
      const secret = yield* fiberbox([...again, "--json"], { baseDir, env: { JWT_SECRET: "short" } })
      assert.deepInclude(documents(secret.out)[0], { event: "error", exitCode: 125 })
      const directory = yield* fiberbox(["serve", "--state-dir", "/dev/null/x", "--port", "0"], { baseDir })
      assert.strictEqual(directory.code, 125)
      assert.match(directory.err, /\/dev\/null\/x/)
    }).pipe(Effect.scoped)
  )
})

describe.runIf(canRunContainers)("without a service", () => {
  it.live(
    "a command that is begun while a service ends goes on with the next one",
    () =>
      Effect.gen(function* () {
        const baseDir = yield* temporary
        const first = yield* serve([], { baseDir })
        assert.strictEqual((yield* fiberbox(["create", "--name", "dev"], { baseDir })).code, 0)
        // It keeps the service for its whole drain.
        const long = yield* start(["exec", "dev", "--", "sleep", "600"], { baseDir, open: true })
        yield* Effect.repeat(fiberbox(["ps", "dev"], { baseDir }), {
          until: ({ out }) => out.includes("sleep")
        })
        yield* first.running.signal("SIGTERM")
        const listing = yield* start(["ls", "-q"], { baseDir })
        const second = yield* serve([], { baseDir })
        const { code, out, err } = yield* listing.ended
        assert.deepStrictEqual([code, err], [0, ""])
        assert.match(out, /^sb_\S+\n$/)
        yield* long.signal("SIGINT")
        yield* long.ended
        yield* fiberbox(["kill", "dev"], { baseDir })
        yield* second.running.signal("SIGTERM")
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "commands share sandboxes that stay, processes and pauses included; a service takes them over; then they are gone",
    () =>
      Effect.gen(function* () {
        const baseDir = yield* temporary
        const run = (...args: ReadonlyArray<string>) => fiberbox(args, { baseDir })
        const created = yield* run("create", "--name", "dev")
        assert.deepStrictEqual([created.code, created.err], [0, ""])
        yield* run("exec", "dev", "--", "sh", "-c", "echo kept > file")
        assert.strictEqual((yield* run("exec", "dev", "--", "cat", "file")).out, "kept\n")
        const script =
          "for i in 1 2 3; do echo $i; sleep 0.3; done; until test -e go; do sleep 0.01; done; exit 5"
        yield* run("exec", "-d", "--id", "bg", "dev", "--", "sh", "-c", script)
        yield* run("pause", "dev")
        assert.match((yield* run("exec", "dev", "--", "true")).err, /is paused/)
        const resumed = yield* run("resume", "dev")
        assert.deepStrictEqual([resumed.code, resumed.err], [0, ""])

        // While one command is at work, another waits for it a little, and then says what helps.
        const attached = yield* start(["attach", "dev", "bg"], { baseDir, open: true })
        yield* attached.shows("3\n")
        const kept = yield* run("ls")
        assert.strictEqual(kept.code, 125)
        assert.match(kept.err, /another fiberbox command is using your sandboxes, .*fiberbox serve/)
        yield* attached.signal("SIGINT")
        assert.strictEqual((yield* attached.ended).code, 130)

        const { running } = yield* serve([], { baseDir })
        yield* run("exec", "dev", "--", "touch", "go")
        const again = yield* run("attach", "dev", "bg")
        assert.deepStrictEqual([again.code, again.out], [5, "1\n2\n3\n"])
        yield* running.signal("SIGTERM")
        assert.strictEqual((yield* running.ended).code, 0)
        assert.strictEqual((yield* run("exec", "dev", "--", "cat", "file")).out, "kept\n")
        assert.strictEqual((yield* run("kill", "dev")).out, "dev\n")
        assert.strictEqual((yield* run("ls", "-q")).out, "")
        const id = JSON.parse(readFileSync(`${baseDir}/service/instance.json`, "utf8")).id
        assert.isFalse(existsSync(`/sys/fs/cgroup/fiberbox-${id}`))
        assert.isFalse(existsSync(`/sys/fs/cgroup/pids/fiberbox-${id}`))
      }).pipe(Effect.scoped),
    60_000
  )
})
