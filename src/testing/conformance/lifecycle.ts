/**
 * Conformance: the life of a sandbox from creation to its end.
 */
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { resolveSpec } from "../../domain/Sandbox.ts"
import { Sandboxes } from "../../services/Sandboxes.ts"
import { area, holds, home, refused, same, unique, withSandbox } from "./Case.ts"
import { running, textOf, untilOutput } from "./Programs.ts"

const lifecycle = area("lifecycle")

const basic = lifecycle({
  "a new sandbox runs, as it was asked for and otherwise with the defaults": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const info = yield* sandbox.info
      same(info.id, sandbox.id)
      same(info.status, "running")
      same(info.generation, 1, "generation")
      same(info.detached, false)
      same(info.restarts, 0)
      same(info.spec.limits, { ...resolveSpec({}).limits, pids: 100 })
      same(info.spec.env, { A: "1" })
      same(info.spec.network, "none")
      holds(info.slug.length > 0, "a sandbox without a name has a slug")
      holds(
        info.startedAt !== undefined && info.startedAt >= info.createdAt,
        "it started after it was created"
      )
    }),
    { limits: { pids: 100 }, env: { A: "1" } }
  ),

  "closing the scope ends the sandbox": Effect.gen(function* () {
    const scope = yield* Scope.make()
    const sandbox = yield* Scope.provide(Sandboxes.create(), scope)
    yield* sandbox.files.write(`${home}/a`, "a")
    yield* Scope.close(scope, Exit.void)
    same((yield* Sandboxes.get(sandbox.id)).status, "killed")
    yield* refused(sandbox.commands.run("true"), "InvalidState", "NotFound")
  }),

  "a detached sandbox outlives the scope, and nothing outlives kill": Effect.gen(function* () {
    const name = yield* unique("detached")
    const sandbox = yield* Effect.scoped(Sandboxes.createDetached({ name }))
    const again = yield* Sandboxes.connect(name)
    same(again.id, sandbox.id)
    same((yield* again.info).detached, true)
    same((yield* again.commands.run("echo still here")).stdout, "still here\n")
    yield* Sandboxes.kill(name)
    yield* refused(Sandboxes.get(name), "NotFound")
  }),

  "killing twice succeeds, and the name is free at once": Effect.gen(function* () {
    const name = yield* unique("again")
    const first = yield* Sandboxes.create({ name })
    yield* first.kill
    yield* first.kill
    const second = yield* Sandboxes.create({ name })
    holds(second.id !== first.id, "a new sandbox has a new id")
    same((yield* Sandboxes.get(name)).id, second.id)
  }),

  "kill waits for nothing: a running command ends with a typed error": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const fiber = yield* running(sandbox, "echo up; sleep 1000")
      yield* sandbox.kill
      yield* refused(Fiber.join(fiber), "SandboxFailed", "InvalidState", "NotFound")
      same((yield* Sandboxes.get(sandbox.id)).status, "killed")
    })
  ),

  "asking for the status it is in succeeds and changes nothing": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const before = yield* sandbox.info
      same((yield* sandbox.start).startedAt, before.startedAt)
      same((yield* sandbox.resume).generation, before.generation)
      same((yield* sandbox.info).status, "running")
    })
  ),

  "the same idempotency key makes one sandbox, with another content it is a conflict": Effect.gen(
    function* () {
      const idempotencyKey = yield* unique("key")
      const [first, second] = yield* Effect.all(
        [
          Sandboxes.create({ idempotencyKey, env: { A: "1" } }),
          Sandboxes.create({ idempotencyKey, env: { A: "1" } })
        ],
        { concurrency: 2 }
      )
      same(second.id, first.id)
      const conflict = yield* refused(Sandboxes.create({ idempotencyKey, env: { A: "2" } }), "Conflict")
      same(conflict.kind, "idempotency-key")
    }
  ),

  "waitForReady returns when it runs": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      same((yield* sandbox.waitForReady()).status, "running")
    })
  ),

  "an update changes what it names, for what starts from then on": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const updated = yield* sandbox.update({ env: { A: "2", B: "3" }, ports: [8080], labels: { k: "v" } })
      same(updated.spec.env, { A: "2", B: "3" })
      same(updated.spec.ports, [8080])
      same(updated.spec.labels, { k: "v" })
      const { stdout } = yield* sandbox.process.run(["env"])
      holds(stdout.split("\n").includes("B=3"), "a new process sees the new environment")
      const again = yield* sandbox.update({ ports: [] })
      same(again.spec.env, { A: "2", B: "3" })
      same(again.spec.ports, [])
    }),
    { env: { A: "1" } }
  ),

  "restart makes a new machine on the same disk; old process handles know it": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.files.write(`${home}/kept`, "kept")
      const old = yield* sandbox.commands.start("sleep 1000")
      const { generation } = yield* sandbox.info
      const after = yield* sandbox.restart
      same(after.status, "running")
      same(after.generation > generation, true, "the generation advances")
      same(yield* sandbox.files.readText(`${home}/kept`), "kept")
      same(yield* sandbox.process.list, [])
      for (const use of [old.kill, old.signal("SIGTERM"), old.exit, old.closeStdin, old.write("x")]) {
        const error = yield* refused(use, "GenerationChanged")
        same([error.expected, error.current], [generation, after.generation])
      }
      yield* refused(Stream.runDrain(old.events()), "GenerationChanged")
    })
  ),

  "a start command runs whenever a machine has started": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const exits = sandbox.events().pipe(Stream.filter((event) => event.body._tag === "StartCommandExited"))
      yield* Stream.runDrain(Stream.take(exits, 1))
      same(yield* sandbox.files.readText(`${home}/starts`), "started\n")
      yield* sandbox.restart
      yield* Stream.runDrain(Stream.take(exits, 2))
      same(yield* sandbox.files.readText(`${home}/starts`), "started\nstarted\n")
      yield* sandbox.update({ startCommand: null })
      same((yield* sandbox.info).spec.startCommand, undefined)
    }),
    { startCommand: `echo started >> ${home}/starts` }
  )
})

const stopping = lifecycle(
  {
    "stop and start keep the disk and advance the generation": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.write(`${home}/deep/kept`, "kept", { mode: 0o640 })
        const { generation } = yield* sandbox.info
        same((yield* sandbox.stop({ graceMillis: 100 })).status, "stopped")
        same((yield* sandbox.stop()).status, "stopped")
        const started = yield* sandbox.start
        same(started.status, "running")
        holds(started.generation > generation, "the generation advances")
        same(yield* sandbox.files.readText(`${home}/deep/kept`), "kept")
        same((yield* sandbox.files.stat(`${home}/deep/kept`)).mode, 0o640)
      })
    ),

    "a stopped sandbox runs nothing and holds no file open": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.stop({ graceMillis: 0 })
        const attempts = [
          sandbox.commands.run("true"),
          sandbox.process.start(["true"]),
          sandbox.files.readText("/etc/passwd"),
          sandbox.files.write(`${home}/a`, "a"),
          sandbox.metrics,
          sandbox.process.list
        ]
        for (const attempt of attempts) {
          const error = yield* refused(attempt, "InvalidState")
          same([error.status, error.sandboxId], ["stopped", sandbox.id])
        }
      })
    ),

    "an impossible transition is refused and changes nothing": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.stop({ graceMillis: 0 })
        const events = yield* Stream.runCollect(sandbox.events({ once: true }))
        for (const command of [sandbox.pause, sandbox.resume, sandbox.restart]) {
          same((yield* refused(command, "InvalidState")).status, "stopped")
        }
        same((yield* sandbox.info).status, "stopped")
        same((yield* Stream.runCollect(sandbox.events({ once: true }))).length, events.length)
        yield* sandbox.kill
        for (const command of [
          sandbox.start,
          sandbox.stop(),
          sandbox.restart,
          sandbox.pause,
          sandbox.resume
        ]) {
          yield* refused(command, "InvalidState", "NotFound")
        }
      })
    ),

    "waitForReady does not wait for what nobody has asked for": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.stop({ graceMillis: 0 })
        const error = yield* refused(sandbox.waitForReady(), "InvalidState")
        same(error.status, "stopped")
      })
    )
  },
  ["stop"]
)

const pausing = lifecycle(
  {
    "no program goes on while paused": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const ticking = yield* sandbox.commands.start("while true; do echo tick; sleep 0.01; done")
        yield* untilOutput(ticking)
        yield* sandbox.pause
        // What is promised is that nothing happens meanwhile: there is no event to wait for.
        yield* Effect.sleep(400)
        yield* sandbox.resume
        const [info] = yield* sandbox.process.list
        const events = yield* ticking.events().pipe(
          Stream.takeUntil((event) => event._tag === "Output" && event.cursor >= (info?.end ?? 0)),
          Stream.runCollect
        )
        const times = events.flatMap((event) => (event._tag === "Output" ? [event.at] : []))
        const longest = Math.max(...times.map((at, index) => at - (times[index - 1] ?? at)))
        holds(longest >= 350, `the longest silence was ${longest} ms`)
      })
    ),

    "pause and resume keep the machine and what it is doing": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const { generation } = yield* sandbox.info
        const cat = yield* sandbox.process.start(["cat"], { stdin: true })
        yield* cat.write("before ")
        same((yield* sandbox.pause).status, "paused")
        same((yield* sandbox.pause).status, "paused")
        const resumed = yield* sandbox.resume
        same([resumed.status, resumed.generation], ["running", generation])
        yield* cat.write("after")
        yield* cat.closeStdin
        same(yield* cat.exit, { _tag: "Exited", code: 0 })
        const connected = yield* sandbox.process.connect(cat.processId)
        same(yield* textOf(connected), "before after")
      })
    ),

    "a paused sandbox refuses commands and files at once, and can be killed": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.pause
        const attempts = [
          sandbox.commands.run("true"),
          sandbox.process.start(["true"]),
          sandbox.files.readText("/etc/passwd"),
          sandbox.files.write(`${home}/a`, "a")
        ]
        for (const attempt of attempts) same((yield* refused(attempt, "InvalidState")).status, "paused")
        for (const command of [sandbox.start, sandbox.restart]) {
          same((yield* refused(command, "InvalidState")).status, "paused")
        }
        yield* sandbox.kill
        same((yield* Sandboxes.get(sandbox.id)).status, "killed")
      })
    ),

    "a paused sandbox can be stopped": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.write(`${home}/kept`, "kept")
        yield* sandbox.pause
        same((yield* sandbox.stop({ graceMillis: 0 })).status, "stopped")
        yield* sandbox.start
        same(yield* sandbox.files.readText(`${home}/kept`), "kept")
      })
    )
  },
  ["pause"]
)

export const lifecycleCases = [...basic, ...stopping, ...pausing]
