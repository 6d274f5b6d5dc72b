/**
 * Whether a container could be made at this moment: looked at before one is
 * asked for, cheaply enough to be asked every second. What takes longer to
 * find out is the doctor's (`Probe.ts`).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { type BackendFailed, ResourceExhausted, type Unsupported } from "../../domain/Errors.ts"
import { Cgroups } from "./Cgroup.ts"
import { backendFailed, codeFailed, unsupported } from "./Failures.ts"
import { fileStates, findProgram, mayAccess, openMany, roomIn, runProgram } from "./Kernel.ts"
import { neededControllers } from "./Limits.ts"
import { ContainerSettings } from "./Settings.ts"

/** Why no container could be made. */
export type NotReady = BackendFailed | ResourceExhausted | Unsupported

/** What an empty disk, its files and its bundle take of the host's disk, several times over. */
const minimumFreeBytes = 16 * 1024 * 1024
const minimumFreeFiles = 64

/** Descriptors that making a machine takes of this process, with some to spare. */
const neededDescriptors = 16

/** How long the runtime may take to say its version. */
const runtimeMillis = 1_500

const operation = "look whether a machine could be made"

/** Makes the look. The runtime is run only when its file has changed since it last answered. */
export const makeReadiness: Effect.Effect<
  Effect.Effect<void, NotReady>,
  never,
  Cgroups | ContainerSettings | FileSystem.FileSystem
> = Effect.gen(function* () {
  const settings = yield* ContainerSettings
  const { layout } = yield* Cgroups
  const context = Context.pick(FileSystem.FileSystem)(yield* Effect.context<FileSystem.FileSystem>())
  let answered: string | undefined

  const permission = Effect.suspend(() =>
    process.geteuid?.() === 0
      ? Effect.void
      : Effect.fail(unsupported("root", `uid ${process.geteuid?.() ?? "unknown"} may not make containers`))
  )

  const program = (what: string, name: string) =>
    Effect.mapError(findProgram(name), (code) =>
      unsupported(what, code === "ENOENT" ? `${name} is missing` : `${name} cannot be run: ${code}`)
    )

  const runtime = Effect.gen(function* () {
    const path = yield* program("runtime", settings.runtime)
    const [state = ""] = yield* Effect.mapError(fileStates([path]), (code) =>
      codeFailed(operation, path, code)
    )
    if (state === answered) return
    const { code } = yield* runProgram(path, ["--version"]).pipe(
      Effect.mapError((code) => codeFailed(operation, path, code)),
      Effect.timeoutOrElse({
        duration: runtimeMillis,
        orElse: () =>
          Effect.fail(
            backendFailed(operation, `${path} gave no answer in ${runtimeMillis} ms`, "not-started")
          )
      })
    )
    if (code !== 0) return yield* unsupported("runtime", `${path} --version ended with code ${code}`)
    answered = state
  }).pipe(Effect.provideContext(context))

  const groups = Effect.forEach(
    neededControllers,
    ([controller, capability]) => {
      const path = layout.controllers[controller]
      if (path === undefined) {
        return Effect.fail(
          unsupported(capability, `the control group controller "${controller}" is not mounted`)
        )
      }
      return Effect.mapError(mayAccess(path, "write"), (code) =>
        unsupported(capability, `${path} cannot be written: ${code}`)
      )
    },
    { discard: true }
  )

  const room = Effect.fnUntraced(function* (directory: string) {
    const { bytes, files } = yield* Effect.mapError(roomIn(directory), (code) =>
      codeFailed(operation, directory, code)
    )
    if (bytes < minimumFreeBytes) {
      return yield* new ResourceExhausted({
        resource: "disk",
        reason: `${directory} has ${bytes} bytes left`
      })
    }
    if (files !== undefined && files < minimumFreeFiles) {
      return yield* new ResourceExhausted({ resource: "inodes", reason: `${directory} has ${files} left` })
    }
  })

  const descriptors = Effect.mapError(openMany(neededDescriptors), (code) =>
    codeFailed(operation, "this process", code)
  )

  return Effect.all(
    [
      permission,
      descriptors,
      program("host helper", settings.helper),
      program("agent", settings.agent),
      runtime,
      groups,
      room(settings.stateDir),
      settings.baseDir === settings.stateDir ? Effect.void : room(settings.baseDir)
    ],
    { discard: true }
  )
})
