import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { layer } from "../../../src/layers/memory/MemoryBackend.ts"
import { bytes, exited, home, program, provision, run, settle, sh, summary } from "./support.ts"

const text = (data: Iterable<Uint8Array>) =>
  new TextDecoder().decode(Uint8Array.from([...data].flatMap((piece) => [...piece])))

describe("commands a test defines", () => {
  it.effect("read, write and end like any program, and wait while nobody reads", () => {
    let written = 0
    const options = {
      commands: {
        upper: (ctx) =>
          ctx.stdin.pipe(
            Stream.decodeText(),
            Stream.runForEach((piece) => ctx.stdout(piece.toUpperCase())),
            Effect.as(3)
          ),
        flood: (ctx) =>
          Effect.gen(function* () {
            for (; written < 100; written++) yield* ctx.stdout(new Uint8Array(1024))
            return 0
          }),
        note: (ctx) =>
          Effect.as(ctx.files.write("note", `${ctx.argv[1]} ${ctx.env["A"]} ${ctx.cwd} ${ctx.user}`), 0),
        broken: () => Effect.die("broken"),
        failing: () => Effect.fail("failed")
      }
    } satisfies Parameters<typeof layer>[0]
    return Effect.gen(function* () {
      const machine = yield* provision()
      assert.deepStrictEqual(yield* sh(machine, "echo abc | upper; echo $?"), {
        out: "ABC\n3\n",
        err: "",
        code: 0
      })
      assert.strictEqual(
        (yield* sh(machine, "A=env note arg; cat note; command -v note")).out,
        `arg env ${home} user/usr/bin/note\n`
      )
      for (const name of ["broken", "failing"]) {
        const outcome = yield* run(machine, program([name]))
        assert.deepStrictEqual(outcome.status, exited(1))
        assert.include(outcome.err, name.slice(0, 4))
      }
      const spawn = program(["flood"], { journalBytes: 8192 })
      const taken = yield* Deferred.make<void>()
      const reader = yield* machine.processes.run(spawn).pipe(
        Stream.runForEach(() => Deferred.await(taken)),
        Effect.forkChild
      )
      yield* settle
      assert.isAtLeast(written, 8)
      assert.isAtMost(written, 16)
      yield* Deferred.succeed(taken, undefined)
      yield* Fiber.join(reader)
      assert.strictEqual(written, 100)
    }).pipe(Effect.scoped, Effect.provide(layer(options)))
  })

  it.effect("answer signals, or are interrupted by them", () => {
    const log: Array<string> = []
    const options = {
      commands: {
        polite: (ctx) =>
          Effect.gen(function* () {
            const asked = yield* Deferred.make<void>()
            yield* ctx.onSignal("SIGTERM", Effect.asVoid(Deferred.succeed(asked, undefined)))
            yield* Deferred.await(asked)
            return 5
          }),
        rude: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("cleaned up")))
      }
    } satisfies Parameters<typeof layer>[0]
    return Effect.gen(function* () {
      const machine = yield* provision()
      const statusAfterTerm = Effect.fnUntraced(function* (name: string) {
        const spawn = program([name])
        yield* machine.processes.start(spawn)
        yield* settle
        yield* machine.processes.signal(spawn.processId, "SIGTERM")
        return summary(yield* Stream.runCollect(machine.processes.attach(spawn.processId, 0))).status
      })
      assert.deepStrictEqual(yield* statusAfterTerm("polite"), exited(5))
      assert.deepStrictEqual(yield* statusAfterTerm("rude"), {
        _tag: "Signaled",
        signal: "SIGTERM",
        number: 15
      })
      assert.deepStrictEqual(log, ["cleaned up"])
    }).pipe(Effect.scoped, Effect.provide(layer(options)))
  })

  it.effect("listen on ports, for as long as they live", () => {
    const options = {
      commands: {
        serve: (ctx) =>
          ctx
            .listen(8080, (connection) =>
              connection.incoming.pipe(
                Stream.decodeText(),
                Stream.runForEach((piece) => connection.send(bytes(`<${piece}>`)))
              )
            )
            .pipe(Effect.catchTag("Conflict", () => Effect.succeed(98)))
      },
      ports: { 9090: (connection) => Effect.asVoid(connection.send(bytes("hello"))) }
    } satisfies Parameters<typeof layer>[0]
    return Effect.gen(function* () {
      const machine = yield* provision()
      const talk = Effect.fnUntraced(function* (port: number, say: string) {
        const connection = yield* machine.dial(port)
        yield* connection.send(bytes(say))
        yield* connection.end
        return text(yield* Stream.runCollect(connection.incoming))
      }, Effect.scoped)
      assert.deepInclude(yield* Effect.flip(talk(8080, "x")), { _tag: "NotFound", kind: "port", id: "8080" })
      const spawn = program(["serve"])
      yield* machine.processes.start(spawn)
      yield* settle
      assert.strictEqual(yield* talk(8080, "a"), "<a>")
      assert.strictEqual(yield* talk(8080, "b"), "<b>")
      assert.strictEqual(yield* talk(9090, ""), "hello")
      assert.deepStrictEqual((yield* run(machine, program(["serve"]))).status, exited(98))
      yield* machine.processes.kill(spawn.processId)
      assert.strictEqual((yield* Effect.flip(talk(8080, "x")))._tag, "NotFound")
    }).pipe(Effect.scoped, Effect.provide(layer(options)))
  })
})
