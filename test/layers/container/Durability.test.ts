import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Result } from "effect"
import { ChildProcess } from "effect/process"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { Generation } from "../../../src/domain/Ids.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Instance } from "../../../src/services/Instance.ts"
import { Base, backend, canRun, platform, sandbox, sh, specOf } from "./support.ts"

const shell = Effect.fnUntraced(function* (command: string) {
  const spawner = yield* ChildProcessSpawner
  return yield* spawner.string(
    ChildProcess.make("sh", ["-c", `{ ${command}; } 2>&1`], { stderr: "inherit" }),
    { includeStderr: false }
  )
})

/** A directory with a disk of its own of 160 MiB. */
const SmallHost = Layer.effect(
  Base,
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const outside = yield* fs.makeTempDirectoryScoped({ prefix: "fb-host-" })
    const path = `${outside}/h`
    const image = `${outside}/host.img`
    yield* shell(
      `mkdir ${path}; truncate -s 160M ${image}; mkfs.ext4 -q -m 0 ${image}; mount -o loop ${image} ${path}`
    )
    yield* Effect.addFinalizer(() => Effect.orDie(shell(`umount ${path}`)))
    return { path }
  })
).pipe(Layer.provideMerge(platform))

const mib = 1024 * 1024
const spec = specOf({}, { diskBytes: 120 * mib, inodes: 1000 })

/** Leaves the host's disk this much room. */
const leave = Effect.fnUntraced(function* (megabytes: number) {
  const { path } = yield* Base
  yield* shell(
    `room=$(df --output=avail -k ${path} | tail -1); head -c $(( (room - ${megabytes} * 1024) * 1024 )) /dev/zero > ${path}/filler; sync -f ${path}`
  )
})

const makeRoom = Effect.flatMap(Base, ({ path }) => shell(`rm -f ${path}/filler; sync -f ${path}`))

/** What e2fsck finds wrong with a sandbox's disk once its journal has been replayed. */
const damage = Effect.fnUntraced(function* (id: string) {
  const { stateDir } = yield* Instance
  const disk = `${stateDir}/s/${id.slice(3)}/disk.ext4`
  const copy = `${(yield* Base).path}/../copy.img`
  const found = yield* shell(
    `cp --sparse=always ${disk} ${copy}; e2fsck -p -f ${copy} > /dev/null; e2fsck -fn ${copy} && echo sound; rm ${copy}`
  )
  return /^sound$/m.test(found) ? "" : found
})

describe.runIf(canRun)("on a host whose disk becomes full", () => {
  layer(SmallHost, { excludeTestServices: true })((it) => {
    it.effect(
      "what a sandbox wrote before it was paused stays, what does not reach the disk is told, and no disk is damaged",
      () =>
        Effect.gen(function* () {
          const service = yield* Backend
          const greedy = yield* sandbox(spec)
          const modest = yield* sandbox(spec)
          yield* sh(modest.machine, "cd /home/user; for i in $(seq 50); do echo $i > before$i; done")
          yield* modest.machine.pause
          yield* modest.machine.resume
          yield* leave(16)
          yield* sh(greedy.machine, "head -c 60000000 /dev/zero > /home/user/big; sync")
          const after = yield* sh(
            modest.machine,
            "cd /home/user; head -c 8000000 /dev/urandom > after; for i in $(seq 50); do echo $i > after$i; done; ls | wc -l"
          )
          const stops = yield* Effect.all(
            [greedy, modest].map(({ machine }) => Effect.result(machine.terminate))
          )
          yield* makeRoom
          for (const [index, { id, request }] of [greedy, modest].entries()) {
            assert.strictEqual(yield* damage(id), "")
            const again = yield* service.provision({ ...request, generation: Generation.make(2) })
            const { out } = yield* sh(
              again,
              "cd /home/user; cat before* 2>/dev/null | wc -l; ls | wc -l; wc -c < after"
            )
            const [before, files, bytes] = out.split("\n")
            assert.strictEqual(before, index === 0 ? "0" : "50")
            const stop = stops[index]
            if (stop !== undefined && Result.isFailure(stop)) {
              assert.deepInclude(stop.failure, { _tag: "BackendFailed", operation: "stop a container" })
            } else if (index === 1) {
              assert.deepStrictEqual([files, bytes], [after.out.trim(), "8000000"])
            }
          }
          assert.isTrue(stops.some(Result.isFailure))
        }).pipe(Effect.scoped, Effect.provide(backend())),
      60_000
    )

    it.effect(
      "what was written before a stop that succeeds is there, however little room was left for it",
      () =>
        Effect.gen(function* () {
          const service = yield* Backend
          let failed = 0
          for (let round = 0; round < 10; round++) {
            const { machine, request } = yield* sandbox(spec)
            yield* sh(
              machine,
              "cd /home/user; for i in $(seq 30); do head -c 20000 /dev/urandom > a$i; done; sync"
            )
            yield* sh(machine, "cd /home/user; rm a1 a2 a3 a4 a5; sync")
            yield* leave(round % 2)
            yield* sh(
              machine,
              "cd /home/user; for i in 1 2 3; do head -c $((RANDOM % 5000)) /dev/urandom > b$i; done; md5sum b? > sums"
            )
            const stop = yield* Effect.result(machine.terminate)
            yield* makeRoom
            if (Result.isFailure(stop)) {
              failed++
              continue
            }
            const again = yield* service.provision({ ...request, generation: Generation.make(2) })
            const { out } = yield* sh(again, "cd /home/user; md5sum -c sums 2>&1")
            assert.strictEqual(out, "b1: OK\nb2: OK\nb3: OK\n", `round ${round}`)
            yield* again.terminate
          }
          assert.isAbove(failed, 0)
        }).pipe(Effect.scoped, Effect.provide(backend())),
      120_000
    )

    it.effect("a write is not said to be durable that did not reach the disk", () =>
      Effect.gen(function* () {
        const { machine } = yield* sandbox(spec)
        yield* sh(machine, "echo first > /home/user/first")
        yield* machine.sync
        yield* leave(4)
        yield* sh(machine, "head -c 20000000 /dev/urandom > /home/user/second")
        assert.deepInclude(yield* Effect.flip(machine.sync), { _tag: "BackendFailed", outcome: "completed" })
        yield* makeRoom
      }).pipe(Effect.scoped, Effect.provide(backend()))
    )

    it.effect("a loss is told before the disk of a machine that died is used again, and then no more", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const service = yield* Backend
        const { id, machine, request } = yield* sandbox(spec)
        yield* leave(4)
        yield* sh(machine, "head -c 20000000 /dev/urandom > /home/user/big")
        yield* Effect.flip(machine.sync)
        const pid = yield* fs.readFileString(`${(yield* Instance).stateDir}/s/${id.slice(3)}/pid`)
        yield* Effect.sync(() => process.kill(Number(pid), "SIGKILL"))
        yield* machine.exited
        yield* makeRoom
        const told: Array<string> = []
        const onLoss = (reason: string) => Effect.sync(() => told.push(reason))
        for (const generation of [2, 3]) {
          const again = yield* service.provision({
            ...request,
            generation: Generation.make(generation),
            onLoss
          })
          yield* again.terminate
        }
        assert.deepStrictEqual(told, [
          "what was written last did not reach the disk: the host's disk was full or failed"
        ])
      }).pipe(Effect.scoped, Effect.provide(backend()))
    )

    it.effect("a pause that fails because of it has not happened", () =>
      Effect.gen(function* () {
        const { machine } = yield* sandbox(spec)
        yield* leave(4)
        yield* sh(machine, "head -c 20000000 /dev/urandom > /home/user/big")
        assert.deepInclude(yield* Effect.flip(machine.pause), {
          _tag: "BackendFailed",
          operation: "pause a container",
          reason: "what was written last did not reach the disk: disk: Read-only file system",
          outcome: "not-started"
        })
        assert.strictEqual((yield* sh(machine, "echo goes on")).out, "goes on\n")
        yield* makeRoom
      }).pipe(Effect.scoped, Effect.provide(backend()))
    )

    it.effect("a sandbox whose disk is reserved keeps all that it wrote, or is not made", () =>
      Effect.gen(function* () {
        const service = yield* Backend
        const { id, machine, request } = yield* sandbox(specOf({}, { diskBytes: 64 * mib, inodes: 1000 }))
        yield* leave(4)
        assert.deepInclude(yield* Effect.flip(Effect.scoped(sandbox(spec))), {
          _tag: "ResourceExhausted",
          resource: "disk"
        })
        yield* sh(machine, "cd /home/user; head -c 50000000 /dev/urandom > big; md5sum big > sum")
        yield* machine.terminate
        const again = yield* service.provision({ ...request, generation: Generation.make(2) })
        assert.strictEqual((yield* sh(again, "cd /home/user; md5sum -c sum")).out, "big: OK\n")
        yield* again.terminate
        assert.strictEqual(yield* damage(id), "")
        yield* makeRoom
      }).pipe(Effect.scoped, Effect.provide(backend({ container: { reserveDisks: true } })))
    )
  })
})
