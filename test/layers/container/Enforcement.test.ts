import { watch } from "node:fs"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { canRun, everything, sandbox, sh, specOf } from "./support.ts"

const mib = 1024 * 1024

/** Runs a hog in a sandbox, then holds both it and a second sandbox to be healthy. */
const besideHealthy = Effect.fnUntraced(function* (limits: Parameters<typeof specOf>[1], command: string) {
  const [hog, other] = yield* Effect.all([sandbox(specOf({}, limits)), sandbox()], { concurrency: 2 })
  const result = yield* sh(hog.machine, command)
  for (const { machine } of [hog, other]) {
    assert.deepStrictEqual(yield* sh(machine, "echo alive"), { code: 0, out: "alive\n" })
  }
  return { ...result, hog: hog.machine, other: other.machine }
}, Effect.scoped)

describe.runIf(canRun)("a limit stops", () => {
  layer(everything, { excludeTestServices: true })((it) => {
    it.effect("a disk filler at its own disk's end", () =>
      Effect.gen(function* () {
        const fill = `dd if=/dev/zero of=/home/user/big bs=1M 2>&1 | tail -4; stat -c %s /home/user/big; rm /home/user/big; df -k / | tail -1`
        const { out } = yield* besideHealthy({ diskBytes: 64 * mib, inodes: 5000 }, fill)
        assert.include(out, "No space left on device")
        const size = Number(/^(\d+)$/m.exec(out)?.[1])
        assert.isAbove(size, 40 * mib)
        assert.isBelow(size, 64 * mib)
      })
    )

    it.effect("an inode filler", () =>
      Effect.gen(function* () {
        const fill = `cd /home/user; i=0; while true > f$i; do i=$((i+1)); done 2>/dev/null; echo $i; rm -f f*`
        const { out } = yield* besideHealthy({ diskBytes: 64 * mib, inodes: 1000 }, fill)
        assert.isAbove(Number(out), 500)
        assert.isBelow(Number(out), 1100)
      })
    )

    it.effect("a fork bomb", () =>
      Effect.gen(function* () {
        const bomb = `perl -e '$| = 1; my @p; while (defined(my $p = fork())) { if ($p == 0) { sleep 60; exit } push @p, $p } print scalar(@p); kill 9, @p; wait for @p'`
        const { out } = yield* besideHealthy({ pids: 64 }, bomb)
        assert.isAbove(Number(out), 20)
        assert.isBelow(Number(out), 64)
      })
    )

    it.effect("a memory hog, by killing it alone", () =>
      Effect.gen(function* () {
        const { code, out } = yield* besideHealthy(
          { memoryBytes: 64 * mib },
          `perl -e 'my $x = "a" x (256 * 1024 * 1024); print length $x'`
        )
        assert.strictEqual(code, 137)
        assert.strictEqual(out.replace(/Killed\s*/, ""), "")
      })
    )

    it.effect("files in memory at the memory limit", () =>
      Effect.gen(function* () {
        const { code } = yield* besideHealthy(
          { memoryBytes: 64 * mib },
          "head -c 200M /dev/zero > /dev/shm/big"
        )
        assert.notStrictEqual(code, 0)
      })
    )

    it.effect(
      "an inotify hog, at a share of its own: even as root and under many ids it takes nobody else's",
      () =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const hog = yield* sandbox()
          const init = process.arch === "x64" ? 294 : 26
          const take = `my $n = 0; $n++ while $n < 1000 && syscall(${init}, 0) >= 0;`
          const one = yield* sh(hog.machine, `perl -e '${take} print $n'`)
          assert.isAtLeast(Number(one.out), 1)
          assert.isAtMost(Number(one.out), 16)
          const many = `$| = 1; for my $id (1..40) { next if fork(); $> = $id; ${take} print "$n\\n"; sleep 60; exit } wait for 1..40`
          yield* sh(hog.machine, `perl -e '${many}' > /tmp/taken & sleep 1`, "root")
          const taken = (yield* sh(hog.machine, "cat /tmp/taken")).out.trim().split("\n").map(Number)
          assert.lengthOf(taken, 40)
          assert.isAbove(Math.max(...taken), 0)
          const { machine } = yield* sandbox()
          assert.strictEqual(Number((yield* sh(machine, `perl -e '${take} print $n'`)).out), 16)
          const watched = yield* fs.makeTempDirectoryScoped()
          const watchers = yield* Effect.forEach(Array.from({ length: 4 }), () =>
            Effect.acquireRelease(
              Effect.sync(() => watch(watched)),
              (watcher) => Effect.sync(() => watcher.close())
            )
          )
          assert.lengthOf(watchers, 4)
        }).pipe(Effect.scoped)
    )

    it.effect("a processor hog at its share", () =>
      Effect.gen(function* () {
        const { machine } = yield* sandbox(specOf({}, { cpus: 0.2 }))
        // A share of 0.2 for a second of wall time, with room for a machine that is busy otherwise.
        yield* sh(machine, "timeout 1 sh -c 'while :; do :; done'")
        const { cpuMillis } = yield* machine.metrics
        assert.isBelow(cpuMillis, 600)
      }).pipe(Effect.scoped)
    )
  })
})
