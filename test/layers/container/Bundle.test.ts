import { assert, describe, it } from "@effect/vitest"
import { defaultLimits } from "../../../src/domain/Sandbox.ts"
import { type BundleOptions, runtimeSpec } from "../../../src/layers/container/Bundle.ts"
import { seccompProfile } from "../../../src/layers/container/Seccomp.ts"
import { allowedSyscalls } from "../../../src/layers/container/SyscallTable.ts"

const options: BundleOptions = {
  hostname: "box",
  stage: "/mnt",
  idBase: 0x7000_0000,
  limits: defaultLimits,
  cgroupsPath: "/fiberbox-abc/local_x",
  architecture: "x64",
  leaseMillis: 5000,
  host: { oomScoreAdj: 0, swapAccounting: true }
}

describe("a bundle", () => {
  it("puts the container into every kind of namespace, with the staged user namespace", () => {
    const { namespaces } = runtimeSpec(options).linux
    assert.deepStrictEqual(namespaces.map((n) => n.type).sort(), [
      "cgroup",
      "ipc",
      "mount",
      "network",
      "pid",
      "user",
      "uts"
    ])
    assert.strictEqual(namespaces.find((n) => n.type === "user")?.path, "/mnt/userns")
    // A path would be a namespace shared with somebody.
    assert.isTrue(namespaces.every((n) => n.type === "user" || n.path === undefined))
  })

  it("gives the agent six capabilities and programs none to inherit", () => {
    const { capabilities, noNewPrivileges } = runtimeSpec(options).process
    const six = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
    for (const set of ["bounding", "effective", "permitted"]) assert.deepStrictEqual(capabilities[set], six)
    for (const set of ["inheritable", "ambient"]) assert.deepStrictEqual(capabilities[set], [])
    assert.isTrue(noNewPrivileges)
  })

  it("limits memory without swap, processor time, processes and devices", () => {
    assert.deepStrictEqual(runtimeSpec(options).linux.resources, {
      memory: { limit: 536_870_912, swap: 536_870_912 },
      cpu: { period: 100_000, quota: 100_000 },
      pids: { limit: 256 },
      devices: [{ allow: false, access: "rwm" }]
    })
    const small = { ...options, limits: { ...defaultLimits, cpus: 0.001 } }
    assert.strictEqual(runtimeSpec(small).linux.resources.cpu.quota, 1000)
  })

  it("names no swap limit where the kernel does not count swap", () => {
    const host = { ...options.host, swapAccounting: false }
    assert.notProperty(runtimeSpec({ ...options, host }).linux.resources.memory, "swap")
  })

  it("never lowers the memory score below the service's own, which would need a right", () => {
    const scoreOf = (oomScoreAdj: number) =>
      runtimeSpec({ ...options, host: { ...options.host, oomScoreAdj } }).process["oomScoreAdj"]
    assert.deepStrictEqual([-900, 0, 300].map(scoreOf), [0, 0, 300])
    assert.notProperty(runtimeSpec(options).process, "rlimits")
  })

  it("mounts no file system of the host writable", () => {
    const binds = runtimeSpec(options).mounts.filter((mount) => mount.type === "bind")
    assert.isAbove(binds.length, 0)
    for (const mount of binds) assert.includeMembers([...mount.options], ["ro", "nosuid", "nodev"])
    assert.isFalse(
      runtimeSpec(options).mounts.some((mount) => mount.type === "sysfs" || mount.type === "cgroup")
    )
  })
})

describe("the system call filter", () => {
  const forbidden = (
    "unshare setns mount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr chroot " +
    "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd bpf io_uring_setup io_uring_enter " +
    "io_uring_register keyctl add_key request_key perf_event_open kexec_load kexec_file_load init_module " +
    "finit_module delete_module userfaultfd open_by_handle_at name_to_handle_at fanotify_init quotactl syslog reboot " +
    "swapon swapoff acct settimeofday clock_settime sethostname setdomainname iopl ioperm modify_ldt vhangup " +
    "lookup_dcookie mbind move_pages migrate_pages clone3 clone socket socketpair personality"
  ).split(" ")

  it("allows none of the calls that widen a sandbox", () => {
    assert.deepStrictEqual(
      forbidden.filter((name) => allowedSyscalls.includes(name)),
      []
    )
  })

  it("lists every call once, in order", () => {
    assert.deepStrictEqual([...allowedSyscalls], [...new Set(allowedSyscalls)].sort())
  })

  it("refuses what it does not list, clone with any new namespace, and says that clone3 does not exist", () => {
    const profile = seccompProfile("x64")
    assert.deepInclude(profile, { defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 1 })
    assert.deepStrictEqual(profile.architectures, ["SCMP_ARCH_X86_64"])
    const rulesOf = (name: string) => profile.syscalls.filter((rule) => rule.names.includes(name))
    assert.deepStrictEqual(rulesOf("clone3"), [
      { names: ["clone3", "io_setup"], action: "SCMP_ACT_ERRNO", errnoRet: 38 }
    ])
    const flags = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]
    const mask = flags.reduce((all, flag) => all + flag, 0)
    assert.deepStrictEqual(
      rulesOf("clone").map((rule) => rule.args),
      [[{ index: 0, value: mask, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]]
    )
  })

  it("allows only local, internet and route sockets", () => {
    const sockets = seccompProfile("arm64").syscalls.filter((rule) => rule.names.includes("socket"))
    const families = sockets.map((rule) => rule.args?.find((arg) => arg.index === 0)?.value)
    assert.deepStrictEqual(families, [1, 2, 10, 16])
    assert.deepStrictEqual(sockets.find((rule) => rule.args?.[0]?.value === 16)?.args?.[1]?.value, 0)
  })
})
