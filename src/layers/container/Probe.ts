/**
 * What of the container backend works on this machine, and why not what does
 * not: for `fiberbox doctor`. Tries things and leaves nothing.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { makeDirectories } from "../../services/makeDirectories.ts"
import { Cgroups } from "./Cgroup.ts"
import { stageFor } from "./Launch.ts"

/** One thing that containers need. */
export interface Check {
  readonly name: string
  readonly ok: boolean
  /** Whether containers cannot run without it; otherwise it is advice. */
  readonly required: boolean
  /** What was found: a version, or why it does not work. */
  readonly detail: string
  /** What somebody can do about it; empty when it works. */
  readonly fix: string
}

/** What to look for. */
export interface ProbeOptions {
  readonly helper: string
  readonly agent: string
  readonly runtime: string
  /** A directory on the file system that shall hold the disks; made when missing. */
  readonly baseDir: string
}

const HelperReport = Schema.fromJsonString(
  Schema.Struct({
    checks: Schema.Array(Schema.Struct({ name: Schema.String, ok: Schema.Boolean, detail: Schema.String }))
  })
)

const fixes: { readonly [name: string]: string } = {
  mounts: "run as root with CAP_SYS_ADMIN, on Linux 5.12 or later",
  "user-namespace": "allow user namespaces: sysctl -w user.max_user_namespaces=15000",
  disk: "install e2fsprogs, and give access to loop devices (CAP_MKNOD and /dev/loop-control in a container)",
  "layer /usr":
    "the file system of /usr must support idmapped mounts (ext4, xfs, btrfs, overlay on Linux 6.x)"
}

const check = (name: string, ok: boolean, detail: string, fix: string, required = true): Check => ({
  name,
  ok,
  required,
  detail,
  fix: ok ? "" : fix
})

const output = (program: string, ...args: ReadonlyArray<string>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const child = yield* ChildProcess.make(program, args, { stdin: "ignore", stderr: "ignore" })
      return yield* child.stdout.pipe(Stream.decodeText, Stream.mkString)
    })
  ).pipe(
    Effect.timeout("10 seconds"),
    Effect.orElseSucceed(() => "")
  )

const programs = (options: ProbeOptions) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const built = (name: string, path: string) =>
      Effect.map(
        Effect.orElseSucceed(fs.exists(path), () => false),
        (ok) => check(name, ok, ok ? path : `${path} is missing`, "run `npx fiberbox setup` (needs cc)")
      )
    const version = (yield* output(options.runtime, "--version")).split("\n", 1)[0] ?? ""
    return [
      check("root", process.getuid?.() === 0, `uid ${process.getuid?.() ?? "unknown"}`, "run as root"),
      check("runtime", version !== "", version || `${options.runtime} cannot be run`, "apt-get install runc"),
      yield* built("helper", options.helper),
      yield* built("agent", options.agent)
    ]
  })

const kernel = Effect.fnUntraced(function* (options: ProbeOptions) {
  const fs = yield* FileSystem.FileSystem
  const directory = `${options.baseDir}/probe`
  yield* Effect.ignore(makeDirectories(fs, directory))
  const text = yield* output(
    options.helper,
    "probe",
    directory,
    stageFor([options.baseDir, options.helper]),
    "/usr"
  )
  yield* Effect.ignore(fs.remove(directory, { recursive: true }))
  const report = yield* Schema.decodeEffect(HelperReport)(text).pipe(
    Effect.orElseSucceed(() => ({
      checks: [{ name: "mounts", ok: false, detail: "the host helper gave no answer" }]
    }))
  )
  return report.checks.map(({ name, ok, detail }) => check(name, ok, detail, fixes[name] ?? ""))
})

const groups = Effect.gen(function* () {
  const { layout } = yield* Cgroups
  return (["memory", "cpu", "pids", "freezer"] as const).map((name) =>
    check(
      `cgroup ${name}`,
      layout.controllers[name] !== undefined,
      layout.controllers[name] === undefined ? "not mounted" : `version ${layout.version}`,
      "mount the control group controllers (in a container: run it privileged, with --cgroupns=host)"
    )
  )
}).pipe(
  Effect.provide(Cgroups.layer),
  Effect.catch((error) => Effect.succeed([check("cgroups", false, error.message, "mount /sys/fs/cgroup")]))
)

/** Containers outlive the program that starts them, so somebody else must collect them when they end. */
const init = Effect.sync(() =>
  check(
    "init",
    process.pid !== 1,
    process.pid === 1 ? "this program is process 1" : "another program is process 1",
    "start it under an init (docker run --init), or ended containers stay as zombies",
    false
  )
)

/** Tries everything, in a second at most on a machine where all is well. */
export const probe = (
  options: ProbeOptions
): Effect.Effect<ReadonlyArray<Check>, never, ChildProcessSpawner | FileSystem.FileSystem> =>
  Effect.gen(function* () {
    return [...(yield* programs(options)), ...(yield* kernel(options)), ...(yield* groups), yield* init]
  })
