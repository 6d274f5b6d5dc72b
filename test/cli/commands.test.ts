import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { documents, newName, ok, Served } from "./served.ts"

/** A sandbox of a test's own; what is left ends with the service. */
const created = (args: ReadonlyArray<string> = []) =>
  Effect.gen(function* () {
    const name = newName()
    const id = yield* ok(["create", "--name", name, ...args])
    return { name, id }
  })

layer(Served.layer("memory"), { excludeTestServices: true })("fiberbox with a service", (it) => {
  it.effect("create prints the id of a sandbox that the other commands find by it and by name", () =>
    Effect.gen(function* () {
      const { id, name } = yield* created(["--label", "a=b=c", "--ttl", "1h", "--memory", "64m"])
      assert.match(id, /^sb_[a-z0-9]+_[a-z2-7]{26}$/)
      const shown = documents(yield* ok(["info", "--json", name]))[0]
      assert.deepInclude(shown, { id, name, status: "running", detached: true })
      const told = yield* ok(["info", id])
      assert.match(told, /^limits +memory 64m, 1 cpus/m)
      assert.match(told, /^labels +a=b=c$/m)
      assert.match(told, /^ttl +kill in (1h|59m\d+s), at 2/m)
    })
  )

  it.effect("create passes on everything that can be asked of a sandbox", () =>
    Effect.gen(function* () {
      const options = [
        ["--restart", "on-failure:2"],
        ["--idle", "30m", "--idle-action", "pause"],
        ["--ttl", "2h", "--ttl-action", "stop"],
        ["--port", "80", "--port", "443"],
        ["--start", "sleep 1000", "-e", "MODE=test"]
      ].flat()
      const { name } = yield* created(options)
      const [shown] = documents(yield* ok(["info", "--json", name]))
      assert.nestedPropertyVal(shown, "spec.restartPolicy._tag", "OnFailure")
      assert.nestedPropertyVal(shown, "spec.restartPolicy.maxRestarts", 2)
      assert.nestedPropertyVal(shown, "spec.idle.action", "pause")
      assert.nestedPropertyVal(shown, "spec.ttl.afterMillis", 7_200_000)
      assert.nestedPropertyVal(shown, "spec.ttl.action", "stop")
      assert.nestedPropertyVal(shown, "spec.startCommand", "sleep 1000")
      assert.nestedPropertyVal(shown, "spec.env.MODE", "test")
      assert.nestedPropertyVal(shown, "spec.ports[1]", 443)
    })
  )

  it.effect("create --json writes the whole sandbox", () =>
    Effect.gen(function* () {
      const name = newName()
      const [shown] = documents(yield* ok(["create", "--json", "--name", name]))
      assert.deepInclude(shown, { name, status: "running", backend: "memory" })
    })
  )

  it.effect("ls shows a table, ids, or documents, and only what was asked for", () =>
    Effect.gen(function* () {
      const label = newName()
      const one = yield* created(["-l", `job=${label}`])
      const two = yield* created(["-l", `job=${label}`])
      yield* ok(["stop", two.name])
      const list = (...args: ReadonlyArray<string>) => ok(["ls", "--label", `job=${label}`, ...args])
      const [heading = "", ...rows] = (yield* list()).split("\n")
      assert.match(heading, /^NAME +STATUS +IMAGE +BACKEND +CREATED +EXPIRES +ID$/)
      assert.deepStrictEqual(
        rows.map((row) => row.split(/ {3,}/).slice(0, 2)),
        [
          [one.name, "running"],
          [two.name, "stopped"]
        ]
      )
      assert.strictEqual(yield* list("-q"), `${one.id}\n${two.id}`)
      const found = documents(yield* list("--json", "--status", "stopped"))
      assert.lengthOf(found, 1)
      assert.deepInclude(found[0], { id: two.id, status: "stopped" })
      yield* ok(["kill", one.name])
      assert.strictEqual(yield* list("-q"), two.id)
      assert.strictEqual(yield* list("-q", "--all"), `${one.id}\n${two.id}`)
    })
  )

  it.effect("exec passes streams, arguments, environment and exit code through", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { name } = yield* created()
      const script = "cat; echo $A; pwd; echo e >&2; exit 7"
      const ended = yield* run(["exec", "-e", "A=1 2", "-w", "/tmp", name, "--", "sh", "-c", script], {
        stdin: "in\n"
      })
      assert.deepStrictEqual([ended.code, ended.out, ended.err], [7, "in\n1 2\n/tmp\n", "e\n"])
      const missing = yield* run(["exec", name, "--", "no-such-program"])
      assert.strictEqual(missing.code, 127)
      assert.match(missing.err, /^fiberbox: cannot start no-such-program: not-found.*\n$/)
      const slow = yield* run(["exec", "--timeout", "300ms", name, "--", "sleep", "60"])
      assert.deepStrictEqual([slow.code, slow.err], [124, "fiberbox: ended by --timeout after 0.3 s\n"])
    })
  )

  it.effect("exec --json writes what happens, one document a line", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { name } = yield* created()
      const { code, err, out } = yield* run(["exec", "--json", name, "--", "sh", "-c", "echo o; exit 3"])
      assert.deepStrictEqual([code, err], [3, ""])
      const [started, output, exited] = documents(out)
      assert.deepInclude(started, { event: "started" })
      assert.deepInclude(output, { event: "output", stream: "stdout", text: "o\n" })
      assert.deepInclude(exited, { event: "exited", exitCode: 3 })
    })
  )

  it.effect("exec, told to end, kills what it started, and the sandbox stays", () =>
    Effect.gen(function* () {
      const served = yield* Served
      const { name } = yield* created()
      const running = yield* served.start(
        ["exec", "--id", "p", name, "--", "sh", "-c", "trap '' INT; echo ready; sleep 600"],
        { open: true }
      )
      yield* running.shows("ready")
      yield* running.signal("SIGINT")
      assert.strictEqual((yield* running.ended).code, 130)
      const [info] = documents(yield* ok(["ps", "--json", name]))
      assert.deepInclude(info, { processId: "p", exit: { _tag: "Signaled", signal: "SIGKILL", number: 9 } })
      assert.nestedPropertyVal(documents(yield* ok(["info", "--json", name]))[0], "status", "running")
    }).pipe(Effect.scoped)
  )

  it.effect(
    "exec --detach leaves a process, which ps lists, logs shows, and attach follows to its exit code",
    () =>
      Effect.gen(function* () {
        const { run } = yield* Served
        const { name } = yield* created()
        const script = "echo one; read line; echo $line; exit 5"
        const id = yield* ok(["exec", "-d", "--stdin", "--id", "job", name, "--", "sh", "-c", script])
        assert.strictEqual(id, "job")
        assert.match(yield* ok(["ps", name]), /^job +\d+ +running .* sh -c 'echo one; .*'$/m)
        assert.strictEqual(yield* ok(["logs", name]), "one")
        const attached = yield* run(["attach", "--stdin", name, "job"], { stdin: "two\n" })
        assert.deepStrictEqual([attached.code, attached.out], [5, "one\ntwo\n"])
        assert.strictEqual(yield* ok(["logs", name, "job", "--cursor", "4"]), "two")
        assert.match(yield* ok(["ps", name]), /^job +\d+ +exited 5 /m)
      })
  )

  it.effect("attach, left with Ctrl-C, leaves the process and says how to miss no byte of it", () =>
    Effect.gen(function* () {
      const served = yield* Served
      const { name } = yield* created()
      const script = "echo one; until test -e /tmp/go; do sleep 0.01; done; echo two"
      yield* ok(["exec", "-d", "--id", "job", name, "--", "sh", "-c", script])
      const first = yield* served.start(["attach", name], { open: true })
      yield* first.shows("one")
      yield* first.signal("SIGINT")
      const { code, err } = yield* first.ended
      assert.strictEqual(code, 130)
      assert.include(err, `fiberbox attach ${name} job --cursor 4`)
      yield* ok(["exec", name, "--", "touch", "/tmp/go"])
      const again = yield* served.run(["attach", "--json", name, "job", "--cursor", "4"])
      const [, output] = documents(again.out)
      assert.deepInclude(output, { event: "output", text: "two\n" })
    }).pipe(Effect.scoped)
  )

  it.effect("attach and logs say which processes there are when it is not clear which is meant", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { name } = yield* created()
      assert.match((yield* run(["attach", name])).err, /no process runs in it .*exec -d/)
      yield* ok(["exec", "-d", "--id", "a", name, "--", "sleep", "600"])
      yield* ok(["exec", "-d", "--id", "b", name, "--", "sleep", "600"])
      assert.match((yield* run(["logs", name])).err, /2 processes run in it .*a, b/)
      assert.match((yield* run(["logs", name, "c"])).err, /no process c .*fiberbox ps/)
    })
  )

  it.effect("stop, start, restart, pause and resume take several, and tell each that cannot be done", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const [one, two] = [yield* created(), yield* created()]
      const status = (name: string) =>
        Effect.map(ok(["ls", "--json"]), (out) =>
          documents(out).flatMap((found) =>
            typeof found === "object" && found !== null && "name" in found && "status" in found
              ? found.name === name
                ? [found.status]
                : []
              : []
          )
        )
      assert.strictEqual(yield* ok(["pause", one.name, two.name]), `${one.name}\n${two.name}`)
      assert.deepStrictEqual(yield* status(two.name), ["paused"])
      const refused = yield* run(["exec", one.name, "--", "true"])
      assert.strictEqual(refused.code, 125)
      assert.match(refused.err, /is paused \(`fiberbox resume` lets it go on\)/)
      yield* ok(["resume", one.name])
      yield* ok(["stop", "--grace", "100ms", one.name])
      assert.deepStrictEqual(yield* status(one.name), ["stopped"])
      const some = yield* run(["restart", one.name, two.name, "nobody"])
      assert.strictEqual(some.code, 125)
      assert.lengthOf(some.err.trim().split("\n"), 3)
      const [started] = documents(yield* ok(["start", "--json", one.name]))
      assert.deepInclude(started, { id: one.id, status: "running" })
    })
  )

  it.effect("ttl shows, sets and removes both limits", () =>
    Effect.gen(function* () {
      const { name } = yield* created()
      assert.strictEqual(yield* ok(["ttl", name]), "ttl    none: it lives until it is killed\nidle   none")
      assert.match(yield* ok(["ttl", "--action", "stop", name, "2h"]), /^ttl {4}stop in (2h|1h59m), at 2/)
      const idle = yield* ok(["ttl", "--idle", "90s", "--action", "pause", name])
      assert.match(idle, /^ttl {4}stop in .*\nidle {3}pause after 1m30s without a call$/)
      const [shown] = documents(yield* ok(["ttl", "--json", name, "none"]))
      assert.notProperty(shown, "expiresAt")
      assert.nestedPropertyVal(shown, "idle.afterMillis", 90_000)
    })
  )

  it.effect("events shows what happened, follows what happens, and ends with the sandbox", () =>
    Effect.gen(function* () {
      const served = yield* Served
      const { id, name } = yield* created()
      assert.match(yield* ok(["events", name]), /^ +1 {3}2.*Z {3}created\n +2 .*provisioning → running$/)
      const following = yield* served.start(["events", "-f", "--json", "--after", "2", id], { open: true })
      yield* ok(["pause", name])
      yield* following.shows("paused")
      yield* ok(["kill", name])
      const { code, out } = yield* following.ended
      assert.strictEqual(code, 0)
      const last = documents(out).at(-1)
      assert.nestedPropertyVal(last, "body.to", "killed")
      assert.nestedPropertyVal(documents(out)[0], "sequence", 3)
    }).pipe(Effect.scoped)
  )

  it.effect("kill takes several and tells each that is not there; all of a kind only when told so", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const label = newName()
      const [one, two] = [yield* created(["-l", `k=${label}`]), yield* created(["-l", `k=${label}`])]
      const asked = yield* run(["kill", "--label", `k=${label}`])
      assert.strictEqual(asked.code, 125)
      assert.match(asked.err, /would kill 2 sandboxes, and there is nobody to ask \(--yes/)
      const some = yield* run(["kill", one.name, "nobody"])
      assert.deepStrictEqual([some.code, some.out], [125, `${one.name}\n`])
      assert.match(some.err, /no sandbox nobody \(`fiberbox ls`/)
      assert.strictEqual(yield* ok(["kill", "--label", `k=${label}`, "--yes"]), two.id)
      assert.match((yield* run(["kill"])).err, /kill what\?/)
      assert.match((yield* run(["kill", "--all", "x"])).err, /not both/)
    })
  )

  it.effect("run uses the service too, and leaves nothing at it", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { code, out } = yield* run(["run", "--json", "--", "sh", "-c", "exit 4"])
      assert.strictEqual(code, 4)
      const [first] = documents(out)
      assert.deepInclude(first, { event: "created", backend: "memory" })
      const listed = yield* ok(["ls", "-q"])
      const id = typeof first === "object" && first !== null && "sandboxId" in first ? first.sandboxId : ""
      assert.notInclude(listed, String(id))
    })
  )

  it.effect("what goes wrong is one line, or with --json one document", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const told = yield* run(["info", "nobody"])
      assert.deepStrictEqual(
        [told.code, told.out, told.err],
        [125, "", "fiberbox: no sandbox nobody (`fiberbox ls` lists them)\n"]
      )
      for (const args of [
        ["info", "--json", "nobody"],
        ["exec", "--json", "nobody", "--", "true"],
        ["stop", "--json", "nobody"],
        ["cp", "--json", "nobody:x", "."]
      ]) {
        const { code, err, out } = yield* run(args)
        assert.deepStrictEqual([code, err], [125, ""], args.join(" "))
        assert.deepInclude(documents(out)[0], { event: "error", error: "NotFound", exitCode: 125 })
      }
    })
  )

  it.effect("a name that is taken is refused, and changes nothing", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { id, name } = yield* created()
      const again = yield* run(["create", "--name", name])
      assert.deepStrictEqual([again.code, again.out], [125, ""])
      assert.include(again.err, name)
      assert.nestedPropertyVal(documents(yield* ok(["info", "--json", name]))[0], "id", id)
    })
  )

  it.effect("--url and --token say which service is meant, and so does the environment", () =>
    Effect.gen(function* () {
      const { run, token, url } = yield* Served
      const { id } = yield* created()
      // Nothing is found in this place by itself.
      const baseDir = "/nonexistent/fiberbox"
      const options = ["ls", "-q", "--url", url, "--token", token]
      assert.include((yield* run(options, { baseDir })).out, id)
      const env = { FIBERBOX_URL: url, FIBERBOX_TOKEN: token }
      assert.include((yield* run(["ls", "-q"], { baseDir, env })).out, id)
      const wrong = yield* run(["ls", "--url", url, "--token", `${token}x`], { baseDir })
      assert.strictEqual(wrong.code, 125)
      assert.match(wrong.err, /^fiberbox: not authenticated: .*FIBERBOX_TOKEN.*\n$/)
      const nobody = yield* run(["ls", "--url", "http://127.0.0.1:1"], { baseDir })
      assert.match(nobody.err, /nobody answers at http:\/\/127.0.0.1:1: ECONNREFUSED .*fiberbox serve/)
      const nonsense = yield* run(["ls", "--url", "localhost"], { baseDir })
      assert.match(nonsense.err, /url: must be http/)
    })
  )

  it.effect("keys are minted, listed and revoked; what they open is their owner's alone", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { id } = yield* created()
      const [minted] = documents(
        yield* ok(["keys", "mint", "--json", "--owner", "alice", "--label", "for tests", "--ttl", "1h"])
      )
      assert.deepInclude(minted, { owner: "alice", scope: "exec", label: "for tests" })
      if (!(typeof minted === "object" && minted !== null && "token" in minted && "id" in minted)) {
        return assert.fail("no token")
      }
      const as = (args: ReadonlyArray<string>) => run(args, { env: { FIBERBOX_TOKEN: String(minted.token) } })
      assert.strictEqual((yield* as(["ls", "-q"])).out, "")
      assert.match((yield* as(["info", id])).err, new RegExp(`^fiberbox: no sandbox ${id} `))
      const hers = (yield* as(["create"])).out.trim()
      assert.strictEqual((yield* as(["ls", "-q"])).out, `${hers}\n`)
      assert.match((yield* as(["keys", "ls"])).err, /denied/)
      assert.match(yield* ok(["keys", "ls"]), new RegExp(`^${minted.id} +alice +exec +for tests`, "m"))
      assert.strictEqual(yield* ok(["keys", "revoke", String(minted.id)]), String(minted.id))
      assert.match((yield* as(["ls"])).err, /not authenticated/)
      assert.match((yield* run(["keys", "revoke", String(minted.id)])).err, /no key/)
      assert.match(yield* ok(["audit"]), /local \(local\) {3}ok MintKey/)
    })
  )
})
