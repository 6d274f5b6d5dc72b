import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Config, Effect, Fiber, Option, Random, Schedule, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, remains, temporary } from "../container/support.ts"
import { sandboxIn } from "../model/lifeKernel.ts"
import { aliceToken } from "../rpc/support.ts"
import { Called } from "./called.ts"
import { agentsOf, cleared, descendants, freePort, startService } from "./containers.ts"

const settings = Effect.map(Config.option(Config.Int("FIBERBOX_FREEZES")), (freezes) => ({
  freezes: Option.getOrElse(freezes, () => 8)
}))

const decode = Schema.decodeEffect(Schema.fromJsonString(Called))

/** Longer than any call of others may be late. */
const freezeMillis = 3_000
/** As much again in which nothing stands still, to compare with. */
const restMillis = 1_500

/** What is stopped, and whose calls may wait for it. */
interface Victim {
  readonly pid: number
  readonly what: string
  /** Whether a call is the victim's own. */
  readonly owns: (called: Heard) => boolean
}

interface Heard extends Called {
  readonly caller: number
}

interface Freeze {
  readonly victim: Victim
  readonly from: number
  readonly to: number
}

const kinds = ["agent", "helper", "runtime", "client"] as const

/** Processes that come and go are waited for, so that they are stopped in the middle of what they do. */
const caught = (find: () => Victim | undefined) =>
  Effect.suspend(() => Effect.fromNullishOr(find())).pipe(
    Effect.retry(Schedule.spaced("1 millis")),
    Effect.timeoutOption("10 seconds")
  )

const stopped = ({ pid }: Victim) =>
  Effect.sync(() => {
    try {
      return process.kill(pid, "SIGSTOP")
    } catch {
      return false // it has ended meanwhile
    }
  })

const goOn = ({ pid }: Victim) =>
  Effect.sync(() => {
    try {
      process.kill(pid, "SIGCONT")
    } catch {
      // A service may well end a helper that does not answer.
    }
  })

const overlaps = ({ from, to }: Freeze, called: Called) =>
  called.from < to && called.from + called.millis > from

/** The calls of others that came later than a second after the slowest of their kind while nothing stood still. */
const late = (freeze: Freeze, freezes: ReadonlyArray<Freeze>, heard: ReadonlyArray<Heard>) => {
  const calm = heard.filter((called) => !freezes.some((one) => overlaps(one, called)))
  const worst = (kind: Called["kind"]) =>
    calm.reduce((worst, called) => (called.kind === kind ? Math.max(worst, called.millis) : worst), 0)
  const { owns } = freeze.victim
  return heard.filter(
    (called) =>
      overlaps(freeze, called) &&
      !owns(called) &&
      (called.error !== undefined || called.millis > worst(called.kind) + 1000)
  )
}

describe.runIf(canRun)("what stands still under load", () => {
  it.live(
    "an agent, a helper, a runtime or a client makes no call of another sandbox more than a second late, and all is well when it goes on",
    () =>
      Effect.gen(function* () {
        const { freezes } = yield* settings
        const base = yield* temporary
        yield* cleared(base)
        const port = yield* freePort
        const url = `http://127.0.0.1:${port}`
        const running = yield* startService(base, port)
        const { id } = JSON.parse(readFileSync(`${base}/state/instance.json`, "utf8")) as {
          readonly id: string
        }
        const heard: Array<Heard> = []

        const callers = yield* Effect.forEach([0, 1, 2], (caller) =>
          Effect.gen(function* () {
            const program = fileURLToPath(new URL("./caller.ts", import.meta.url))
            const child = yield* ChildProcess.make(
              process.execPath,
              [program, url, aliceToken, `kept-${caller}`],
              { stderr: "inherit" }
            )
            const reading = child.stdout.pipe(
              Stream.decodeText(),
              Stream.splitLines,
              Stream.runForEach((line) =>
                Effect.map(decode(line), (called) => heard.push({ ...called, caller }))
              )
            )
            return { child, reading: yield* Effect.forkScoped(reading) }
          })
        )
        const settled = Effect.suspend(() =>
          callers.every((_, caller) =>
            heard.some((called) => called.caller === caller && called.kind === "kill")
          )
            ? Effect.void
            : Effect.fail("not yet")
        ).pipe(Effect.retry(Schedule.spaced("20 millis")))
        yield* settled

        const find = (kind: (typeof kinds)[number], which: number): Victim | undefined => {
          if (kind === "client") {
            const caller = which % callers.length
            const pid = callers[caller]?.child.pid
            return pid === undefined
              ? undefined
              : { pid, what: kind, owns: (called) => called.caller === caller }
          }
          if (kind === "agent") {
            const agents = agentsOf(id)
            const agent = agents[which % agents.length]
            if (agent === undefined) return undefined
            return { pid: agent.pid, what: kind, owns: ({ sandbox }) => sandbox === agent.sandbox }
          }
          const name = kind === "helper" ? /^\S*fiberbox-host / : /^\S*runc /
          // It works for one sandbox, which its command line names.
          for (const { command, pid } of descendants(running)) {
            const own = sandboxIn(command)
            if (!name.test(command) || own === undefined) continue
            return { pid, what: command, owns: ({ sandbox }) => sandbox === own }
          }
          return undefined
        }

        const frozen: Array<Freeze> = []
        for (let count = 0; count < freezes; count++) {
          const kind = kinds[count % kinds.length] ?? "agent"
          yield* Effect.sleep(restMillis + (yield* Random.nextIntBetween(0, 300)))
          const which = yield* Random.nextIntBetween(0, 1000)
          const victim = yield* caught(() => find(kind, which))
          if (Option.isNone(victim) || !(yield* stopped(victim.value))) continue
          const from = Date.now()
          yield* Effect.sleep(freezeMillis)
          yield* goOn(victim.value)
          frozen.push({ victim: victim.value, from, to: Date.now() })
        }
        // Whatever was held up has time to come.
        yield* Effect.sleep(restMillis)
        yield* Effect.forEach(callers, ({ child }) => child.kill({ killSignal: "SIGTERM" }), {
          concurrency: 3
        })
        yield* Effect.forEach(callers, ({ reading }) => Fiber.join(reading))

        assert.isAtLeast(frozen.length, Math.ceil(freezes / 2))
        for (const freeze of frozen) {
          const found = late(freeze, frozen, heard).map((called) => JSON.stringify(called))
          assert.deepStrictEqual(found, [], `while ${freeze.victim.what} stood still`)
        }

        yield* Effect.gen(function* () {
          const { sandboxes } = yield* Sandboxes.list({ limit: 1000 })
          for (const [caller] of callers.entries()) {
            const kept = sandboxes.find(({ name }) => name === `kept-${caller}`)
            assert.isDefined(kept, `kept-${caller} was lost`)
            const sandbox = yield* Sandboxes.connect(kept.id)
            const written = heard.filter((called) => called.caller === caller && called.kind === "write")
            const last = written.findLast(({ error }) => error === undefined)?.content
            const text = yield* sandbox.files.readText("/home/user/f")
            const number = (content = "") => Number(content.split(" ")[1])
            assert.isAtLeast(number(text), number(last), `what was acknowledged to kept-${caller} was lost`)
            assert.strictEqual((yield* sandbox.commands.run("echo well")).stdout, "well\n")
          }
          yield* Effect.forEach(sandboxes, ({ id }) => Sandboxes.kill(id), { concurrency: 4, discard: true })
        }).pipe(Effect.provide(SandboxesClient.layer({ url, token: aliceToken })))
        yield* Effect.suspend(() => {
          const left = descendants(running).map(({ command }) => command)
          return left.length === 0 ? Effect.void : Effect.fail(left)
        }).pipe(Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 100 }))
        assert.deepStrictEqual(yield* remains(base), [])
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    3_600_000
  )
})
