import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { Generation } from "../../../src/domain/Ids.ts"
import { Backend } from "../../../src/services/Backend.ts"
import { Base, backend, canRun, platform, sandbox, sh, specOf } from "./support.ts"

/** What root does to the files of its sandbox. */
const deeds: ReadonlyArray<readonly [name: string, deed: string]> = [
  ["a FIFO for /etc/passwd", "rm /etc/passwd; mkfifo /etc/passwd"],
  ["a FIFO for /etc/group", "rm /etc/group; mkfifo /etc/group"],
  ["a FIFO behind a link for /etc/passwd", "mkfifo /var/f; ln -sf ../var/f /etc/passwd"],
  ["a directory with files for /etc/passwd", "rm /etc/passwd; mkdir /etc/passwd; echo x > /etc/passwd/x"],
  ["a directory for /etc/group", "rm /etc/group; mkdir /etc/group"],
  ["a link to /dev/zero for /etc/passwd", "ln -sf /dev/zero /etc/passwd"],
  ["a link to /dev/ptmx for /etc/group", "ln -sf /dev/pts/ptmx /etc/group"],
  ["a link through /proc for /etc/passwd", "mkfifo /var/f; ln -sf /proc/self/root/var/f /etc/passwd"],
  ["a link to itself for /etc/passwd", "ln -sf passwd /etc/passwd"],
  ["an enormous hole for /etc/passwd", "truncate -s 8G /etc/passwd"],
  ["a line of 100 kB in /etc/passwd", "head -c 100000 /dev/zero | tr '\\0' x > /etc/passwd"],
  ["a zero byte in root's home", "printf 'root:x:0:0:root:/ro\\0ot:/bin/sh\\n' > /etc/passwd"],
  ["no rights on /etc/passwd, /etc and /", "chmod 0 /etc/passwd /etc /"],
  ["neither /etc/passwd nor /etc/group", "rm /etc/passwd /etc/group"],
  ["a FIFO for /etc", "rm -rf /etc; mkfifo /etc"],
  [
    "a link to a directory with FIFOs for /etc",
    "mkdir /var/e; mkfifo /var/e/passwd /var/e/group; rm -rf /etc; ln -s var/e /etc"
  ],
  [
    "a link through /proc to a directory with a FIFO for /etc",
    "mkdir /var/e; mkfifo /var/e/passwd; rm -rf /etc; ln -s /proc/self/root/var/e /etc"
  ],
  ["a link to itself for /etc", "rm -rf /etc; ln -s etc /etc"],
  [
    "FIFOs for the service's own files in /etc",
    "cd /etc; for f in hosts hostname resolv.conf ld.so.cache; do rm -rf $f; mkfifo $f; done"
  ],
  ["FIFOs for /home, /root and /tmp", "for d in home root tmp; do rm -rf /$d; mkfifo /$d; done"],
  ["links to /proc for /home, /root and /tmp", "for d in home root tmp; do rm -rf /$d; ln -s proc /$d; done"],
  ["a move of what holds the agent", "mv /.fiberbox /var/f; rm -rf /.fiberbox; ln -s var /.fiberbox"],
  ["a removal of everything", "rm -rf --no-preserve-root /"],
  [
    "a FIFO for /etc/passwd and no inode left",
    "rm /etc/passwd; mkfifo /etc/passwd; cd /home/user; i=0; while mkdir d$i; do i=$((i+1)); done"
  ]
]

describe.runIf(canRun)("a sandbox whose root has left", () => {
  layer(backend().pipe(Layer.provideMerge(Base.layer), Layer.provideMerge(platform)), {
    excludeTestServices: true
  })((it) => {
    it.effect.each(deeds)("%s is started again, shows its files and has them removed", ([, deed]) =>
      Effect.gen(function* () {
        const service = yield* Backend
        const { machine, request } = yield* sandbox(specOf({}, { diskBytes: 32 * 1024 * 1024, inodes: 500 }))
        yield* sh(machine, `(${deed}) 2>/dev/null`, "root")
        yield* machine.terminate
        const again = yield* service.provision({ ...request, generation: Generation.make(2) })
        const names = Effect.map(again.files.list("/", { depth: 1, limit: 50, user: "root" }), (found) =>
          found.entries.map(({ path }) => path)
        )
        assert.include(yield* names, "/usr")
        // A program starts, or it is said why not: there may be nothing left of what it needs.
        const started = yield* Effect.result(Effect.timeout(sh(again, "echo here"), "2 seconds"))
        if (Result.isFailure(started)) assert.include(["SpawnFailed", "TimeoutError"], started.failure._tag)
        // The largest first, which gives inodes back.
        for (const path of ["/home", "/var", "/etc", "/root", "/tmp"]) {
          if ((yield* names).includes(path))
            yield* again.files.remove(path, { recursive: true, user: "root" })
          assert.notInclude(yield* names, path)
        }
        yield* again.terminate
        const last = yield* service.provision({ ...request, generation: Generation.make(3) })
        yield* last.terminate
      }).pipe(Effect.scoped)
    )
  })
})
