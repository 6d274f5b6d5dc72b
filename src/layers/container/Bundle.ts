/**
 * The OCI runtime specification of a container, made by pure functions.
 */
import { maxTerminals } from "../../domain/Process.ts"
import type { Limits } from "../../domain/Sandbox.ts"
import { type Architecture, type SeccompProfile, seccompProfile } from "./Seccomp.ts"

/** Where the agent is found inside every container. */
export const agentPath = "/.fiberbox/agent"

/** How many ids a container has: 0 to 65535 inside. */
export const idCount = 65_536

/** What a bundle is made from. */
export interface BundleOptions {
  readonly hostname: string
  /** Where the host helper stages the root and the user namespace. */
  readonly stage: string
  /** The host id that is 0 inside. */
  readonly idBase: number
  readonly limits: Limits
  /** Below every controller's root, beginning with a slash. */
  readonly cgroupsPath: string
  readonly architecture: Architecture
  /** How long the agent waits for the service before it ends the machine, in milliseconds; 0 is for ever. */
  readonly leaseMillis: number
  readonly host: HostFacts
}

/** What of the host a bundle depends on. */
export interface HostFacts {
  /** The service's own out-of-memory score adjustment, which cannot be lowered without CAP_SYS_RESOURCE. */
  readonly oomScoreAdj: number
  /** Whether the kernel counts swap, so that it can be limited. */
  readonly swapAccounting: boolean
}

/** A mount of the OCI specification. */
interface Mount {
  readonly destination: string
  readonly type: string
  readonly source: string
  readonly options: ReadonlyArray<string>
}

/**
 * The agent starts user programs under other ids, kills them and does file
 * operations for them; nothing else. All within the container's user namespace.
 */
const agentCapabilities = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID"
]

const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats"
]

/** `/sys` is no sysfs here, but a directory with the processors' description only. */
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"]

const tmpfs = (destination: string, ...options: ReadonlyArray<string>): Mount => ({
  destination,
  type: "tmpfs",
  source: "tmpfs",
  options: ["nosuid", ...options]
})

/** What is in memory counts against the memory limit; the sizes only keep programs from filling it by mistake. */
const mounts = (limits: Limits): ReadonlyArray<Mount> => [
  { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "nodev", "noexec"] },
  tmpfs("/dev", "noexec", "strictatime", "mode=755", "size=64k", "nr_inodes=64"),
  {
    destination: "/dev/pts",
    type: "devpts",
    source: "devpts",
    options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", `max=${maxTerminals}`]
  },
  tmpfs("/dev/shm", "nodev", "noexec", "mode=1777", `size=${Math.ceil(limits.memoryBytes / 2)}`),
  { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "nodev", "noexec"] },
  {
    destination: "/sys/devices/system/cpu",
    type: "bind",
    source: "/sys/devices/system/cpu",
    options: ["bind", "ro", "nosuid", "nodev", "noexec"]
  }
]

const cpuPeriodMicros = 100_000

/** The kernel refuses a quota below a millisecond. */
const minimumQuotaMicros = 1_000

const resources = (limits: Limits, host: HostFacts) => ({
  memory: {
    limit: limits.memoryBytes,
    // Of memory and swap together: none of it is swap.
    ...(host.swapAccounting ? { swap: limits.memoryBytes } : {})
  },
  cpu: {
    period: cpuPeriodMicros,
    quota: Math.max(minimumQuotaMicros, Math.round(limits.cpus * cpuPeriodMicros))
  },
  pids: { limit: limits.pids },
  // The runtime adds null, zero, full, random, urandom, tty, ptmx and pts itself.
  devices: [{ allow: false, access: "rwm" }]
})

/** What the agent may keep of programs' output: a fraction of the memory that it shares with them. */
const journalBytes = (limits: Limits) => Math.min(32 * 1024 * 1024, Math.floor(limits.memoryBytes / 8))

const mapping = (idBase: number) => [{ containerID: 0, hostID: idBase, size: idCount }]

/** An OCI runtime specification, as far as fiberbox uses it. */
export interface RuntimeSpec {
  readonly ociVersion: string
  readonly hostname: string
  readonly root: { readonly path: string; readonly readonly: boolean }
  readonly mounts: ReadonlyArray<Mount>
  readonly process: {
    readonly args: ReadonlyArray<string>
    readonly capabilities: { readonly [set: string]: ReadonlyArray<string> }
    readonly noNewPrivileges: boolean
    readonly [key: string]: unknown
  }
  readonly linux: {
    readonly namespaces: ReadonlyArray<{ readonly type: string; readonly path?: string }>
    readonly resources: ReturnType<typeof resources>
    readonly seccomp: SeccompProfile
    readonly [key: string]: unknown
  }
}

/**
 * The container's `config.json`. Its root and its user namespace (whose limits
 * are set already) are made by the host helper before the runtime runs.
 */
export const runtimeSpec = (options: BundleOptions): RuntimeSpec => ({
  ociVersion: "1.0.2",
  hostname: options.hostname,
  root: { path: `${options.stage}/root`, readonly: false },
  mounts: mounts(options.limits),
  process: {
    terminal: false,
    user: { uid: 0, gid: 0 },
    args: [
      agentPath,
      "--listen-fd",
      "3",
      "--lease",
      String(options.leaseMillis),
      "--budget",
      String(journalBytes(options.limits))
    ],
    env: ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
    cwd: "/",
    capabilities: {
      bounding: agentCapabilities,
      effective: agentCapabilities,
      permitted: agentCapabilities,
      inheritable: [],
      ambient: []
    },
    noNewPrivileges: true,
    oomScoreAdj: Math.max(0, options.host.oomScoreAdj)
  },
  linux: {
    namespaces: [
      { type: "user", path: `${options.stage}/userns` },
      { type: "mount" },
      { type: "pid" },
      { type: "network" },
      { type: "ipc" },
      { type: "uts" },
      { type: "cgroup" }
    ],
    uidMappings: mapping(options.idBase),
    gidMappings: mapping(options.idBase),
    cgroupsPath: options.cgroupsPath,
    resources: resources(options.limits, options.host),
    seccomp: seccompProfile(options.architecture),
    maskedPaths,
    readonlyPaths
  }
})
