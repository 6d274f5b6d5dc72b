import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, FileSystem, Layer } from "effect"
import type { User } from "../../../src/domain/Sandbox.ts"
import type { Machine } from "../../../src/services/Machine.ts"
import { canRun, everything, sandbox, sh } from "./support.ts"

class Box extends Context.Service<Box, { readonly machine: Machine }>()("test/container/Box") {
  static readonly layer = Layer.effect(Box, sandbox()).pipe(Layer.provideMerge(everything))
}

const inside = Effect.fnUntraced(function* (command: string, user: User = "user") {
  const { machine } = yield* Box
  return yield* sh(machine, command, user)
})

const text = (command: string, user: User = "user") =>
  Effect.map(inside(command, user), ({ out }) => out.trim())

/** The error number of a system call made by perl, which every Debian has; 0 when it succeeds. */
const errnoOf = (call: string, user: User) =>
  text(`perl -e 'my ($n, @a) = (${call}); my $r = syscall($n, @a); print $r == -1 ? $!+0 : 0'`, user).pipe(
    Effect.map(Number)
  )

const EPERM = 1
const EACCES = 13
const ENOSYS = 38

const CLONE_NEWUSER = 0x10000000

/** Calls of x86-64, with arguments that would do something, or be refused later than here. */
const refusedCalls: ReadonlyArray<readonly [name: string, call: string]> = [
  ["mount", '165, "none", "/tmp", "tmpfs", 0, 0'],
  ["umount", '166, "/proc", 2'],
  ["pivot_root", '155, "/tmp", "/tmp"'],
  ["open_tree", '428, -100, "/", 1'],
  ["fsopen", '430, "tmpfs", 0'],
  ["unshare", `272, ${CLONE_NEWUSER}`],
  ["unshare of the network", "272, 0x40000000"],
  ["setns", "308, 0, 0"],
  ["clone into a user namespace", `56, ${CLONE_NEWUSER} | 17, 0, 0, 0, 0`],
  ["chroot", '161, "/tmp"'],
  ["ptrace", "101, 16, 1, 0, 0"],
  ["process_vm_readv", "310, 1, 0, 0, 0, 0, 0"],
  ["bpf", "321, 0, 0, 0"],
  ["perf_event_open", "298, 0, 0, -1, -1, 0"],
  ["io_uring_setup", "425, 1, 0"],
  ["userfaultfd", "323, 1"],
  ["keyctl", "250, 0, -3, 0"],
  ["add_key", '248, "user", "a", "b", 1, -3'],
  ["init_module", '175, "x", 1, ""'],
  ["finit_module", '313, 0, "", 0'],
  ["delete_module", '176, "x", 0'],
  ["kexec_load", "246, 0, 0, 0, 0"],
  ["reboot", "169, 0xfee1dead, 672274793, 0, 0"],
  ["swapon", '167, "/tmp/x", 0'],
  ["syslog", "103, 10, 0, 0"],
  ["sethostname", '170, "x", 1'],
  ["settimeofday", "164, 0, 0"],
  ["open_by_handle_at", "304, -100, 0, 0"],
  ["fanotify_init", "300, 0, 0"],
  ["quotactl", "179, 0, 0, 0, 0"],
  ["iopl", "172, 3"],
  ["to come after the sandbox's other programs, with nice", "141, 0, 0, 19"],
  ["to come after the sandbox's other programs, as one thread", "141, 0, 0, 1"],
  ["SCHED_IDLE", '144, 0, 5, pack("l", 0)'],
  ["SCHED_IDLE with a flag", '144, 0, 0x40000005, pack("l", 0)'],
  ["sched_setattr", '314, 0, pack("LLQlLQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0'],
  ["a raw socket", "41, 2, 3, 1"],
  ["a packet socket", "41, 17, 3, 0"],
  ["a socket to the hypervisor", "41, 40, 1, 0"],
  ["a socket to the kernel's ciphers", "41, 38, 5, 0"],
  ["a netlink socket to the firewall", "41, 16, 3, 12"]
]

describe.runIf(canRun)("from inside a container", () => {
  layer(Box.layer, { excludeTestServices: true, timeout: "30 seconds" })((it) => {
    it.effect("the user is not root, not a host user, and has no capability", () =>
      Effect.gen(function* () {
        const status = yield* text("cat /proc/self/status; id -u; id -G")
        for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) {
          assert.match(status, new RegExp(`^${set}:\\s+0+$`, "m"))
        }
        assert.match(status, /^NoNewPrivs:\s+1$/m)
        assert.match(status, /^Seccomp:\s+2$/m)
        assert.match(status, /\n1000\n1000$/)
        const [, host] = (yield* text("cat /proc/self/uid_map")).split(/\s+/)
        assert.isAtLeast(Number(host), 0x7000_0000)
      })
    )

    it.effect("root on request is root of its own ids only, with a few capabilities", () =>
      Effect.gen(function* () {
        const status = yield* text("cat /proc/self/status; id -u", "root")
        assert.match(status, /\n0$/)
        const bounding = BigInt(`0x${/^CapBnd:\s+(\S+)$/m.exec(status)?.[1]}`)
        // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, KILL 5, SETGID 6, SETUID 7.
        assert.strictEqual(bounding & ~0xebn, 0n)
        assert.match(yield* text("cat /proc/self/gid_map", "root"), /^0\s+\d{10}\s+65536$/)
      })
    )

    it.effect("no host process can be seen", () =>
      Effect.gen(function* () {
        const pids = (yield* text("ls -d /proc/[0-9]*", "root")).split("\n")
        assert.isAtMost(pids.length, 8)
        assert.include(yield* text("cat /proc/1/comm", "root"), "agent")
      })
    )

    it.effect("no host file outside the image can be seen", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const marker = yield* fs.makeTempFileScoped({ directory: "/var/tmp", prefix: "fb-marker" })
        const script = `ls -A /usr/local /usr/src /root /opt /srv /mnt; ls /home; ls ${marker} /etc/shadow /etc/ssh /etc/sudoers /boot /work 2>/dev/null`
        assert.strictEqual(
          yield* text(script, "root"),
          "/mnt:\n\n/opt:\n\n/root:\n\n/srv:\n\n/usr/local:\n\n/usr/src:\nuser"
        )
      }).pipe(Effect.scoped)
    )

    it.effect("another sandbox's files and name cannot be seen", () =>
      Effect.gen(function* () {
        const { machine } = yield* sandbox()
        yield* sh(machine, "echo secret > /tmp/mine; echo secret > /dev/shm/mine")
        assert.strictEqual(yield* text("cat /tmp/mine /dev/shm/mine 2>/dev/null", "root"), "")
        assert.notStrictEqual((yield* sh(machine, "hostname")).out, yield* text("hostname"))
      }).pipe(Effect.scoped)
    )

    it.effect("there is no network but its own loopback", () =>
      Effect.gen(function* () {
        const devices = (yield* text("tail -n +3 /proc/net/dev")).split("\n")
        assert.deepStrictEqual(
          devices.map((line) => line.trim().split(":")[0]),
          ["lo"]
        )
        assert.strictEqual(yield* text("tail -n +2 /proc/net/route"), "")
        const connect = `perl -MSocket -e 'socket(S, 2, 1, 0); print connect(S, sockaddr_in(53, inet_aton("198.51.100.1"))) ? 0 : $!+0'`
        assert.strictEqual(yield* text(connect), "101")
        const bind = `perl -MSocket -e 'socket(S, 2, 1, 0); print bind(S, sockaddr_in(8080, INADDR_LOOPBACK)) && listen(S, 1) ? 1 : 0'`
        assert.strictEqual(yield* text(bind), "1")
      })
    )

    it.effect("the programs of the image cannot be changed, and none gives rights", () =>
      Effect.gen(function* () {
        for (const path of ["/usr/x", "/usr/bin/x", "/usr/local/x", "/usr/src/x", "/.fiberbox/agent"]) {
          assert.notStrictEqual((yield* inside(`echo x > ${path}`, "root")).code, 0, path)
        }
        const mounts = (yield* text("cat /proc/mounts")).split("\n").map((line) => line.split(" "))
        const options = (path: string) => mounts.find((fields) => fields[1] === path)?.[3]?.split(",") ?? []
        assert.includeMembers(options("/usr"), ["ro", "nosuid", "nodev"])
        assert.includeMembers(options("/"), ["rw", "nosuid", "nodev"])
      })
    )

    it.effect("the kernel's settings and memory cannot be written or read", () =>
      Effect.gen(function* () {
        for (const path of [
          "/proc/sys/kernel/hostname",
          "/proc/sys/vm/drop_caches",
          "/proc/sysrq-trigger",
          "/proc/1/mem",
          "/sys/devices/system/cpu/uevent",
          "/sys/x"
        ]) {
          assert.notStrictEqual((yield* inside(`echo 1 > ${path}`, "root")).code, 0, path)
        }
        for (const path of ["/proc/1/mem", "/proc/1/environ", "/proc/kcore"]) {
          assert.strictEqual(yield* text(`head -c 16 ${path} 2>/dev/null`), "", path)
        }
        assert.strictEqual(yield* text("cat /proc/keys /proc/timer_list", "root"), "")
        assert.strictEqual(yield* text("ls /sys; ls /sys/fs 2>/dev/null", "root"), "devices")
      })
    )

    it.effect("there are only the harmless devices, and no more can be made", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual((yield* text("ls /dev")).split("\n"), [
          ..."fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split(" ")
        ])
        assert.notStrictEqual((yield* inside("mknod /tmp/null c 1 3", "root")).code, 0)
        assert.notStrictEqual((yield* inside("mknod /tmp/disk b 254 0", "root")).code, 0)
        assert.strictEqual((yield* inside("mkfifo /tmp/pipe && rm /tmp/pipe")).code, 0)
      })
    )

    describe.runIf(process.arch === "x64")("a system call is refused:", () => {
      it.effect.each(refusedCalls)("%s", ([name, call]) =>
        Effect.gen(function* () {
          for (const user of ["user", "root"] as const) {
            assert.include([EPERM, EACCES], yield* errnoOf(call, user), `${name} as ${user}`)
          }
        })
      )

      it.effect("clone3, whose flags no filter can see, as if it did not exist", () =>
        Effect.gen(function* () {
          assert.strictEqual(yield* errnoOf("435, 0, 0", "root"), ENOSYS)
        })
      )

      it.effect("io_setup, which takes what the whole host shares, as if it did not exist", () =>
        Effect.gen(function* () {
          for (const user of ["user", "root"] as const) {
            assert.strictEqual(yield* errnoOf("206, 1, 0", user), ENOSYS)
          }
        })
      )
    })

    it.effect("ordinary programs work: shells, pipes, threads, temporary files, sockets", () =>
      Effect.gen(function* () {
        const script = `
          set -e
          f=$(mktemp); echo one two | tr ' ' '\\n' | sort -r > $f; cat $f; rm $f
          nproc > /dev/null; date > /dev/null; df / > /dev/null; uname -a > /dev/null
          perl -MSocket -e 'socketpair(A, B, AF_UNIX, SOCK_STREAM, 0) or die; print "pair\\n"'
          getent passwd user; getent hosts $(hostname) > /dev/null && echo found`
        assert.strictEqual(
          yield* text(script),
          "two\none\npair\nuser:x:1000:1000:user:/home/user:/bin/sh\nfound"
        )
      })
    )
  })
})
