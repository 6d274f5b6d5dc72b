import { setTimeout } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import { type AgentClient, outputWindowBytes, type SpawnSpec } from "../../../src/layers/agent/AgentClient.ts"
import {
  collect,
  connectTo,
  countNamed,
  countProcesses,
  deadline,
  ids,
  program,
  runAgent,
  sh,
  threadsProgram,
  withAgent
} from "./support.ts"

const isRoot = process.getuid?.() === 0

describe("a program", () => {
  it.effect("has its outputs apart and its exit code told", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const outcome = yield* collect(client.run(sh("echo out; echo err >&2; exit 7"), deadline))
        assert.deepStrictEqual(outcome, { stdout: "out\n", stderr: "err\n", exit: "code 7", end: 8 })
      })
    )
  )

  it.effect("that dies of a signal says which", () =>
    withAgent((client) =>
      Effect.map(collect(client.run(sh("kill -9 $$"), deadline)), ({ exit }) =>
        assert.strictEqual(exit, "signal 9")
      )
    )
  )

  it.effect("gets exactly its environment, directory and arguments, and nothing of the agent's", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const script =
          'pwd; echo "$0 $1"; env -u PWD -u OLDPWD -u SHLVL -u _ | sort; umask; ls /proc/self/fd | wc -l'
        const outcome = yield* collect(
          client.run(
            program(["/bin/sh", "-c", script, "zero", "one two"], {
              cwd: agent.home,
              env: ["PATH=/usr/bin:/bin", "A=b=c", "E="]
            }),
            deadline
          )
        )
        // Its three, and the directory that ls reads.
        assert.strictEqual(
          outcome.stdout,
          `${agent.home}\nzero one two\nA=b=c\nE=\nPATH=/usr/bin:/bin\n0022\n4\n`
        )
      })
    )
  )

  it.effect("has no capability, no way to gain one, and goes first when memory runs out", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const script =
          "grep -E '^(Uid|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|SigBlk|SigIgn)' /proc/self/status; cat /proc/self/oom_score_adj"
        const { stdout } = yield* collect(client.run(sh(script), deadline))
        const none = "0000000000000000"
        assert.deepStrictEqual(stdout.replaceAll("\t", " ").trim().split("\n"), [
          `Uid: ${ids.uid} ${ids.uid} ${ids.uid} ${ids.uid}`,
          `SigBlk: ${none}`,
          `SigIgn: ${none}`,
          `CapInh: ${none}`,
          `CapPrm: ${none}`,
          `CapEff: ${none}`,
          `CapAmb: ${none}`,
          "NoNewPrivs: 1",
          "1000"
        ])
      })
    )
  )

  it.effect.skipIf(!isRoot)("run as root keeps the six named capabilities and no more", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const { stdout } = yield* collect(
          client.run(sh("grep CapEff /proc/self/status", { uid: 0, gid: 0 }), deadline)
        )
        // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, KILL 5, SETGID 6, SETUID 7
        assert.strictEqual(stdout, "CapEff:\t00000000000000eb\n")
      })
    )
  )

  it.effect("that cannot start says why, and its id stays free", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const refusal = (argv: ReadonlyArray<string>, cwd = "/") =>
          Effect.map(
            Effect.flip(client.spawn(program(argv, { processId: "same", cwd }), deadline)),
            (error) => (error._tag === "AgentFailed" ? error.code : error._tag)
          )
        assert.strictEqual(yield* refusal(["no-such-program"]), "not-found")
        assert.strictEqual(yield* refusal(["/no/such/program"]), "not-found")
        assert.strictEqual(yield* refusal(["/etc/passwd"]), "permission")
        assert.strictEqual(yield* refusal(["/usr"]), "permission")
        assert.strictEqual(yield* refusal(["true"], "/no/such/directory"), "bad-cwd")
        assert.strictEqual(yield* refusal(["true"], "relative"), "invalid")
        assert.strictEqual(yield* refusal(["true", "x".repeat(140_000)]), "too-long")
        assert.strictEqual(yield* refusal(["true", "x".repeat(2_000_000)]), "too-long")
        assert.strictEqual(
          (yield* collect(client.run(program(["true"], { processId: "same" }), deadline))).exit,
          "code 0"
        )
      })
    )
  )

  it.effect("may be given a megabyte of arguments", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const argv = [
          "/bin/sh",
          "-c",
          'echo "$#"',
          "sh",
          ...Array.from({ length: 9000 }, (_, i) => `${i}`.padEnd(100, "x"))
        ]
        assert.strictEqual((yield* collect(client.run(program(argv), deadline))).stdout, "9000\n")
      })
    )
  )

  it.effect("asked for twice runs once, and another under its id is refused", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        const spec = sh(`echo x >> ${home}/ran; echo done`)
        const both = yield* Effect.all(
          [collect(client.run(spec, deadline)), collect(client.run(spec, deadline))],
          {
            concurrency: 2
          }
        )
        assert.deepStrictEqual(
          both.map(({ stdout }) => stdout),
          ["done\n", "done\n"]
        )
        const count = yield* collect(client.run(sh(`wc -l < ${home}/ran`), deadline))
        assert.strictEqual(count.stdout, "1\n")
        const other = yield* Effect.flip(client.spawn({ ...spec, cwd: "/tmp" }, deadline))
        assert.strictEqual(other._tag === "AgentFailed" && other.code, "conflict")
      })
    )
  )

  it.effect("is listed with what it is and how it ended", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        yield* collect(client.run(program(["echo", "hi"], { processId: "a" }), deadline))
        yield* client.spawn(program(["sleep", "1000"], { processId: "b" }), deadline)
        const list = (yield* client.processes(deadline)).map(
          ({ processId, argv, exited, value, end, treeAlive }) => ({
            processId,
            argv,
            exited,
            value,
            end,
            treeAlive
          })
        )
        assert.deepStrictEqual(list, [
          { processId: "a", argv: ["echo", "hi"], exited: true, value: 0, end: 3, treeAlive: false },
          { processId: "b", argv: ["sleep", "1000"], exited: false, value: 0, end: 0, treeAlive: true }
        ])
      })
    )
  )
})

describe("a label", () => {
  it.effect("outlives the connection with its process, byte for byte, and is nothing to the program", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const agent = yield* runAgent()
        const label = `{"\0":"${"ü".repeat(120)}"}`
        const spec = sh("env; tr '\\0' '\\n' < /proc/self/environ; read line", { stdin: true, label })
        const first = yield* Effect.scoped(
          Effect.flatMap(connectTo(agent), (client) =>
            Effect.andThen(client.spawn(spec, deadline), client.processes(deadline))
          )
        )
        const next = yield* connectTo(agent)
        const second = yield* next.processes(deadline)
        assert.deepStrictEqual(
          [...first, ...second].map(({ label }) => label),
          [label, label]
        )
        yield* next.closeStdin(spec.processId, deadline)
        const { stdout } = yield* collect(next.attach(spec.processId, 0, deadline))
        assert.include(stdout, "PATH=")
        assert.notInclude(stdout, "ü")
      })
    )
  )

  it.effect("does not decide which process an id names: the first stays", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = sh("sleep 1000", { label: "first" })
        yield* client.spawn(spec, deadline)
        const again = yield* client.spawn({ ...spec, label: "second" }, deadline)
        assert.isTrue(again.existed)
        assert.deepStrictEqual(
          (yield* client.processes(deadline)).map(({ label }) => label),
          ["first"]
        )
      })
    )
  )

  it.effect("of more than 256 bytes is refused, and nothing is started", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(client.spawn(sh("true", { label: "x".repeat(257) }), deadline))
        assert.strictEqual(error._tag === "AgentFailed" && error.code, "invalid")
        assert.deepStrictEqual(yield* client.processes(deadline), [])
        yield* client.spawn(sh("true", { label: "x".repeat(256) }), deadline)
      })
    )
  )
})

describe("killing", () => {
  it.effect("leaves nothing of a tree with daemons of every kind", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const marker = "98761234"
        const spec = sh(
          `setsid sleep ${marker} & (sleep ${marker} &) ; (setsid sh -c 'sleep ${marker} & sleep ${marker}' &) ; trap '' TERM HUP; echo up; nohup sleep ${marker}`
        )
        const up = client.run(spec, deadline).pipe(Stream.filter((message) => message._tag === "Output"))
        yield* Stream.runHead(up)
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
        assert.strictEqual(countProcesses(marker), 0)
        assert.strictEqual((yield* collect(client.attach(spec.processId, 0, deadline))).exit, "signal 9")
      })
    )
  )

  it.effect("reaches the daemons of a program that has exited long ago", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const marker = "98761235"
        const spec = sh(`setsid sleep ${marker} > /dev/null 2>&1 & echo left`)
        assert.strictEqual((yield* collect(client.run(spec, deadline))).exit, "code 0")
        const [before] = yield* client.processes(deadline)
        assert.deepStrictEqual([before?.exited, before?.treeAlive], [true, true])
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
        assert.strictEqual(countProcesses(marker), 0)
        // Killing what is dead already succeeds.
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
      })
    )
  )

  it.effect("leaves other programs alone", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const other = program(["cat"], { stdin: true })
        yield* client.spawn(other, deadline)
        const victim = sh("sleep 1000 & sleep 1000")
        yield* client.spawn(victim, deadline)
        yield* client.kill(victim.processId, deadline, deadline)
        yield* client.closeStdin(other.processId, deadline)
        assert.strictEqual((yield* collect(client.attach(other.processId, 0, deadline))).exit, "code 0")
      })
    )
  )

  it.effect("works on many at once", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const marker = "98761236"
        const specs = Array.from({ length: 40 }, () =>
          sh(`for i in 1 2 3; do sleep ${marker} & done; echo up; wait`)
        )
        yield* Effect.forEach(
          specs,
          (spec) =>
            Stream.runHead(
              client.run(spec, deadline).pipe(Stream.filter((message) => message._tag === "Output"))
            ),
          { concurrency: "unbounded" }
        )
        assert.isAtLeast(countProcesses(marker), 160)
        const gone = yield* Effect.forEach(specs, (spec) => client.kill(spec.processId, deadline, deadline), {
          concurrency: "unbounded"
        })
        assert.isTrue(gone.every((all) => all))
        assert.strictEqual(countProcesses(marker), 0)
      })
    )
  )

  it.effect("ends the threads that a program's first thread has left behind", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const spec = program([threadsProgram(agent, "fbt-left")])
        const alone = client.run(spec, deadline).pipe(Stream.filter((message) => message._tag === "Output"))
        yield* Stream.runHead(alone)
        assert.strictEqual(countNamed("fbt-left"), 1)
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
        assert.strictEqual(countNamed("fbt-left"), 0)
        assert.strictEqual((yield* collect(client.attach(spec.processId, 0, deadline))).exit, "signal 9")
      })
    )
  )

  it.effect.skipIf(!isRoot)("ends such threads, too, when their supervisor was killed", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const path = threadsProgram(agent, "fbt-orphaned")
        const spec = program([path, "orphan"], { uid: 0, gid: 0 })
        assert.strictEqual((yield* collect(client.run(spec, deadline))).exit, "signal 9")
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
        assert.strictEqual(countNamed("fbt-orphaned"), 0)
      })
    )
  )

  it.effect.skipIf(!isRoot)("a supervisor from inside kills what it supervised", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const marker = "98761237"
        const spec = sh(`sleep ${marker} & setsid sleep ${marker} & kill -9 $PPID; sleep ${marker}`, {
          uid: 0,
          gid: 0
        })
        assert.strictEqual((yield* collect(client.run(spec, deadline))).exit, "signal 9")
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
        assert.strictEqual(countProcesses(marker), 0)
        assert.strictEqual((yield* collect(client.run(sh("echo well"), deadline))).stdout, "well\n")
      })
    )
  )
})

describe("taking a start back", () => {
  const met = (client: AgentClient, start: SpawnSpec, cause: "request" | "limit" = "request") =>
    client.cancel(start, cause, deadline, deadline)
  const refusal = (client: AgentClient, spec: SpawnSpec) =>
    Effect.map(
      Effect.flip(client.spawn(spec, deadline)),
      (error) => error._tag === "AgentFailed" && [error.code, error.reason]
    )

  it.effect("before it comes makes that it never starts anything, for whatever is asked under its id", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        const spec = sh(`touch ${home}/ran`, { identity: 1 })
        assert.deepStrictEqual(yield* met(client, spec), { treeGone: true, met: "nothing" })
        assert.deepStrictEqual(yield* met(client, spec), { treeGone: true, met: "nothing" })
        const cancelled = ["conflict", "the start of this process was cancelled"]
        assert.deepStrictEqual(yield* refusal(client, spec), cancelled)
        assert.deepStrictEqual(yield* refusal(client, { ...spec, identity: 2 }), cancelled)
        assert.deepStrictEqual(yield* client.processes(deadline), [])
        assert.strictEqual((yield* collect(client.run(sh(`ls ${home}`), deadline))).stdout, "")
      })
    )
  )

  it.effect("while it is under way, or later, kills all there is of it", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const marker = "98761238"
        for (let round = 0; round < 20; round++) {
          const spec = sh(`setsid sleep ${marker} & sleep ${marker}`, { identity: 1 })
          // The second question is on its way before the first is answered.
          const [spawned, { treeGone }] = yield* Effect.all(
            [Effect.exit(client.spawn(spec, deadline)), met(client, spec)],
            { concurrency: 2 }
          )
          assert.isTrue(treeGone && spawned !== undefined)
          assert.strictEqual(countProcesses(marker), 0)
        }
        const spec = sh(`setsid sleep ${marker} & echo up; sleep ${marker}`, { identity: 1 })
        yield* Stream.runHead(
          client.run(spec, deadline).pipe(Stream.filter((message) => message._tag === "Output"))
        )
        assert.deepStrictEqual(yield* met(client, spec), { treeGone: true, met: "program" })
        assert.strictEqual(countProcesses(marker), 0)
        assert.deepStrictEqual(yield* met(client, spec), { treeGone: true, met: "nothing" })
      })
    )
  )

  it.effect("leaves alone what another start has given its id", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = program(["cat"], { stdin: true, identity: 1 })
        yield* client.spawn(spec, deadline)
        assert.deepStrictEqual(yield* met(client, { ...spec, identity: 2 }), {
          treeGone: true,
          met: "nothing"
        })
        yield* client.closeStdin(spec.processId, deadline)
        assert.strictEqual((yield* collect(client.attach(spec.processId, 0, deadline))).exit, "code 0")
      })
    )
  )

  it.effect("because its time is up is told with its exit, if it had not exited before", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const timedOut = (spec: SpawnSpec) =>
          Effect.map(Stream.runLast(client.attach(spec.processId, 0, deadline)), (last) =>
            last._tag === "Some" && last.value._tag === "Exit" ? last.value.timedOut : undefined
          )
        const late = sh("sleep 1000")
        yield* client.spawn(late, deadline)
        assert.strictEqual((yield* met(client, late, "limit")).met, "program")
        assert.isTrue(yield* timedOut(late))
        const given = sh("sleep 1000")
        yield* client.spawn(given, deadline)
        yield* met(client, given)
        assert.isFalse(yield* timedOut(given))
        const before = sh("sleep 1000 > /dev/null 2>&1 &")
        yield* collect(client.run(before, deadline))
        assert.strictEqual((yield* met(client, before, "limit")).met, "descendants")
        assert.isFalse(yield* timedOut(before))
      })
    )
  )

  it.effect("is refused, and said so, when so many never came that one would be forgotten", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const ids = Array.from({ length: 16_384 }, (_, index) => ({
          ...program(["x"]),
          processId: `c${index}`
        }))
        yield* Effect.forEach(ids, (spec) => met(client, spec), { concurrency: 500, discard: true })
        const more = yield* Effect.flip(met(client, program(["x"])))
        assert.strictEqual(more._tag === "AgentFailed" && more.code, "resources")
        for (const spec of [ids[0], ids[8000], ids.at(-1)]) {
          if (spec === undefined) return assert.fail()
          assert.strictEqual((yield* met(client, spec)).met, "nothing")
          assert.deepStrictEqual(yield* refusal(client, spec), [
            "conflict",
            "the start of this process was cancelled"
          ])
        }
      })
    )
  )
})

describe("a time limit", () => {
  it.effect("of a program whose service has died is kept by the agent, a little later", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const agent = yield* runAgent()
        const marker = "98761239"
        const limited = sh(`setsid sleep ${marker} & echo front`, { limitMillis: 50 })
        const free = sh("sleep 1000")
        yield* Effect.scoped(
          Effect.flatMap(connectTo(agent), (client) =>
            Effect.gen(function* () {
              yield* client.spawn(free, deadline)
              // Its exit is told when the daemon has long begun: before, nothing might be found of it.
              yield* collect(client.run(limited, deadline))
            })
          )
        )
        while (countProcesses(marker) > 0) yield* Effect.promise(() => setTimeout(20))
        const client = yield* connectTo(agent)
        assert.deepStrictEqual(
          (yield* client.processes(deadline)).map(({ leftMillis, treeAlive }) => [
            leftMillis === 0,
            treeAlive
          ]),
          [
            [false, true],
            [true, false]
          ]
        )
      })
    )
  )

  it.effect("does not pass while the agent stands still, and can be told", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const spec = sh("sleep 1000", { limitMillis: 60_000 })
        yield* client.spawn(spec, deadline)
        const left = Effect.map(client.processes(deadline), ([process]) => process?.leftMillis ?? 0)
        agent.process.kill("SIGSTOP")
        yield* Effect.promise(() => setTimeout(2000))
        agent.process.kill("SIGCONT")
        assert.isAbove(yield* left, 58_900)
        yield* client.limit(spec.processId, 5000, deadline)
        assert.isAtMost(yield* left, 5000)
      })
    )
  )
})

describe("signals", () => {
  it.effect("reach the program, its group or its whole tree", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const end = (scope: "process" | "group" | "tree", script: string) =>
          Effect.gen(function* () {
            const spec = sh(script)
            yield* Stream.runHead(
              client.run(spec, deadline).pipe(Stream.filter((message) => message._tag === "Output"))
            )
            yield* client.signal(spec.processId, 15, scope, deadline)
            const outcome = yield* collect(client.attach(spec.processId, 0, deadline))
            return `${outcome.stdout}${outcome.exit}`
          })
        assert.strictEqual(
          yield* end("process", "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.01; done"),
          "up\ngot\ncode 3"
        )
        assert.strictEqual(
          yield* end("group", "echo up; sleep 1000 | cat; echo not reached"),
          "up\nsignal 15"
        )
        assert.strictEqual(yield* end("tree", "setsid sleep 1000 & echo up; wait"), "up\nsignal 15")
      })
    )
  )

  it.effect("to a process that is not there, or no longer, are told apart", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        yield* collect(client.run(program(["true"], { processId: "gone" }), deadline))
        const code = (id: string) =>
          Effect.map(
            Effect.flip(client.signal(id, 15, "process", deadline)),
            (error) => error._tag === "AgentFailed" && error.code
          )
        assert.strictEqual(yield* code("gone"), "closed")
        assert.strictEqual(yield* code("never"), "no-process")
      })
    )
  )
})

describe("standard input", () => {
  it.effect("is empty unless asked for", () =>
    withAgent((client) =>
      Effect.map(collect(client.run(program(["cat"]), deadline)), (outcome) =>
        assert.deepStrictEqual([outcome.stdout, outcome.exit], ["", "code 0"])
      )
    )
  )

  it.effect("takes repeats for what they are and refuses gaps", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = program(["cat"], { stdin: true })
        const output = yield* Effect.forkChild(collect(client.run(spec, deadline)), {
          startImmediately: true
        })
        const write = (offset: number, text: string) =>
          client.writeStdin(spec.processId, offset, Buffer.from(text), deadline)
        assert.strictEqual(yield* write(0, "hello "), 6)
        assert.strictEqual(yield* write(0, "hello "), 6)
        assert.strictEqual(yield* write(2, "llo world"), 11)
        assert.strictEqual(yield* write(0, ""), 11)
        const gap = yield* Effect.flip(write(12, "x"))
        assert.deepStrictEqual(gap._tag === "AgentFailed" && [gap.code, gap.detail], ["gap", 11])
        yield* client.closeStdin(spec.processId, deadline)
        yield* client.closeStdin(spec.processId, deadline)
        assert.strictEqual((yield* Fiber.join(output)).stdout, "hello world")
        const late = yield* Effect.flip(write(11, "x"))
        assert.strictEqual(late._tag === "AgentFailed" && late.code, "closed")
      })
    )
  )

  it.effect("of any size arrives whole, however slowly the program reads", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const data = Buffer.alloc(3_000_000, "0123456789abcdef\n")
        const spec = sh("for i in 1 2 3; do dd bs=1000 count=10 2> /dev/null; done; cat", {
          stdin: true,
          journalBytes: 16 << 20
        })
        const output = yield* Effect.forkChild(collect(client.run(spec, deadline)), {
          startImmediately: true
        })
        for (let at = 0; at < data.length; )
          at = yield* client.writeStdin(spec.processId, at, data.subarray(at), deadline)
        yield* client.closeStdin(spec.processId, deadline)
        assert.isTrue((yield* Fiber.join(output)).stdout === data.toString())
      })
    )
  )

  it.effect("that nobody reads takes a bounded amount", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = program(["sleep", "1000"], { stdin: true })
        yield* client.spawn(spec, deadline)
        const data = Buffer.alloc(100_000)
        let taken = 0
        const fill = Effect.gen(function* () {
          while (true) taken = yield* client.writeStdin(spec.processId, taken, data, deadline)
        })
        const filling = yield* Effect.forkChild(fill, { startImmediately: true })
        // A pipe of 64 KiB and a buffer of the same size; the write after that waits.
        while (taken < 131_072) yield* client.ping(deadline)
        yield* client.ping(deadline)
        assert.strictEqual(taken, 131_072)
        yield* Fiber.interrupt(filling)
        const ended = yield* Effect.forkChild(
          Effect.flip(client.writeStdin(spec.processId, taken, data, deadline)),
          {
            startImmediately: true
          }
        )
        yield* client.kill(spec.processId, deadline, deadline)
        const error = yield* Fiber.join(ended)
        assert.strictEqual(error._tag === "AgentFailed" && error.code, "closed")
      })
    )
  )
})

describe("output", () => {
  const numbers = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done"
  const expected = Array.from({ length: 30_000 }, (_, i) => `line ${i}\n`).join("")

  it.effect.prop(
    "that is read in parts, from cursor to cursor, is every byte once and in order",
    [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 })))],
    ([steps]) =>
      withAgent((client) =>
        Effect.gen(function* () {
          const spec = program(["/bin/sh", "-c", numbers])
          yield* client.spawn(spec, deadline)
          let text = ""
          for (const step of steps) {
            const until = Math.min(text.length + step, expected.length)
            yield* client.attach(spec.processId, text.length, deadline).pipe(
              Stream.takeUntil((message) => {
                if (message._tag === "Output") text += Buffer.from(message.data).toString()
                return text.length >= until
              }),
              Stream.runDrain
            )
          }
          text += (yield* collect(client.attach(spec.processId, text.length, deadline))).stdout
          assert.isTrue(text === expected)
        })
      ),
    { arbitrary: { runs: 5 } }
  )

  it.effect("that was overwritten is told as a gap, and the rest is whole", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = sh(numbers, { journalBytes: 8192 })
        yield* client.spawn(spec, deadline)
        while (!(yield* client.processes(deadline))[0]?.exited) yield* client.ping(deadline)
        const all = yield* Stream.runCollect(client.attach(spec.processId, 0, deadline))
        const gap = all.find((message) => message._tag === "Truncated")
        assert.isDefined(gap)
        const text = all
          .map((message) => (message._tag === "Output" ? Buffer.from(message.data).toString() : ""))
          .join("")
        assert.strictEqual(gap?.from, 0)
        assert.isTrue(text === expected.slice(gap?.to))
        // Each record of a few bytes has a header; how many there are depends on the timing.
        assert.isAbove(text.length, 2000)
        assert.isAtMost(text.length, 8192)
      })
    )
  )

  it.effect("that a reader does not take stops the program, and flows on without that reader", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const journalBytes = 64 * 1024
        const spec = program(["yes"], { journalBytes })
        const hold = yield* Deferred.make<void>()
        const reader = yield* Effect.forkChild(
          Stream.runForEach(client.run(spec, deadline), () => Deferred.await(hold)),
          { startImmediately: true }
        )
        const written = Effect.map(client.processes(deadline), ([first]) => first?.end ?? 0)
        let before = -1
        // It comes to rest, where journal, credit and nothing else are full.
        for (let now = yield* written; now !== before || now === 0; now = yield* written) {
          before = now
          for (let i = 0; i < 20; i++) yield* client.ping(deadline)
        }
        assert.isAtMost(before, journalBytes + outputWindowBytes)
        yield* Fiber.interrupt(reader)
        while ((yield* written) < before + 1_000_000) yield* client.ping(deadline)
        yield* client.kill(spec.processId, deadline, deadline)
      })
    )
  )

  it.effect("of a hundred megabytes arrives whole", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        let count = 0
        yield* Stream.runForEach(
          client.run(program(["head", "-c", "100000000", "/dev/zero"]), deadline),
          (message) =>
            Effect.sync(() => {
              if (message._tag !== "Output") return
              assert.strictEqual(message.cursor, count)
              count += message.data.length
            })
        )
        assert.strictEqual(count, 100_000_000)
      })
    )
  )

  it.effect("of what the program left behind is read for a second and a MiB, whatever the reader does", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        // The shell is gone at once, what it started writes as fast as it can.
        const behind = sh("yes & echo front", { identity: 1 })
        let bytes = 0
        let text = ""
        const last = yield* client.run(behind, deadline).pipe(
          Stream.tap((message) => {
            if (message._tag !== "Output") return Effect.void
            if (bytes === 0) text = Buffer.from(message.data).toString()
            bytes += message.data.length
            // Slower than it is written.
            return Effect.promise(() => setTimeout(20))
          }),
          Stream.runLast
        )
        assert.include(text, "front\n")
        assert.isTrue(last._tag === "Some" && last.value._tag === "Exit" && last.value.treeAlive)
        assert.isBelow(bytes, 4 * 1024 * 1024)
        const [info] = yield* client.processes(deadline)
        assert.deepStrictEqual([info?.exited, info?.treeAlive, info?.end], [true, true, bytes])
        // What it writes now goes nowhere, and does not stop it.
        const again = yield* collect(client.attach(behind.processId, bytes, deadline))
        assert.deepStrictEqual([again.stdout, again.exit], ["", "code 0"])
        assert.isTrue((yield* client.cancel(behind, "request", deadline, deadline)).treeGone)
      })
    )
  )

  it.effect("of the program itself is whole, though its reader is slow and others go on writing", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = sh("seq 1 12000; yes no >&2 & exit 3", { journalBytes: 4096, identity: 1 })
        const gate = yield* Deferred.make<void>()
        let out = ""
        let status: number | undefined
        const reader = yield* Effect.forkChild(
          Stream.runForEach(client.run(spec, deadline), (message) => {
            if (message._tag === "Exit") status = message.value
            if (message._tag !== "Output" || message.stream !== 1) return Effect.void
            out += Buffer.from(message.data).toString()
            return Deferred.await(gate)
          }),
          { startImmediately: true }
        )
        while (!(yield* client.processes(deadline))[0]?.exited) yield* Effect.promise(() => setTimeout(20))
        yield* Effect.promise(() => setTimeout(1200))
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(reader)
        assert.strictEqual(out, Array.from({ length: 12_000 }, (_, index) => `${index + 1}\n`).join(""))
        assert.strictEqual(status, 3)
        yield* client.cancel(spec, "request", deadline, deadline)
      })
    )
  )

  it.effect("held open by a daemon does not hold up the exit", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = sh("sleep 1000 & echo done")
        const outcome = yield* collect(client.run(spec, deadline))
        assert.deepStrictEqual([outcome.stdout, outcome.exit], ["done\n", "code 0"])
        assert.isTrue(yield* client.kill(spec.processId, deadline, deadline))
      })
    )
  )

  it.effect("of a program that is no longer kept is not made again by running it twice", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const first = sh("echo once")
        assert.strictEqual((yield* collect(client.run(first, deadline))).stdout, "once\n")
        assert.strictEqual((yield* collect(client.run(first, deadline))).stdout, "once\n")
        for (let count = 0; count < 300; count++) yield* collect(client.run(program(["true"]), deadline))
        const error = yield* Effect.flip(collect(client.run(first, deadline)))
        assert.strictEqual(error._tag === "AgentFailed" && error.code, "conflict")
        const ids = (yield* client.processes(deadline)).map(({ processId }) => processId)
        assert.isFalse(ids.includes(first.processId))
      })
    )
  )

  it.effect("of many programs stays within the budget of the machine", () =>
    withAgent(
      (client) =>
        Effect.gen(function* () {
          const specs = Array.from({ length: 8 }, () => program(["head", "-c", "1000000", "/dev/zero"]))
          for (const spec of specs) yield* client.spawn(spec, deadline)
          while ((yield* client.processes(deadline)).some(({ exited }) => !exited))
            yield* client.ping(deadline)
          const kept = (yield* client.processes(deadline)).map(({ oldest, end }) => end - oldest)
          const sum = kept.reduce((sum, bytes) => sum + bytes, 0)
          assert.isAtMost(sum, 2_000_000)
          assert.isAbove(sum, 500_000)
        }),
      "--budget",
      "2000000"
    )
  )

  it.effect("flows to whoever reads it even when others have used up the budget", () =>
    withAgent(
      (client) =>
        Effect.gen(function* () {
          const hog = sh("head -c 100000 /dev/zero; exec sleep 1000")
          yield* client.spawn(hog, deadline)
          while (((yield* client.processes(deadline))[0]?.end ?? 0) < 100_000) yield* client.ping(deadline)
          const spec = program(["head", "-c", "300000", "/dev/zero"])
          const { stdout } = yield* collect(client.run(spec, deadline))
          assert.strictEqual(stdout.length, 300_000)
        }),
      "--budget",
      "8192"
    )
  )
})

describe("a terminal", () => {
  it.effect("has its size, belongs to the user, and hands keys to the program", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = program(
          ["/bin/sh", "-c", "stty size; [ -O $(tty) ] && echo mine; read x; stty size; exec sleep 1000"],
          {
            tty: { rows: 7, cols: 31 },
            stdin: true
          }
        )
        let shown = ""
        const reader = yield* Effect.forkChild(
          Stream.runForEach(client.run(spec, deadline), (message) =>
            Effect.sync(() => {
              if (message._tag === "Output") shown += Buffer.from(message.data).toString()
              if (message._tag === "Exit") shown += `signal ${message.signalled ? message.value : "none"}`
            })
          ),
          { startImmediately: true }
        )
        while (!shown.includes("mine")) yield* client.ping(deadline)
        yield* client.resize(spec.processId, 9, 41, deadline)
        yield* client.writeStdin(spec.processId, 0, Buffer.from("\n"), deadline)
        while (!shown.includes("9 41")) yield* client.ping(deadline)
        yield* client.writeStdin(spec.processId, 1, Buffer.from("\u0003"), deadline)
        yield* Fiber.join(reader)
        assert.strictEqual(shown, "7 31\r\nmine\r\n\r\n9 41\r\n^Csignal 2")
      })
    )
  )

  it.effect("ends its input at the end-of-file key", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const spec = program(["cat"], { tty: { rows: 24, cols: 80 }, stdin: true })
        const output = yield* Effect.forkChild(collect(client.run(spec, deadline)), {
          startImmediately: true
        })
        yield* client.writeStdin(spec.processId, 0, Buffer.from("ab\n"), deadline)
        yield* client.closeStdin(spec.processId, deadline)
        assert.deepInclude(yield* Fiber.join(output), { stdout: "ab\r\nab\r\n", exit: "code 0" })
      })
    )
  )
})

describe("a lost connection", () => {
  it.effect("leaves programs alive for the next, which goes on at its cursor", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const agent = yield* runAgent()
        const spec = sh("echo one; cat", { stdin: true })
        yield* Effect.scoped(
          Effect.flatMap(connectTo(agent), (client) =>
            Stream.runHead(
              client.run(spec, deadline).pipe(Stream.filter((message) => message._tag === "Output"))
            )
          )
        )
        const next = yield* connectTo(agent)
        yield* next.writeStdin(spec.processId, 0, Buffer.from("two\n"), deadline)
        yield* next.closeStdin(spec.processId, deadline)
        assert.deepInclude(yield* collect(next.attach(spec.processId, 4, deadline)), {
          stdout: "two\n",
          exit: "code 0"
        })
      })
    )
  )

  it.effect("ends with the next greeting: the agent has one host at a time", () =>
    withAgent((first, agent) =>
      Effect.gen(function* () {
        const epoch = yield* first.greeted(deadline)
        const second = yield* connectTo(agent, { epoch })
        const lost = yield* first.closed
        assert.strictEqual(lost._tag, "AgentLost")
        assert.strictEqual((yield* Effect.flip(first.ping(deadline)))._tag, "AgentLost")
        assert.strictEqual(yield* second.greeted(deadline), epoch)
        yield* second.ping(deadline)
      })
    )
  )

  it.effect("to another incarnation is refused, and disturbs nobody", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(connectTo(agent, { epoch: "00000000000000ff" }))
        assert.strictEqual(error._tag === "AgentFailed" && error.code, "stale-epoch")
        yield* client.ping(deadline)
      })
    )
  )

  it.effect("ends the agent and all its programs when the lease runs out", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const marker = "98761238"
        const agent = yield* runAgent()
        yield* Effect.scoped(
          Effect.flatMap(connectTo(agent, { leaseMillis: 20 }), (client) =>
            client.spawn(sh(`setsid sleep ${marker} & sleep ${marker}`), deadline)
          )
        )
        yield* agent.exited
        assert.strictEqual(countProcesses(marker), 0)
      })
    )
  )
})
