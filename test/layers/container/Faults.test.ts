import { fileURLToPath } from "node:url"
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Effect, FileSystem, Layer, Random, Result } from "effect"
import { Generation } from "../../../src/domain/Ids.ts"
import * as AgentConnector from "../../../src/layers/container/AgentConnector.ts"
import * as ContainerBackend from "../../../src/layers/container/ContainerBackend.ts"
import type { ContainerOptions } from "../../../src/layers/container/Settings.ts"
import * as DirectoryInstance from "../../../src/layers/instance/DirectoryInstance.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Instance } from "../../../src/services/Instance.ts"
import {
  Base,
  backend,
  canRun,
  leftovers,
  platform,
  remains,
  sandbox,
  settled,
  sh,
  specOf
} from "./support.ts"

const helper = fileURLToPath(new URL("../../../native/build/fiberbox-host", import.meta.url))

/** A program that stands in for the runtime or the helper. */
const script = Effect.fnUntraced(function* (name: string, text: string) {
  const fs = yield* FileSystem.FileSystem
  const path = `${(yield* Base).path}/${name}`
  yield* fs.writeFileString(path, `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  return path
})

const under = (container: ContainerOptions, state?: string) =>
  Effect.provide(backend({ container, ...(state === undefined ? {} : { state }) }))

/** Processes of this machine whose command line contains a word. */
const running = Effect.fnUntraced(function* (word: string) {
  const fs = yield* FileSystem.FileSystem
  const pids = (yield* fs.readDirectory("/proc")).filter((name) => /^\d+$/.test(name))
  return yield* Effect.filter(pids, (pid) =>
    fs.readFileString(`/proc/${pid}/cmdline`).pipe(
      Effect.orElseSucceed(() => ""),
      Effect.map((line) => line.includes(word))
    )
  )
})

const agentOf = Effect.fnUntraced(function* (id: string) {
  const fs = yield* FileSystem.FileSystem
  return Number(yield* fs.readFileString(`${(yield* Instance).stateDir}/s/${id.slice(3)}/pid`))
})

describe.runIf(canRun)("a container that is started", () => {
  layer(Base.layer.pipe(Layer.provideMerge(platform)), { excludeTestServices: true })((it) => {
    it.effect(
      "by a runtime that hangs in its children fails by the runtime's name, and none of them lives on",
      () =>
        Effect.gen(function* () {
          const runtime = yield* script(
            "hangs-runtime",
            "setsid sleep 3071 & (setsid sh -c 'sleep 3072 & wait' &) ; sleep 3073 & wait"
          )
          yield* Effect.gen(function* () {
            const begun = yield* Clock.currentTimeMillis
            const error = yield* Effect.flip(Effect.scoped(sandbox()))
            assert.match(error.message, /hangs-runtime: did not end in time/)
            assert.isBelow((yield* Clock.currentTimeMillis) - begun, 13_000)
            assert.deepStrictEqual(yield* leftovers, [])
          }).pipe(under({ runtime }))
          assert.deepStrictEqual(yield* running("sleep\x00307"), [])
        }),
      60_000
    )

    it.effect("takes no longer than it may when the runtime or the helper stands still", () =>
      Effect.gen(function* () {
        const frozen = {
          runtime: yield* script("frozen-runtime", "sleep 3081 & kill -STOP $$"),
          helper: yield* script("frozen-helper", `kill -STOP $$; exec ${helper} "$@"`)
        }
        for (const what of ["runtime", "helper"] as const) {
          yield* Effect.gen(function* () {
            const begun = yield* Clock.currentTimeMillis
            const error = yield* Effect.flip(Effect.scoped(sandbox()))
            assert.deepInclude(error, { _tag: "Timeout", limit: "provision" }, what)
            assert.isBelow((yield* Clock.currentTimeMillis) - begun, 5_000, what)
            assert.deepStrictEqual(yield* leftovers, [], what)
          }).pipe(under({ [what]: frozen[what], provisionMillis: 1_000 }))
          assert.deepStrictEqual(yield* running(`frozen-${what}`), [], what)
        }
        assert.deepStrictEqual(yield* running("sleep\x003081"), [])
      })
    )

    it.effect("is started again whatever a runtime left that was killed between its files", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { path } = yield* Base
        const runtime = yield* script(
          "dies-runtime",
          `[ -e ${path}/die ] || exec runc "$@"
           while [ "$1" != --pid-file ]; do [ "$1" = --root ] && root=$2; shift; done
           mkdir -p $(dirname $2)/.pid-directory "$root/$5" && : > $(dirname $2)/.pid && : > "$root/$5/state.json"
           kill -9 $$`
        )
        yield* Effect.gen(function* () {
          const service = yield* Backend
          const { machine, request } = yield* sandbox()
          yield* sh(machine, "echo kept > /home/user/file")
          yield* machine.terminate
          yield* fs.writeFileString(`${path}/die`, "")
          const second = { ...request, generation: Generation.make(2) }
          assert.isTrue(Result.isFailure(yield* Effect.result(service.provision(second))))
          yield* fs.remove(`${path}/die`)
          const third = yield* service.provision({ ...request, generation: Generation.make(3) })
          assert.strictEqual((yield* sh(third, "cat /home/user/file")).out, "kept\n")
        }).pipe(Effect.scoped, under({ runtime }))
      })
    )

    it.effect(
      "is started again with its files after the runtime was killed at 50 random moments",
      () =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const delay = `${(yield* Base).path}/delay`
          const runtime = yield* script(
            "killed-runtime",
            `[ -e ${delay} ] || exec runc "$@"
             runc "$@" & sleep $(cat ${delay}); kill -9 $! 2>/dev/null; wait $!`
          )
          yield* Effect.gen(function* () {
            const service = yield* Backend
            const { id, machine, request } = yield* sandbox()
            yield* sh(machine, "echo kept > /home/user/file")
            yield* machine.terminate
            let failures = 0
            for (let round = 1; round <= 50; round++) {
              yield* fs.writeFileString(
                delay,
                `0.${String(yield* Random.nextIntBetween(0, 60)).padStart(3, "0")}`
              )
              const killed = { ...request, generation: Generation.make(2 * round) }
              const result = yield* Effect.result(Effect.scoped(service.provision(killed)))
              yield* fs.remove(delay)
              if (Result.isFailure(result)) {
                failures++
                assert.deepStrictEqual(yield* leftovers, [`s/${id.slice(3)}`], `round ${round}`)
              }
              if (round % 5 > 0) continue
              const next = { ...request, generation: Generation.make(2 * round + 1) }
              yield* Effect.scoped(
                Effect.gen(function* () {
                  const again = yield* service.provision(next)
                  assert.strictEqual((yield* sh(again, "cat /home/user/file")).out, "kept\n")
                  yield* again.terminate
                })
              )
            }
            assert.isAbove(failures, 10)
          }).pipe(Effect.scoped, under({ runtime }))
        }),
      120_000
    )

    it.effect("has its state on another file system than what instances share", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { path } = yield* Base
        const stateDir = yield* fs.makeTempDirectoryScoped({ directory: "/dev/shm", prefix: "fb-" })
        yield* Effect.gen(function* () {
          const { machine } = yield* sandbox()
          assert.strictEqual((yield* sh(machine, "echo here")).out, "here\n")
        }).pipe(
          Effect.scoped,
          Effect.provide(
            ContainerBackend.layer().pipe(
              Layer.provide(AgentConnector.layer),
              Layer.provideMerge(DirectoryInstance.layer({ baseDir: path, stateDir }))
            )
          )
        )
      }).pipe(Effect.scoped)
    )

    it.effect("has resource limits of its own, not those that its service happens to run under", () =>
      Effect.gen(function* () {
        const all = "for l in n f t v d s; do ulimit -S -$l; done"
        const limitsUnder = Effect.fnUntraced(function* (name: string, limits: string) {
          const wrapped = yield* script(name, `${limits}; exec ${helper} "$@"`)
          return yield* Effect.gen(function* () {
            const { machine } = yield* sandbox()
            return (yield* sh(machine, all)).out
          }).pipe(Effect.scoped, under({ helper: wrapped }))
        })
        const usual = yield* limitsUnder("usual-helper", ":")
        const low = yield* limitsUnder(
          "low-helper",
          "ulimit -S -n 100; ulimit -S -f 200000; ulimit -S -t 100; ulimit -S -v 900000; ulimit -S -s 1024"
        )
        assert.strictEqual(low, usual)
      })
    )
  })
})

describe.runIf(canRun)("a container whose agent stands still", () => {
  layer(backend().pipe(Layer.provideMerge(Base.layer), Layer.provideMerge(platform)), {
    excludeTestServices: true
  })((it) => {
    it.effect("is killed as fast as any, and no other is held up", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        const [frozen, other] = yield* Effect.all([sandbox(), sandbox()], { concurrency: 2 })
        const pid = yield* agentOf(frozen.id)
        yield* Effect.sync(() => process.kill(pid, "SIGSTOP"))
        const asked = yield* Effect.forkChild(Effect.result(sh(frozen.machine, "echo never")))
        const quickly = Effect.timeout("1 second")
        assert.strictEqual((yield* quickly(sh(other.machine, "echo here"))).out, "here\n")
        yield* Effect.timeout(service.remove(frozen.id), "2 seconds")
        const ofFrozen = Effect.map(remains, (found) =>
          found.filter((what) => what.includes(frozen.id.slice(3)) || what === `process ${pid}`)
        )
        assert.deepStrictEqual(yield* settled(ofFrozen), [])
        asked.interruptUnsafe()
      }).pipe(Effect.scoped)
    )
  })
})

describe.runIf(canRun)("a sandbox that has used up its own disk", () => {
  const full: ReadonlyArray<readonly [name: string, user: "user" | "root", fill: string]> = [
    ["all inodes as user", "user", "i=0; while : > f$i; do i=$((i+1)); done"],
    [
      "all inodes as root",
      "root",
      "i=0; while mkdir d$i; do i=$((i+1)); done; while : > f$i; do i=$((i+1)); done"
    ],
    ["all bytes as user", "user", "cat /dev/zero > big; i=0; while echo x > f$i; do i=$((i+1)); done"],
    [
      "all bytes and inodes as root",
      "root",
      "cat /dev/zero > big; i=0; while mkdir d$i; do i=$((i+1)); done; while : > f$i; do i=$((i+1)); done"
    ]
  ]
  layer(backend().pipe(Layer.provideMerge(Base.layer), Layer.provideMerge(platform)), {
    excludeTestServices: true
  })((it) => {
    it.effect.each(full)("%s is started again, shows its files and has them removed", ([, user, fill]) =>
      Effect.gen(function* () {
        const service = yield* Backend
        const { machine, request } = yield* sandbox(specOf({}, { diskBytes: 32 * 1024 * 1024, inodes: 500 }))
        yield* sh(machine, `cd /home/user; echo kept > kept; (${fill}) 2>/dev/null`, user)
        let before = machine
        for (const generation of [2, 3, 4]) {
          yield* before.terminate
          before = yield* service.provision({ ...request, generation: Generation.make(generation) })
          assert.isAbove(
            (yield* before.files.list("/home/user", { depth: 1, limit: 50, user })).entries.length,
            3
          )
        }
        yield* before.files.remove("/home/user", { recursive: true, user: "root" })
        yield* before.terminate
        const last = yield* service.provision({ ...request, generation: Generation.make(5) })
        assert.deepInclude(yield* sh(last, "cd /home && echo free > new && cat new", "root"), {
          code: 0,
          out: "free\n"
        })
      }).pipe(Effect.scoped)
    )
  })
})
