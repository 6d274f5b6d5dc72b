/**
 * Programs that do nothing but fork, in a sandbox with a fifth of a processor:
 * they leave next to nothing of it to whoever is to end them.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, type FileSystem, Result } from "effect"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, processesIn, service, temporary } from "./support.ts"

/** Perl; what they do so that no signal to a group meets all of them. */
const storms = {
  "in one group": "while (1) { fork }",
  "in groups of their own": "while (1) { my $p = fork; setpgrp(0, 0) if defined $p && !$p }",
  "in sessions of their own": "use POSIX; while (1) { my $p = fork; POSIX::setsid() if defined $p && !$p }"
}

/** The storm, and how many of its programs there are. */
const storm = (script: string, base: string) => {
  const argv = ["perl", "-e", `${script} # ${base}`] as const
  const count = Effect.map(
    processesIn("fiberbox-"),
    (commands) => commands.filter((command) => command.endsWith(base)).length
  )
  const raging = Effect.repeat(count, { until: (now) => now > 100 })
  return { argv, count, raging }
}

type Storm = ReturnType<typeof storm>

/** Every way a program ends other than by itself. Returns when its end has been answered. */
const ends: {
  readonly [how: string]: (
    sandbox: Sandbox,
    storm: Storm
  ) => Effect.Effect<void, unknown, FileSystem.FileSystem>
} = {
  "a kill": Effect.fnUntraced(function* (sandbox, { argv, raging }) {
    const process = yield* sandbox.process.start(argv)
    yield* raging
    yield* process.kill
  }),
  "its time limit": Effect.fnUntraced(function* (sandbox, { argv }) {
    const result = yield* Effect.result(sandbox.process.run(argv, { timeoutMillis: 1500 }))
    // The first of them may have died of having no more processes.
    if (Result.isFailure(result)) assert.include(["Timeout", "CommandExit"], result.failure._tag)
  }),
  "an interrupt": Effect.fnUntraced(function* (sandbox, { argv, raging }) {
    const running = yield* Effect.forkChild(sandbox.process.run(argv))
    yield* raging
    yield* Fiber.interrupt(running)
  })
}

describe.runIf(canRun)("programs that fork without end", () => {
  for (const [where, script] of Object.entries(storms)) {
    for (const [how, end] of Object.entries(ends)) {
      it.live(
        `${where} are all ended by ${how}, and the sandbox goes on`,
        () =>
          Effect.gen(function* () {
            const base = yield* temporary
            yield* Effect.gen(function* () {
              const sandbox = yield* Sandboxes.create({ limits: { cpus: 0.2 } })
              const raging = storm(script, base)
              yield* end(sandbox, raging)
              const left = yield* Effect.repeat(raging.count, { until: (now) => now === 0, times: 100 })
              assert.strictEqual(left, 0)
              assert.strictEqual(
                yield* sandbox.commands.run("echo calm").pipe(Effect.map((r) => r.stdout)),
                "calm\n"
              )
              assert.strictEqual((yield* sandbox.info).generation, 1)
            }).pipe(Effect.scoped, Effect.provide(service(base)))
          }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
        60_000
      )
    }
  }

  it.live("cannot take descriptors or processor time from the agent, as root either", () =>
    Effect.gen(function* () {
      const base = yield* temporary
      yield* Effect.gen(function* () {
        const sandbox = yield* Sandboxes.create()
        const [prlimit64, schedSetscheduler] = process.arch === "arm64" ? [261, 119] : [302, 144]
        const script = `
          my ($none, $zero) = (pack("QQ", 0, 0), pack("l", 0));
          sub limit { syscall(${prlimit64}, $_[0] + 0, 7, $none, 0) }
          sub batch { syscall(${schedSetscheduler}, $_[0] + 0, 3, $zero) }
          print join(" ", limit(1), batch(1), limit(2**32 + 1), batch(2**32 + 1), batch(0), setpriority(0, 0, 0))`
        const { stdout } = yield* sandbox.process.run(["perl", "-e", script], { user: "root" })
        assert.strictEqual(stdout, "-1 -1 -1 -1 0 1")
      }).pipe(Effect.scoped, Effect.provide(service(base)))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
