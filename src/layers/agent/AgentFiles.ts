/**
 * The files of a machine, as its agent reads and writes them.
 */
import { Effect, Stream } from "effect"
import { Conflict, InvalidArgument, NotFound } from "../../domain/Errors.ts"
import type { FileInfo, WatchEvent } from "../../domain/FileSystem.ts"
import type { MachineFiles } from "../../services/Machine.ts"
import type { AgentClient } from "./AgentClient.ts"
import { exhausted, fileError, offsetError, unreachable } from "./AgentFailures.ts"
import type { MachineFacts } from "./AgentMachine.ts"
import { idsOf } from "./AgentProcesses.ts"
import type { AgentError } from "./AgentSession.ts"
import * as P from "./Protocol.ts"

const defaultDirectoryMode = 0o755

const infoOf = (path: string, stat: P.ReplyOf<"Stated"> | P.ReplyOf<"Entry">): FileInfo => {
  const type = P.fileTypes[stat.type] ?? "device"
  const info = {
    path,
    type,
    size: stat.size,
    mode: stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    modifiedAt: stat.modifiedAt,
    nanos: stat.nanos,
    links: stat.links,
    inode: stat.inode
  }
  return type === "symlink" && isNamed(stat.target) ? { ...info, target: stat.target } : info
}

/** Whether a name is UTF-8; see `Message.name`. */
const isNamed = (name: string): boolean => !name.startsWith("\0")

const below = (directory: string, path: string): string =>
  path === "" ? directory : directory.endsWith("/") ? `${directory}${path}` : `${directory}/${path}`

const eventOf = (directory: string, event: P.ReplyOf<"Event"> | P.ReplyOf<"Ended">): WatchEvent => {
  if (event._tag === "Ended") return { _tag: "Ended", reason: P.watchEnds[event.how] ?? "removed" }
  const path = below(directory, event.path)
  switch (event.kind) {
    case P.eventKinds.created:
      return { _tag: "Created", path }
    case P.eventKinds.modified:
      return { _tag: "Modified", path }
    case P.eventKinds.removed:
      return { _tag: "Removed", path }
    case P.eventKinds.renamed:
      return { _tag: "Renamed", from: below(directory, event.before), to: path }
    default:
      return { _tag: "Overflow" }
  }
}

const byPath = (a: FileInfo, b: FileInfo): number => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0)

const isMode = (mode: number): boolean => mode >= 0 && mode <= 0o7777

/** The operations on files. */
export const makeFiles = (client: AgentClient, facts: MachineFacts): MachineFiles => {
  const millis = facts.transportMillis
  const asked = (operation: string) => ({ backend: facts.backend, operation })
  const failure = (operation: string, path: string) => (error: AgentError) =>
    fileError(error, path, asked(operation))

  return {
    read: (path, { offset, length, user }) =>
      client
        .read(idsOf(user), path, offset, length ?? P.toTheEnd, millis)
        .pipe(Stream.mapError((error) => exhausted(error, "readers") ?? failure("read a file", path)(error))),
    write: (path, data, { mode = P.defaultMode, user }) =>
      client
        .call(P.Write, { ...idsOf(user), mode, path, data }, P.Offset, millis)
        .pipe(Effect.mapError(failure("write a file", path)), Effect.asVoid),
    writeUpload: (uploadId, path, offset, data, { mode = P.defaultMode, user }) =>
      client.call(P.Upload, { ...idsOf(user), mode, uploadId, path, offset, data }, P.Offset, millis).pipe(
        Effect.map((reply) => reply.offset),
        Effect.mapError((error) =>
          error._tag === "AgentFailed" && error.code === "conflict"
            ? new Conflict({ kind: "upload", id: uploadId, reason: error.reason })
            : (offsetError(error) ??
              exhausted(error, "uploads") ??
              fileError(error, path, asked("upload a file")))
        )
      ),
    commitUpload: (uploadId, size) =>
      client.call(P.Commit, { uploadId, size }, P.Offset, millis).pipe(
        Effect.mapError((error) => {
          if (error._tag !== "AgentFailed") return unreachable(error, asked("commit an upload"))
          if (error.code === "no-upload") return new NotFound({ kind: "upload", id: uploadId })
          return error.code === "gap"
            ? new InvalidArgument({ field: "size", reason: `${error.detail} bytes have arrived` })
            : fileError(error, uploadId, asked("commit an upload"))
        }),
        Effect.asVoid
      ),
    abortUpload: (uploadId) =>
      client.call(P.Abort, { uploadId }, P.Ok, millis).pipe(
        Effect.mapError((error) => unreachable(error, asked("abort an upload"))),
        Effect.asVoid
      ),
    list: (path, { depth, limit, user }) =>
      client.list(idsOf(user), path, Math.min(depth, 0xffff), limit, millis).pipe(
        Effect.map(({ entries, truncated }) => ({
          entries: entries
            .filter((entry) => isNamed(entry.path))
            .map((entry) => infoOf(below(path, entry.path), entry))
            .sort(byPath),
          unnamed: entries.flatMap((entry) => (isNamed(entry.path) ? [] : [entry.path.slice(1)])).sort(),
          truncated
        })),
        Effect.mapError(failure("list a directory", path))
      ),
    stat: (path, user) =>
      client.call(P.Stat, { ...idsOf(user), path }, P.Stated, millis).pipe(
        Effect.map((stat) => infoOf(path, stat)),
        Effect.mapError(failure("stat", path))
      ),
    makeDir: (path, { mode = defaultDirectoryMode, user }) =>
      client
        .call(P.MakeDir, { ...idsOf(user), mode, parents: true, path }, P.Ok, millis)
        .pipe(Effect.mapError(failure("make a directory", path)), Effect.asVoid),
    rename: (from, to, user) =>
      client
        .call(P.Rename, { ...idsOf(user), replace: true, from, to }, P.Ok, millis)
        .pipe(Effect.mapError(failure("rename", from)), Effect.asVoid),
    remove: (path, { recursive, user }) =>
      client
        .call(P.Remove, { ...idsOf(user), recursive, path }, P.Ok, millis)
        .pipe(Effect.mapError(failure("remove", path)), Effect.asVoid),
    chmod: (path, mode, user) =>
      isMode(mode)
        ? client
            .call(P.Chmod, { ...idsOf(user), mode, path }, P.Ok, millis)
            .pipe(Effect.mapError(failure("chmod", path)), Effect.asVoid)
        : Effect.fail(new InvalidArgument({ field: "mode", reason: "permission bits are 0 to 0o7777" })),
    setTimes: (path, { modifiedAt, nanos }, user) =>
      client
        .call(P.Times, { ...idsOf(user), modifiedAt, nanos, path }, P.Ok, millis)
        .pipe(Effect.mapError(failure("set the time of a file", path)), Effect.asVoid),
    link: (from, to, user) =>
      client
        .call(P.Link, { ...idsOf(user), from, to }, P.Ok, millis)
        .pipe(Effect.mapError(failure("link a file", to)), Effect.asVoid),
    watch: (path, { recursive, user }) =>
      client.watch(idsOf(user), path, recursive, millis).pipe(
        Stream.filter((item) => item._tag !== "Ok"),
        Stream.map((event) => eventOf(path, event)),
        Stream.mapError((error) => exhausted(error, "watches") ?? failure("watch", path)(error))
      )
  }
}
