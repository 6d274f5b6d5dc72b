/**
 * The same random programs against real containers: few, since each takes a second.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Config, Context, Effect, Exit, Layer, Logger, Option, Ref, Scope } from "effect"
import { Container } from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { selfContained } from "../../src/services/selfContained.ts"
import { ModelRunner, ModelSystem } from "../../src/testing.ts"
import { canRunContainers } from "../canRunContainers.ts"
import { breakable } from "./world.ts"

/** What this gives, or nothing where what it is about has ended meanwhile. */
const unlessGone = <A>(f: () => A): A | undefined => {
  try {
    return f()
  } catch {
    return undefined
  }
}

/** Ends every process in the control groups of a sandbox, which are called as it is, without its prefix. */
const killAll = (id: string) => {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const groups = unlessGone(() => readFileSync(`/proc/${pid}/cgroup`, "utf8"))
    if (groups?.includes(id.slice(3)) !== true) continue
    unlessGone(() => process.kill(Number(pid), "SIGKILL"))
    // The frozen of cgroup v1 die only when they thaw.
    const freezer = /^\d+:freezer:(.*)$/m.exec(groups)?.[1]
    unlessGone(() => writeFileSync(`/sys/fs/cgroup/freezer${freezer}/freezer.state`, "THAWED"))
  }
}

/** A world in a state directory of its own, on the machine's own time. */
const make = Effect.gen(function* () {
  const stateDir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "fb-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const broken = new Set<string>()
  const start = (onClose: "leave" | "kill") =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const layer = InProcess.layer({ onClose }).pipe(
        Layer.provide(breakable(broken)),
        Layer.provide(Container.parts({ stateDir, baseDir: stateDir })),
        selfContained,
        Layer.orDie
      )
      const context = yield* Layer.buildWithScope(layer, scope)
      return { sandboxes: Context.get(context, Sandboxes), end: Scope.close(scope, Exit.void) }
    })
  const service = yield* Ref.make(yield* start("leave"))
  // Whatever the program left is taken over once more and killed.
  yield* Effect.addFinalizer(() =>
    Ref.get(service).pipe(
      Effect.flatMap(({ end }) => end),
      Effect.andThen(start("kill")),
      Effect.flatMap(({ end }) => end)
    )
  )
  const world: ModelSystem.World = {
    sandboxes: Effect.map(Ref.get(service), ({ sandboxes }) => sandboxes),
    die: (id) => Effect.sync(() => killAll(id)),
    breakNext: (id) => Effect.sync(() => broken.add(id)),
    // One process holds the lock, so it cannot be killed and started here: it ends in order.
    restartService: () =>
      Ref.get(service).pipe(
        Effect.flatMap(({ end }) => end),
        Effect.andThen(start("leave")),
        Effect.flatMap((next) => Ref.set(service, next))
      ),
    wait: () => Effect.void
  }
  return world
})

describe.runIf(canRunContainers)("random programs on containers", () => {
  it.live(
    "go where the model says",
    () =>
      Effect.gen(function* () {
        const runs = yield* Config.option(Config.Int("FIBERBOX_MODEL_CONTAINER_RUNS"))
        const replay = yield* Config.option(Config.String("FIBERBOX_MODEL_CONTAINER_REPLAY"))
        const result = yield* ModelRunner.check(ModelSystem.spec(make, { restarts: false }), {
          runs: Option.getOrElse(runs, () => 10),
          replay: Option.getOrUndefined(replay),
          maxCommands: 12,
          maxShrinks: 60,
          stuckMillis: 20_000
        })
        const problem = ModelRunner.report(result, "FIBERBOX_MODEL_CONTAINER_REPLAY")
        if (problem !== undefined) assert.fail(problem)
        assert.strictEqual(result._tag, "Passed")
      }).pipe(Effect.provide(Logger.layer([]))),
    300_000
  )
})
