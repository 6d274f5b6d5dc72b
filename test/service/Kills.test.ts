import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Fiber, Option, Random, Ref, Schedule, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { SandboxesClient } from "../../src/client.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, service, temporary } from "../container/support.ts"
import { aliceToken } from "../rpc/support.ts"

const settings = Effect.gen(function* () {
  const kills = yield* Config.option(Config.Int("FIBERBOX_KILLS"))
  return { kills: Option.getOrElse(kills, () => 6) }
})

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** Starts the service; closing the scope kills it, as `kill -9` does. */
const startService = Effect.fnUntraced(function* (base: string, port: number) {
  const program = fileURLToPath(new URL("./host.ts", import.meta.url))
  const service = yield* ChildProcess.make(process.execPath, [program, base, String(port)], {
    stderr: "inherit",
    killSignal: "SIGKILL"
  })
  yield* service.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.takeUntil((line) => line === "ready"),
    Stream.runDrain
  )
})

/** What a client was told, and so what must hold whatever was killed in between. */
interface Promised {
  readonly sandbox: Sandbox
  /** Whether `kill` was asked for; once it has been, both answers are right until it was acknowledged. */
  kill: "no" | "asked" | "done"
  /** The content acknowledged last, and the one that was on its way when the client last heard of it. */
  acknowledged: string | undefined
  underWay: string | undefined
}

/** Creates, writes, runs and kills sandboxes for ever, and notes what was promised. */
const load = Effect.fnUntraced(function* (worker: number, promised: Array<Promised>, told: Ref.Ref<number>) {
  const heard = Ref.update(told, (count) => count + 1)
  const attempt = <A, E>(effect: Effect.Effect<A, E, Sandboxes>) =>
    Effect.tap(Effect.option(effect), (answer) => (Option.isSome(answer) ? heard : Effect.void))
  for (let round = 0; ; round++) {
    const made = yield* attempt(Sandboxes.createDetached({ name: `w${worker}-${round}` }))
    if (Option.isNone(made)) continue
    const entry: Promised = { sandbox: made.value, kill: "no", acknowledged: undefined, underWay: undefined }
    promised.push(entry)
    const { sandbox } = entry
    for (let write = 0; write < 3; write++) {
      entry.underWay = `content ${worker} ${round} ${write}`
      const written = yield* attempt(sandbox.files.write("/home/user/f", entry.underWay))
      if (Option.isSome(written)) entry.acknowledged = entry.underWay
      yield* attempt(sandbox.commands.run("echo hello; cat f"))
    }
    if (yield* Random.nextBoolean) continue
    entry.kill = "asked"
    if (Option.isSome(yield* attempt(sandbox.kill))) entry.kill = "done"
  }
})

const verify = Effect.fnUntraced(function* (promised: ReadonlyArray<Promised>) {
  const { sandboxes, next } = yield* Sandboxes.list({ limit: 1000 })
  assert.isUndefined(next)
  const alive = new Set(sandboxes.map(({ id }) => id))
  for (const { sandbox, kill, acknowledged, underWay } of promised) {
    if (kill === "no") assert.isTrue(alive.has(sandbox.id), `${sandbox.id} was lost`)
    if (kill === "done") assert.isFalse(alive.has(sandbox.id), `${sandbox.id} lives though it was killed`)
    if (kill !== "no" || acknowledged === undefined) continue
    assert.include([acknowledged, underWay], yield* sandbox.files.readText("/home/user/f"))
  }
})

/** The numbers a counter has written so far: as many as there are, each once and in order. */
const counted = Effect.fnUntraced(function* (keeper: Sandbox) {
  const counter = yield* keeper.process.connect("counter")
  yield* counter.kill
  const lines = yield* counter.events().pipe(
    Stream.filter((event) => event._tag === "Output"),
    Stream.map((event) => event.data),
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runCollect
  )
  assert.isAbove(lines.length, 10)
  assert.deepStrictEqual(
    lines,
    Array.from({ length: lines.length }, (_, index) => String(index))
  )
})

describe.runIf(canRun)("a service that is killed with SIGKILL again and again under load", () => {
  it.live(
    "loses nothing it acknowledged, leaks nothing, and a long command's output is all there at the end",
    () =>
      Effect.gen(function* () {
        const { kills } = yield* settings
        const base = yield* temporary
        const port = yield* freePort
        const promised: Array<Promised> = []
        const told = yield* Ref.make(0)

        const torment = Effect.gen(function* () {
          const keeper = yield* Sandboxes.createDetached({ name: "keeper" })
          yield* keeper.commands.start("i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done", {
            processId: "counter",
            journalBytes: 16 * 1024 * 1024
          })
          const workers = yield* Effect.forkChild(
            Effect.forEach([1, 2, 3], (worker) => load(worker, promised, told), { concurrency: "unbounded" })
          )
          for (let kill = 0; kill < kills; kill++) {
            // At a moment counted in answers, not in time: in the middle of whatever the others are at.
            const until = (yield* Ref.get(told)) + (yield* Random.nextIntBetween(2, 25))
            yield* Effect.repeat(Ref.get(told), {
              schedule: Schedule.spaced("2 millis"),
              until: (count) => count >= until
            })
            yield* restart
          }
          yield* Fiber.interrupt(workers)
          yield* verify(promised)
          yield* counted(keeper)
          const { sandboxes } = yield* Sandboxes.list({ limit: 1000 })
          yield* Effect.forEach(sandboxes, ({ id }) => Sandboxes.kill(id), { concurrency: 4, discard: true })
        })

        let running = yield* Scope.make()
        yield* Effect.addFinalizer((exit) => Scope.close(running, exit))
        const start = Effect.suspend(() => Scope.provide(startService(base, port), running))
        const restart = Effect.gen(function* () {
          yield* Scope.close(running, yield* Effect.exit(Effect.void))
          running = yield* Scope.make()
          yield* start
        })

        yield* start
        yield* Effect.provide(
          torment,
          SandboxesClient.layer({ url: `http://127.0.0.1:${port}`, token: aliceToken, leaseTtl: "5 minutes" })
        )
        assert.isAbove(promised.length, 3)
        assert.deepStrictEqual(yield* remains(base), [])
        // A last service that ends in order, so that the instance itself is cleared away too.
        yield* Scope.close(running, yield* Effect.exit(Effect.void))
        yield* Effect.provide(Sandboxes.list(), service(base))
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    600_000
  )
})
