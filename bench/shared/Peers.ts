/**
 * What else runs a program in a sandbox on this machine, for comparison: all on
 * the same root, which is this machine's `/usr`, as in the image `host`.
 */
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { Effect, type Scope } from "effect"
import { defaultLimits } from "../../src/domain/Sandbox.ts"
import { runtimeSpec } from "../../src/layers/container/Bundle.ts"
import type { Settings } from "./Measurement.ts"
import { type Command, type ProgramFailed, run } from "./Program.ts"

type Argv = readonly [program: string, ...args: Array<string>]

/** Another way to run a program in a sandbox. */
export interface Peer {
  readonly name: "bwrap" | "runc" | "podman"
  /** How it is run, in short. */
  readonly runs: string
  /** A sandbox of its own for one program, gone afterwards. */
  readonly run: (argv: Argv) => Command
  /** A sandbox to run programs in, for as long as the scope lives. */
  readonly open?: Effect.Effect<(argv: Argv) => Command, ProgramFailed, Scope.Scope>
}

/** The first line a program says about its version; undefined when it is not installed. */
export const versionOf = (program: string): Effect.Effect<string | undefined> =>
  run([program, "--version"]).pipe(
    Effect.map(({ stdout }) => /\d+\.\d+\S*/.exec(stdout)?.[0] ?? stdout.trim()),
    Effect.orElseSucceed(() => undefined)
  )

/** A root without `/usr`, which each peer binds in itself. */
const makeRoot = (settings: Settings): string => {
  const root = `${settings.directory}/root`
  for (const name of [
    "dev",
    "etc",
    "home/user",
    "proc",
    "run",
    "sys/devices/system/cpu",
    "tmp",
    "usr",
    "var"
  ])
    mkdirSync(`${root}/${name}`, { recursive: true })
  for (const name of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${name}`, `${root}/${name}`)
  for (const name of ["passwd", "group", "ld.so.cache"]) copyFileSync(`/etc/${name}`, `${root}/etc/${name}`)
  return root
}

const bwrap = (root: string): Peer => ({
  name: "bwrap",
  runs: "bwrap --unshare-all",
  run: (argv) => [
    "bwrap",
    "--unshare-all",
    ...["--ro-bind", root, "/", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"],
    ...["--tmpfs", "/tmp", "--tmpfs", "/home", "--", ...argv]
  ]
})

let made = 0

/** The description that fiberbox gives its own runtime, but for the agent, the staged root and its disk. */
const runc = (settings: Settings, root: string): Peer => {
  const program: Command = ["runc", "--root", `${settings.directory}/runc`]
  const bundle = (name: string, argv: Argv): string => {
    const directory = `${settings.directory}/${name}`
    const spec = runtimeSpec({
      hostname: name,
      stage: settings.directory,
      idBase: 1_000_000_000,
      limits: defaultLimits,
      cgroupsPath: `/${name}`,
      architecture: process.arch === "arm64" ? "arm64" : "x64",
      leaseMillis: 0,
      host: {
        oomScoreAdj: Number(readFileSync("/proc/self/oom_score_adj", "utf8")),
        swapAccounting: false
      }
    })
    const usr = {
      destination: "/usr",
      type: "bind",
      source: "/usr",
      options: ["bind", "ro", "nosuid", "nodev"]
    }
    mkdirSync(directory)
    writeFileSync(
      `${directory}/config.json`,
      JSON.stringify({
        ...spec,
        root: { path: root, readonly: true },
        mounts: [...spec.mounts, usr],
        process: { ...spec.process, args: argv },
        linux: {
          ...spec.linux,
          namespaces: spec.linux.namespaces.map(({ type }) => ({ type }))
        }
      })
    )
    return directory
  }
  const bundles = new Map<string, string>()
  const bundleFor = (argv: Argv): string => {
    const key = argv.join("\0")
    const found = bundles.get(key) ?? bundle(`fbb-bundle-${made++}`, argv)
    bundles.set(key, found)
    return found
  }
  return {
    name: "runc",
    runs: "runc run",
    run: (argv) => [...program, "run", "--bundle", bundleFor(argv), `fbb-${process.pid}-${made++}`],
    open: Effect.suspend(() => {
      const id = `fbb-${process.pid}-${made++}`
      const start: Command = [...program, "run", "--detach", "--bundle", bundleFor(["sleep", "infinity"]), id]
      return Effect.acquireRelease(
        // Detached, it keeps the streams it was started with; a pipe would never end.
        Effect.as(
          run(["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", ...start]),
          (argv: Argv): Command => [...program, "exec", id, ...argv]
        ),
        () => Effect.ignore(run([...program, "delete", "--force", id]))
      )
    })
  }
}

/**
 * The flags are what podman 4 needs on a machine whose root cannot raise hard
 * limits and that has no systemd; its store is ours, to leave nothing.
 */
const podman = (settings: Settings, root: string): Peer => {
  const program: Command = [
    "podman",
    ...["--root", `${settings.directory}/podman`, "--runroot", `${settings.directory}/podman-run`],
    ...["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
  ]
  const options = [
    ...["--network", "none", "--memory", String(defaultLimits.memoryBytes)],
    ...["--pids-limit", String(defaultLimits.pids), "--cpus", String(defaultLimits.cpus)],
    ...["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=10000:10000"],
    ...["--volume", "/usr:/usr:ro", "--rootfs"]
  ]
  return {
    name: "podman",
    runs: "podman run --rm --network none",
    run: (argv) => [...program, "run", "--rm", ...options, root, ...argv],
    open: Effect.suspend(() => {
      const name = `fbb-${process.pid}-${made++}`
      return Effect.acquireRelease(
        Effect.as(
          run([...program, "run", "--detach", "--name", name, ...options, root, "sleep", "infinity"]),
          (argv: Argv): Command => [...program, "exec", name, ...argv]
        ),
        () => Effect.ignore(run([...program, "rm", "--force", "--time", "0", name]))
      )
    })
  }
}

/** Those that are installed. */
export const installedPeers = (settings: Settings): Effect.Effect<ReadonlyArray<Peer>> =>
  Effect.suspend(() => {
    const root = makeRoot(settings)
    return Effect.filter([bwrap(root), runc(settings, root), podman(settings, root)], (peer) =>
      Effect.map(versionOf(peer.name), (version) => version !== undefined)
    )
  })
