/**
 * Starting a container: one program, which stages the root, becomes the OCI
 * runtime and ends when the container's agent runs.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { Limits } from "../../domain/Sandbox.ts"
import { agentPath } from "./Bundle.ts"
import type { Container } from "./ContainerFiles.ts"
import {
  backendFailed,
  codeFailed,
  fromHelper,
  runtimeMessage,
  type StartError,
  unsupported
} from "./Failures.ts"
import { baseOf } from "./IdRanges.ts"
import { type Ended, runProgram } from "./Kernel.ts"

/** The read-only part of a container's root. */
export interface Root {
  /** Directories to stack, the topmost first. */
  readonly lowers: ReadonlyArray<string>
  /** Host directories to show, each at a path below the root. */
  readonly trees: ReadonlyArray<readonly [source: string, target: string]>
  /** Paths below the root to hide behind an empty directory. */
  readonly hidden: ReadonlyArray<string>
}

/** What is needed to start a container whose bundle is written. */
export interface LaunchRequest {
  readonly container: Container
  readonly stage: string
  readonly range: number
  readonly limits: Limits
  readonly root: Root
  readonly disks: string
  /** Whether a new disk takes all of its room on the host's. */
  readonly reserveDisk: boolean
  readonly helper: string
  readonly agent: string
  readonly runtime: string
  readonly runtimeState: string
  /** How long the root may be staged, and how long the runtime may then take, in milliseconds. */
  readonly stageMillis: number
  readonly runtimeMillis: number
  /** A control group's list of processes, for the helper to make the kernel ready with; see `warm_groups` of it. */
  readonly groupList: string | undefined
}

/** The image `host`. What operators install by hand is not part of it. */
export const hostRoot = (own: string, base: string): Root => ({
  lowers: [own, base],
  trees: [["/usr", "usr"]],
  hidden: ["usr/local", "usr/src"]
})

/** The image `dir:/path`. */
export const directoryRoot = (own: string, points: string, directory: string): Root => ({
  lowers: [own, points, directory],
  trees: [],
  hidden: []
})

/**
 * Where the helper mounts its stage, in a namespace of its own: a directory
 * that exists on every Linux machine and is above nothing that is needed.
 */
export const stageFor = (paths: ReadonlyArray<string>): string =>
  ["/mnt", "/srv", "/media", "/opt"].find((stage) => !paths.some((path) => path.startsWith(`${stage}/`))) ??
  "/mnt"

/**
 * Limits of the user namespace. Watching files is counted against the host's
 * root as well, so one sandbox could take all of the machine's instances.
 */
const namespaceLimits: ReadonlyArray<readonly [name: string, value: number]> = [
  ["max_user_namespaces", 0],
  ["max_inotify_instances", 16],
  ["max_inotify_watches", 16_384],
  ["max_fanotify_groups", 0],
  ["max_fanotify_marks", 0]
]

/** The helper's words; see `native/host/run.c`. */
export const helperArguments = (request: LaunchRequest): ReadonlyArray<string> => {
  const { container, limits, root } = request
  return [
    "run",
    ...["deadlines", String(request.stageMillis), String(request.runtimeMillis)],
    ...["dir", container.directory],
    ...["stage", request.stage],
    ...["ids", String(baseOf(request.range))],
    ...namespaceLimits.flatMap(([name, value]) => ["limit", name, String(value)]),
    ...["disk", String(limits.diskBytes), String(limits.inodes)],
    ...["reserve", request.reserveDisk ? "1" : "0"],
    ...["templates", request.disks],
    ...root.lowers.flatMap((path) => ["lower", path]),
    ...root.trees.flatMap(([source, target]) => ["tree", source, target]),
    ...root.hidden.flatMap((target) => ["empty", target]),
    ...["file", request.agent, agentPath.slice(1)],
    ...["socket", "a.sock"],
    ...(request.groupList === undefined ? [] : ["warm", request.groupList]),
    "--",
    request.runtime,
    ...["--root", request.runtimeState],
    ...["--log", container.files.log, "--log-format", "json"],
    ...["run", "--detach", "--preserve-fds", "1"],
    ...["--pid-file", container.files.pid, "--bundle", container.directory, container.name]
  ]
}

const failure = Effect.fnUntraced(function* (container: Container, ended: Ended) {
  const fs = yield* FileSystem.FileSystem
  const log = yield* fs.readFileString(container.files.log).pipe(Effect.orElseSucceed(() => ""))
  const silent = `it ended with ${ended.code === undefined ? "a signal" : `code ${ended.code}`} and said nothing`
  const reason = runtimeMessage(log) ?? (ended.stderr.trim() || silent)
  return fromHelper(ended.stderr) ?? backendFailed("start a machine", reason, "not-started")
})

/**
 * Starts the container and returns when its agent's program runs. On failure no process of the start is left, but
 * other remains may be.
 */
export const launch: (request: LaunchRequest) => Effect.Effect<void, StartError, FileSystem.FileSystem> =
  Effect.fnUntraced(function* (request: LaunchRequest) {
    const ended = yield* runProgram(request.helper, helperArguments(request)).pipe(
      Effect.mapError((code) =>
        code === "ENOENT"
          ? unsupported("host helper", `${request.helper} is missing; npx fiberbox setup builds it`)
          : codeFailed("start a machine", request.helper, code)
      )
    )
    if (ended.code !== 0) return yield* yield* failure(request.container, ended)
  })
