/**
 * The seccomp filter of a container, as an OCI `linux.seccomp` object: an
 * allow-list, everything else fails with `EPERM`.
 */
import * as Schema from "effect/Schema"
import { allowedSyscalls } from "./SyscallTable.ts"

/** The processor architectures a filter can be written for, by Node's names. */
export const Architecture = Schema.Literals(["x64", "arm64"])
export type Architecture = typeof Architecture.Type

interface Argument {
  readonly index: number
  readonly value: number
  readonly valueTwo?: number
  readonly op: "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ"
}

/** One rule: calls that share an action and conditions. */
export interface SeccompRule {
  readonly names: ReadonlyArray<string>
  readonly action: "SCMP_ACT_ALLOW" | "SCMP_ACT_ERRNO"
  readonly errnoRet?: number
  readonly args?: ReadonlyArray<Argument>
}

/** An OCI `linux.seccomp` object. */
export interface SeccompProfile {
  readonly defaultAction: "SCMP_ACT_ERRNO"
  readonly defaultErrnoRet: number
  readonly architectures: ReadonlyArray<string>
  readonly syscalls: ReadonlyArray<SeccompRule>
}

const EPERM = 1
const ENOSYS = 38

/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const newNamespaces = 0x7e020000

const AF_UNIX = 1
const AF_INET = 2
const AF_INET6 = 10
const AF_NETLINK = 16
const NETLINK_ROUTE = 0

/** What `personality` may be set to: Linux, and asking what is set. */
const personalities = [0, 0xffffffff]

const allow = (names: ReadonlyArray<string>, args: ReadonlyArray<Argument>): SeccompRule => ({
  names,
  action: "SCMP_ACT_ALLOW",
  args
})

const is = (index: number, value: number): Argument => ({ index, value, op: "SCMP_CMP_EQ" })

const SCHED_OTHER = 0
const SCHED_BATCH = 3
/** SCHED_RESET_ON_FORK may come with any policy. */
const policyMask = 0xbfffffff
const ofPolicy = (policy: number): Argument => ({
  index: 1,
  value: policyMask,
  valueTwo: policy,
  op: "SCMP_CMP_MASKED_EQ"
})

/** A process id of 0, the caller itself: the kernel looks at the lower half only. */
const itself: Argument = { index: 0, value: 0xffffffff, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }

/**
 * Calls allowed with some arguments only. Sockets: no AF_VSOCK (on a host that
 * is itself a virtual machine it reaches the hypervisor), AF_ALG, AF_PACKET or
 * the many rare families; of netlink only the routes, which C libraries read to
 * list interfaces. Limits and schedulers are a program's own matter: root in the
 * sandbox has the agent's user id, and could leave it without descriptors or processor time. Nobody comes later than
 * others of its sandbox (`nice`, `SCHED_IDLE`, so none of `sched_setattr`): in the kernel it may hold what the whole host waits for.
 */
const conditional: ReadonlyArray<SeccompRule> = [
  allow(["clone"], [{ index: 0, value: newNamespaces, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]),
  ...[AF_UNIX, AF_INET, AF_INET6].map((family) => allow(["socket"], [is(0, family)])),
  allow(["socket"], [is(0, AF_NETLINK), is(2, NETLINK_ROUTE)]),
  allow(["socketpair"], [is(0, AF_UNIX)]),
  ...personalities.map((value) => allow(["personality"], [is(0, value)])),
  allow(["prlimit64", "sched_setparam"], [itself]),
  ...[SCHED_OTHER, SCHED_BATCH].map((policy) => allow(["sched_setscheduler"], [itself, ofPolicy(policy)])),
  allow(["setpriority"], [{ index: 2, value: 0xffffffff, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }])
]

/**
 * What programs do otherwise when they are told that the call does not exist.
 * The filter cannot see the flags of `clone3`, which are in memory: C libraries use `clone`.
 * What `io_setup` takes, the kernel has so many of for the whole host (`fs.aio-max-nr`), and one sandbox could take all;
 * POSIX's own asynchronous calls need none of it.
 */
const missing: SeccompRule = {
  names: ["clone3", "io_setup"],
  action: "SCMP_ACT_ERRNO",
  errnoRet: ENOSYS
}

const scmp: { readonly [A in Architecture]: string } = {
  x64: "SCMP_ARCH_X86_64",
  arm64: "SCMP_ARCH_AARCH64"
}

/** The filter for an architecture; programs of another one (32-bit x86, x32) are killed. */
export const seccompProfile = (architecture: Architecture): SeccompProfile => ({
  defaultAction: "SCMP_ACT_ERRNO",
  defaultErrnoRet: EPERM,
  architectures: [scmp[architecture]],
  syscalls: [{ names: allowedSyscalls, action: "SCMP_ACT_ALLOW" }, missing, ...conditional]
})
