import { readFileSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Fiber, Latch, Option, Random, Schedule, Scope, Stream } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import type { SandboxInfo } from "../../src/domain/Sandbox.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, service, temporary } from "../container/support.ts"
import { aliceToken } from "../rpc/support.ts"
import { agentsOf, cleared, freePort, held, startService } from "./containers.ts"

const settings = Effect.gen(function* () {
  const kills = yield* Config.option(Config.Int("FIBERBOX_KILLS"))
  return { kills: Option.getOrElse(kills, () => 6) }
})

/** What a client was told, and so what must hold whatever was killed in between. */
interface Promised {
  readonly sandbox: Sandbox
  /** Whether `kill` was asked for; once it has been, both answers are right until it was acknowledged. */
  kill: "no" | "asked" | "done"
  /** The content acknowledged last, and the one that was on its way when the client last heard of it. */
  acknowledged: string | undefined
  underWay: string | undefined
  /** When its time to live ends, as it was acknowledged. */
  expiresAt: SandboxInfo["expiresAt"]
  /** Programs that were started and never end. */
  readonly programs: Array<string>
}

/** The clients' side of an audit: while the gate is shut, no call is made, and in time none is under way. */
interface Clients {
  readonly gate: Latch.Latch
  readonly promised: Array<Promised>
  answers: number
  underWay: number
}

/** How many sandboxes a worker keeps before it kills its oldest. */
const mostKept = 3

/** Creates, writes, runs and kills sandboxes for ever, and notes what was promised. */
const load = Effect.fnUntraced(function* (worker: number, clients: Clients) {
  const kept: Array<Promised> = []
  const attempt = <A, E>(effect: Effect.Effect<A, E, Sandboxes>, note: (answer: A) => void = () => {}) =>
    Effect.andThen(
      clients.gate.await,
      Effect.suspend(() => {
        clients.underWay++
        return Effect.option(effect).pipe(
          Effect.tap((answer) =>
            Effect.sync(() => {
              if (Option.isNone(answer)) return
              clients.answers++
              note(answer.value)
            })
          ),
          Effect.ensuring(Effect.sync(() => clients.underWay--))
        )
      })
    )
  for (let round = 0; ; round++) {
    const made = yield* attempt(Sandboxes.createDetached({ name: `w${worker}-${round}` }), (sandbox) => {
      const entry: Promised = {
        sandbox,
        kill: "no",
        acknowledged: undefined,
        underWay: undefined,
        expiresAt: undefined,
        programs: []
      }
      clients.promised.push(entry)
      kept.push(entry)
    })
    const entry = kept.at(-1)
    if (Option.isNone(made) || entry === undefined) continue
    const { sandbox } = entry
    const ttl = { afterMillis: 10 * 60 * 60 * 1000, action: "kill" } as const
    yield* attempt(sandbox.setExpiry({ ttl }), ({ expiresAt }) => {
      entry.expiresAt = expiresAt
    })
    yield* attempt(sandbox.commands.start("sleep 100000", { processId: "sleeper" }), () =>
      entry.programs.push("sleeper")
    )
    for (let write = 0; write < 3; write++) {
      const content = `content ${worker} ${round} ${write}`
      entry.underWay = content
      yield* attempt(sandbox.files.write("/home/user/f", content), () => {
        entry.acknowledged = content
      })
      yield* attempt(sandbox.commands.run("echo hello; cat f"))
    }
    const oldest = kept[0]
    if (oldest === undefined || (kept.length <= mostKept && (yield* Random.nextBoolean))) continue
    kept.shift()
    yield* attempt(
      Effect.suspend(() => {
        oldest.kill = "asked"
        return oldest.sandbox.kill
      }),
      () => {
        oldest.kill = "done"
      }
    )
  }
})

/** Holds records, machines and what clients were told against each other, while nobody calls. */
const audit = Effect.fnUntraced(function* (base: string, instance: string, clients: Clients) {
  const { sandboxes, next } = yield* Sandboxes.list({ limit: 1000 })
  assert.isUndefined(next)
  const alive = new Map(sandboxes.map((info) => [String(info.id), info]))
  assert.deepStrictEqual(
    sandboxes
      .filter(({ status }) => status !== "running")
      .map(({ id, status, reason }) => `${id} ${status} ${reason}`),
    []
  )
  const ended = new Set(
    clients.promised.filter(({ kill }) => kill === "done").map(({ sandbox }) => String(sandbox.id))
  )
  const strays = Effect.sync(() => {
    const left = [...agentsOf(instance).map(({ sandbox }) => sandbox), ...held(base, instance)]
    return [...new Set(left)].filter((id) => !alive.has(id))
  })
  // Of what was acknowledged nothing may be left. A kill that nobody heard the end of may still be under way.
  assert.deepStrictEqual(
    (yield* strays).filter((id) => ended.has(id)),
    [],
    "is left of sandboxes whose kill was acknowledged"
  )
  const gone = Effect.repeat(strays, {
    schedule: Schedule.spaced("20 millis"),
    times: 500,
    until: (found) => found.length === 0
  })
  assert.deepStrictEqual(yield* gone, [], "is left of sandboxes that are not listed")
  assert.includeMembers(
    agentsOf(instance).map(({ sandbox }) => sandbox),
    [...alive.keys()]
  )
  assert.includeMembers([...held(base, instance)], [...alive.keys()])
  for (const { sandbox, kill, acknowledged, underWay, expiresAt, programs } of clients.promised) {
    const info = alive.get(sandbox.id)
    if (kill === "no") assert.isDefined(info, `${sandbox.id} was lost`)
    if (kill === "done") assert.isUndefined(info, `${sandbox.id} lives though it was killed`)
    if (kill !== "no") continue
    if (expiresAt !== undefined) assert.deepStrictEqual(info?.expiresAt, expiresAt)
    const running = (yield* sandbox.process.list).filter(({ exit }) => exit === undefined)
    assert.includeMembers(
      running.map(({ processId }) => String(processId)),
      programs
    )
    if (acknowledged === undefined) continue
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
    "loses nothing it acknowledged and keeps nothing else, after each kill, and a long command's output is all there at the end",
    () =>
      Effect.gen(function* () {
        const { kills } = yield* settings
        const base = yield* temporary
        yield* cleared(base)
        const port = yield* freePort
        const clients: Clients = { gate: yield* Latch.make(true), promised: [], answers: 0, underWay: 0 }
        const quiet = Effect.suspend(() => (clients.underWay === 0 ? Effect.void : Effect.fail("busy"))).pipe(
          Effect.retry(Schedule.spaced("10 millis"))
        )

        const torment = Effect.gen(function* () {
          const { id } = JSON.parse(readFileSync(`${base}/state/instance.json`, "utf8")) as {
            readonly id: string
          }
          const keeper = yield* Sandboxes.createDetached({ name: "keeper" })
          yield* keeper.commands.start("i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done", {
            processId: "counter",
            journalBytes: 16 * 1024 * 1024
          })
          const workers = yield* Effect.forkChild(
            Effect.forEach([1, 2, 3], (worker) => load(worker, clients), { concurrency: "unbounded" })
          )
          for (let kill = 0; kill < kills; kill++) {
            // At a moment counted in answers, not in time: in the middle of whatever the others are at.
            const until = clients.answers + (yield* Random.nextIntBetween(2, 25))
            yield* Effect.repeat(
              Effect.sync(() => clients.answers),
              { schedule: Schedule.spaced("2 millis"), until: (count) => count >= until }
            )
            yield* restart
            yield* clients.gate.close
            yield* quiet
            yield* audit(base, id, clients)
            yield* clients.gate.open
          }
          yield* Fiber.interrupt(workers)
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
        assert.isAbove(clients.promised.length, 3)
        assert.deepStrictEqual(yield* remains(base), [])
        // A last service that ends in order, so that the instance itself is cleared away too.
        yield* Scope.close(running, yield* Effect.exit(Effect.void))
        yield* Effect.provide(Sandboxes.list(), service(base))
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    7_200_000
  )
})
