/**
 * The files of an in-memory machine, as its service uses them.
 */
import { Cause, Effect, Result, Stream } from "effect"
import { type FileFailed, ResourceExhausted } from "../../domain/Errors.ts"
import { maxChunkBytes, type WatchEvent } from "../../domain/FileSystem.ts"
import type { MachineError, MachineFiles } from "../../services/Machine.ts"
import { addName, chmod, list, makeDirs, readable, remove, setTimes, stat, writeWhole } from "./Files.ts"
import { type FileWatch, maxWatches, watch } from "./FileWatch.ts"
import { type FileNode, type FsResult, uidOf } from "./Inode.ts"
import { type Calls, holding } from "./MachineCalls.ts"
import type { Cut } from "./RunningMachine.ts"
import { toFileFailed } from "./Uploads.ts"
import { waitFor } from "./Wakeup.ts"

const raise = <A, E>(result: Result.Result<A, E>): Effect.Effect<A, E> =>
  Result.isSuccess(result) ? Effect.succeed(result.success) : Effect.fail(result.failure)

export const makeFiles = (calls: Calls): MachineFiles => {
  const { machine } = calls
  const { tree } = machine.kernel

  const act = <A>(action: () => FsResult<A>) =>
    calls.call(
      "files",
      Effect.suspend(() => raise(Result.mapError(action(), toFileFailed)))
    )

  return {
    read: (path, { offset, length, user }) =>
      Stream.unwrap(
        Effect.map(
          act(() => readable(tree, path, uidOf(user))),
          (node) => readStream(calls, node, offset, length)
        )
      ),
    write: (path, data, { mode, user }) => act(() => writeWhole(tree, path, data, mode, uidOf(user))),
    writeUpload: (uploadId, path, offset, data, { mode, user }) =>
      calls.call(
        "files",
        Effect.suspend(() => raise(machine.uploads.write(uploadId, path, offset, data, mode, uidOf(user))))
      ),
    commitUpload: (uploadId, size) =>
      calls.call(
        "files",
        Effect.suspend(() => raise(machine.uploads.commit(uploadId, size)))
      ),
    abortUpload: (uploadId) =>
      calls.call(
        "files",
        Effect.sync(() => machine.uploads.abort(uploadId))
      ),
    list: (path, { depth, limit, user }) => act(() => list(tree, path, depth, limit, uidOf(user))),
    stat: (path, user) => act(() => stat(tree, path, uidOf(user))),
    makeDir: (path, { mode, user }) => act(() => makeDirs(tree, path, mode ?? 0o755, uidOf(user))),
    rename: (from, to, user) => act(() => tree.rename(from, to, uidOf(user))),
    remove: (path, { recursive, user }) => act(() => remove(tree, path, recursive, uidOf(user))),
    chmod: (path, mode, user) => act(() => chmod(tree, path, mode, uidOf(user))),
    setTimes: (path, times, user) => act(() => setTimes(tree, path, times, uidOf(user))),
    link: (from, to, user) => act(() => addName(tree, from, to, uidOf(user))),
    watch: (path, { recursive, user }) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const watching = yield* holding<Watching, FileFailed | ResourceExhausted | MachineError>((keep) =>
            calls.call(
              "watch",
              Effect.suspend((): Effect.Effect<Watching, FileFailed | ResourceExhausted> => {
                if (tree.watchers.size >= maxWatches) return Effect.fail(tooMany)
                const found = watch(tree, path, recursive, uidOf(user), machine.kernel.schedule)
                return raise(
                  Result.mapBoth(found, {
                    onFailure: toFileFailed,
                    onSuccess: (one) => keep(openWatch(calls, one))
                  })
                )
              })
            )
          )
          return Stream.fromPull(Effect.succeed(watching.pull))
        })
      )
  }
}

/** A file's bytes, piece by piece, as they are when each is read. */
const readStream = (calls: Calls, node: FileNode, offset: number, length: number | undefined) => {
  let at = offset
  const end = length === undefined ? Number.POSITIVE_INFINITY : offset + length
  const pull = calls.call(
    "files",
    Effect.suspend((): Effect.Effect<readonly [Uint8Array], Cause.Done> => {
      const to = Math.min(node.size, end, at + maxChunkBytes)
      if (to <= at) return Cause.done()
      const data = node.data.slice(at, to)
      at = to
      return Effect.succeed([data])
    })
  )
  return Stream.fromPull(Effect.succeed(pull))
}

const tooMany = new ResourceExhausted({
  resource: "watches",
  reason: `a sandbox has at most ${maxWatches} watches`
})

type Watching = ReturnType<typeof openWatch>

const openWatch = (calls: Calls, watching: FileWatch) => {
  let cut: Cut | undefined
  let ended = false
  const forget = calls.machine.onCut((reason) => {
    cut = reason
    watching.wakeup.notify()
  })
  const next = waitFor(
    watching.wakeup,
    (): { readonly events: ReadonlyArray<WatchEvent> } | Cut | undefined => {
      if (ended) return { events: [] }
      if (cut !== undefined) return cut
      const events = watching.take()
      ended = events.at(-1)?._tag === "Ended"
      return events.length > 0 ? { events } : undefined
    }
  )
  const pull = Effect.flatMap(
    next,
    (found): Effect.Effect<readonly [WatchEvent, ...Array<WatchEvent>], Cut | Cause.Done> => {
      if (!("events" in found)) return Effect.fail(found)
      const [first, ...rest] = found.events
      return first === undefined ? Cause.done() : Effect.succeed([first, ...rest])
    }
  )
  return {
    pull,
    close: () => {
      forget()
      watching.close()
    }
  }
}
