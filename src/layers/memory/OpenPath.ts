/**
 * Opening a path for a process, as open(2) does.
 */
import { Result } from "effect"
import { allowed, type FsResult, fsFail } from "./Inode.ts"
import { bitsOf, type OpenFile, type OpenMode, openDevice, openRegular } from "./OpenFile.ts"
import type { Process } from "./Process.ts"

/** What is done with a file that exists, or does not. */
export interface OpenOptions extends OpenMode {
  readonly create: boolean
  readonly truncate: boolean
  /** Of a file that is made; default 0o644. */
  readonly mode?: number
}

export const forReading: OpenOptions = {
  read: true,
  write: false,
  append: false,
  create: false,
  truncate: false
}
export const forWriting: OpenOptions = {
  read: false,
  write: true,
  append: false,
  create: true,
  truncate: true
}
export const forAppending: OpenOptions = {
  read: false,
  write: true,
  append: true,
  create: true,
  truncate: false
}

/** Opens a path with the rights of a process. */
export const openPath = (process: Process, path: string, options: OpenOptions): FsResult<OpenFile> => {
  const { kernel, uid } = process
  const { tree } = kernel
  const at = process.absolute(path)
  const found = tree.resolve(at, uid, true)
  if (Result.isFailure(found)) return Result.fail({ ...found.failure, path })
  const place = found.success
  const { node } = place
  if (node === undefined) {
    if (!options.create) return fsFail("not-found", path)
    if (path.endsWith("/")) return fsFail("is-directory", path)
    const file = tree.nodes.file(options.mode ?? 0o644, uid, tree.now())
    const added = tree.add(place, file, uid, path)
    return Result.map(added, (place) => openRegular(tree, place, file, options, kernel.never))
  }
  if (node.kind === "symlink") return fsFail("not-found", path)
  if (node.kind === "directory") return fsFail("is-directory", path)
  if (!allowed(node, uid, bitsOf(options))) return fsFail("permission", path)
  if (node.kind === "fifo") return Result.succeed(kernel.fifo(node).open(options.read, options.write))
  if (node.kind === "device") return openSpecial(process, node.device, path)
  if (options.write && node.frozen) return fsFail("read-only", path)
  if (options.truncate) {
    tree.resize(node, 0)
    tree.changed({ kind: "modified", at: place, node })
  }
  return Result.succeed(openRegular(tree, place, node, options, kernel.never))
}

const openSpecial = (
  process: Process,
  device: Parameters<typeof openDevice>[0],
  path: string
): FsResult<OpenFile> => {
  const standard = device === "stdin" ? 0 : device === "stdout" ? 1 : device === "stderr" ? 2 : undefined
  if (standard !== undefined) {
    const file = process.files.get(standard)
    return file === undefined ? fsFail("not-found", path) : Result.succeed(file)
  }
  if (device === "tty") {
    const terminal = [...process.files.values()].find((file) => file.terminal)
    return terminal === undefined ? fsFail("not-found", path) : Result.succeed(terminal)
  }
  const { kernel } = process
  return Result.succeed(openDevice(device, () => kernel.random.nextDoubleUnsafe(), kernel.never))
}

/** Whether a directory can be entered, for `cd` and for starting programs. */
export const enterable = (process: Pick<Process, "kernel" | "uid">, path: string): FsResult<string> => {
  const place = process.kernel.tree.lookup(path, process.uid, true)
  if (Result.isFailure(place)) return Result.fail(place.failure)
  const { node } = place.success
  if (node.kind !== "directory") return fsFail("not-directory", path)
  return allowed(node, process.uid, 1) ? Result.succeed(place.success.path) : fsFail("permission", path)
}
