/**
 * Programs that change files: mkdir, rm, touch, mv, cp, ln, chmod, dd ...
 */
import { Effect, Result } from "effect"
import { complain, each, lastName, parse } from "./CommandPaths.ts"
import { fail, output } from "./CommandsBasic.ts"
import {
  chmod as changeMode,
  join,
  list,
  makeDirs,
  parentOf,
  readAll,
  remove,
  stat as statOf,
  writeWhole
} from "./Files.ts"
import type { FsFailure, FsResult } from "./Inode.ts"
import { forReading, forWriting, openPath } from "./OpenPath.ts"
import type { Process, Program } from "./Process.ts"

export const mkdir: Program = (process, argv) => {
  const { flags, rest } = parse(argv)
  const mode = argv.includes("-m") ? Number.parseInt(argv[argv.indexOf("-m") + 1] ?? "", 8) : 0o755
  const paths = argv.includes("-m") ? rest.slice(1) : rest
  const { tree } = process.kernel
  return each(process, argv[0], paths, "cannot create directory", (path) => {
    if (flags.includes("p")) return makeDirs(tree, path, mode, process.uid)
    const place = tree.resolve(path, process.uid, false)
    if (Result.isFailure(place)) return place
    return tree.add(place.success, tree.nodes.directory(mode, process.uid, tree.now()), process.uid, path)
  })
}

export const mkfifo: Program = (process, argv) => {
  const { tree } = process.kernel
  return each(process, argv[0], parse(argv).rest, "cannot create fifo", (path) => {
    const place = tree.resolve(path, process.uid, false)
    if (Result.isFailure(place)) return place
    return tree.add(place.success, tree.nodes.fifo(process.uid, tree.now()), process.uid, path)
  })
}

export const rmdir: Program = (process, argv) =>
  each(process, argv[0], parse(argv).rest, "failed to remove", (path) => {
    const info = statOf(process.kernel.tree, path, process.uid)
    if (Result.isSuccess(info) && info.success.type !== "directory") {
      return Result.fail<FsFailure>({ reason: "not-directory", path, detail: "" })
    }
    return remove(process.kernel.tree, path, false, process.uid)
  })

/** That there is no such file, as rm(1) sees it. */
const isNone = ({ reason }: FsFailure) => reason === "not-found" || reason === "not-directory"

export const rm: Program = (process, argv) => {
  const { flags, rest } = parse(argv)
  const recursive = /[rR]/.test(flags)
  const force = flags.includes("f")
  if (force && rest.length === 0) return Effect.succeed(0)
  return each(process, argv[0], rest, "cannot remove", (path) => {
    const info = statOf(process.kernel.tree, path, process.uid)
    if (Result.isFailure(info) && force && isNone(info.failure)) return Result.succeed(undefined)
    if (Result.isSuccess(info) && info.success.type === "directory" && !recursive) {
      return Result.fail<FsFailure>({ reason: "is-directory", path, detail: "" })
    }
    return remove(process.kernel.tree, path, recursive, process.uid)
  })
}

export const touch: Program = (process, argv) =>
  each(process, argv[0], parse(argv).rest, "cannot touch", (path) => {
    const { tree } = process.kernel
    const place = tree.resolve(path, process.uid, true)
    if (Result.isFailure(place)) return place
    const { node } = place.success
    if (node === undefined) {
      const made = tree.nodes.file(0o644, process.uid, tree.now())
      // Its times are set after it is made, which is a change of its own.
      return Result.map(tree.add(place.success, made, process.uid, path), (at) =>
        tree.changed({ kind: "modified", at, node: made })
      )
    }
    if (node.frozen) return Result.fail<FsFailure>({ reason: "read-only", path, detail: "" })
    node.modifiedAt = tree.now()
    if (node.kind !== "directory") tree.changed({ kind: "modified", at: place.success, node })
    return Result.succeed(undefined)
  })

/** The path a thing goes to: inside the target, when that is a directory. */
const destination = (process: Process, source: string, target: string): string => {
  const info = statOf(process.kernel.tree, process.absolute(target), process.uid, true)
  const inside = Result.isSuccess(info) && info.success.type === "directory"
  return process.absolute(inside ? join(target, lastName(source)) : target)
}

/** Does something with every source and the one target. */
const toTarget = (
  process: Process,
  argv: ReadonlyArray<string>,
  what: string,
  act: (from: string, to: string, source: string) => FsResult<unknown>
): Effect.Effect<number> => {
  const { rest } = parse(argv)
  const target = rest.at(-1)
  if (target === undefined || rest.length < 2) return fail(process, argv[0], "missing file operand")
  const sources = rest.slice(0, -1)
  let at = 0
  return each(
    process,
    argv[0],
    sources,
    what,
    (from) => {
      const source = sources[at++] ?? ""
      return act(from, destination(process, source, target), source)
    },
    "cannot stat"
  )
}

export const mv: Program = (process, argv) =>
  toTarget(process, argv, "cannot move", (from, to) => {
    const { tree } = process.kernel
    const at = (path: string, follow: boolean) =>
      Result.getOrUndefined(tree.lookup(path, process.uid, follow))
    const target = at(to, false)
    // mv(1) refuses two names of one file, and a link onto what it leads to.
    const same =
      target !== undefined && [at(from, false), at(from, true)].some((one) => one?.node === target.node)
    return same
      ? Result.fail<FsFailure>({ reason: "exists", path: to, detail: "" })
      : tree.rename(from, to, process.uid)
  })

export const cp: Program = (process, argv) => {
  const recursive = /[rRa]/.test(parse(argv).flags)
  return toTarget(process, argv, "cannot copy", (from, to) => copy(process, from, to, recursive))
}

const copy = (process: Process, from: string, to: string, recursive: boolean): FsResult<unknown> => {
  const { tree } = process.kernel
  const info = statOf(tree, from, process.uid, !recursive)
  if (Result.isFailure(info)) return info
  if (info.success.type === "symlink") return link(process, info.success.target ?? "", to)
  if (info.success.type !== "directory") {
    const source = tree.lookup(from, process.uid, true)
    const target = tree.lookup(to, process.uid, true)
    if (Result.isSuccess(source) && Result.isSuccess(target) && source.success.node === target.success.node) {
      // cp(1) refuses two names of one file, links followed.
      return Result.fail<FsFailure>({ reason: "exists", path: to, detail: "" })
    }
    // Nor does it write through a link that leads nowhere.
    if (Result.isFailure(target) && Result.isSuccess(tree.lookup(to, process.uid, false))) return target
    const data = readAll(tree, from, process.uid)
    if (Result.isFailure(data)) return data
    const parent = tree.lookup(parentOf(to), process.uid, true)
    if (Result.isFailure(parent)) return parent
    const file = openPath(process, to, { ...forWriting, mode: info.success.mode & 0o755 })
    if (Result.isFailure(file)) return file
    const written = data.success.length > 0 ? file.success.write(data.success) : 0
    file.success.close()
    return written === data.success.length
      ? Result.succeed(undefined)
      : Result.fail<FsFailure>({ reason: "no-space", path: to, detail: "" })
  }
  if (!recursive) return Result.fail<FsFailure>({ reason: "is-directory", path: from, detail: "" })
  if (to === from || to.startsWith(`${from}/`))
    return Result.fail<FsFailure>({ reason: "invalid", path: to, detail: "" })
  const made = makeDirs(tree, to, info.success.mode, process.uid)
  if (Result.isFailure(made)) return made
  const entries = list(tree, from, 1, Number.POSITIVE_INFINITY, process.uid)
  if (Result.isFailure(entries)) return entries
  for (const entry of entries.success.entries) {
    const copied = copy(process, entry.path, join(to, lastName(entry.path)), true)
    if (Result.isFailure(copied)) return copied
  }
  return Result.succeed(undefined)
}

const link = (process: Process, target: string, path: string): FsResult<unknown> => {
  const { tree } = process.kernel
  const place = tree.resolve(path, process.uid, false)
  if (Result.isFailure(place)) return place
  return tree.add(place.success, tree.nodes.symlink(target, process.uid, tree.now()), process.uid, path)
}

/** `ln [-s] [-f] target name` */
export const ln: Program = (process, argv) => {
  const { flags } = parse(argv)
  const { tree } = process.kernel
  return toTarget(process, argv, "failed to create link", (from, to, source) => {
    if (flags.includes("f")) remove(tree, to, false, process.uid)
    if (flags.includes("s")) return link(process, source, to)
    const target = tree.lookup(from, process.uid, false)
    if (Result.isFailure(target)) return target
    if (target.success.node.kind === "directory")
      return Result.fail<FsFailure>({ reason: "permission", path: from, detail: "" })
    const place = tree.resolve(to, process.uid, false)
    return Result.isFailure(place) ? place : tree.add(place.success, target.success.node, process.uid, to)
  })
}

/** `chmod [-R] mode path ...` with an octal mode or `[ugoa][+-=][rwx]`. */
export const chmod: Program = (process, argv) => {
  const recursive = argv[1] === "-R"
  const [wanted = "", ...paths] = argv.slice(recursive ? 2 : 1)
  const { tree } = process.kernel
  const change = (path: string): FsResult<unknown> => {
    const info = statOf(tree, path, process.uid, true)
    if (Result.isFailure(info)) return info
    const mode = modeOf(wanted, info.success.mode)
    return mode === undefined
      ? Result.fail<FsFailure>({ reason: "invalid", path, detail: wanted })
      : changeMode(tree, path, mode, process.uid)
  }
  const changeAll = (path: string): FsResult<unknown> => {
    const below = recursive ? list(tree, path, 64, Number.POSITIVE_INFINITY, process.uid) : undefined
    const entries = below !== undefined && Result.isSuccess(below) ? below.success.entries : []
    const changed = [
      path,
      ...entries.filter(({ type }) => type !== "symlink").map((entry) => entry.path)
    ].map(change)
    return changed.find(Result.isFailure) ?? Result.succeed(undefined)
  }
  return each(process, argv[0], paths, "changing permissions of", changeAll, "cannot access")
}

const modeOf = (text: string, before: number): number | undefined => {
  if (/^[0-7]{1,4}$/.test(text)) return Number.parseInt(text, 8)
  let mode = before
  for (const clause of text.split(",")) {
    const match = /^([ugoa]*)([-+=])([rwxX]*)$/.exec(clause)
    if (match === null) return undefined
    const [, who = "", operator, what = ""] = match
    const three = (what.includes("r") ? 4 : 0) | (what.includes("w") ? 2 : 0) | (/[xX]/.test(what) ? 1 : 0)
    const all = who === "" || who.includes("a")
    const masks: ReadonlyArray<readonly [string, number]> = [
      ["u", 6],
      ["g", 3],
      ["o", 0]
    ]
    for (const [letter, shift] of masks) {
      if (!all && !who.includes(letter)) continue
      if (operator === "=") mode &= ~(7 << shift)
      mode = operator === "-" ? mode & ~(three << shift) : mode | (three << shift)
    }
  }
  return mode
}

export const chown: Program = (process, argv) => {
  const [, owner = "", ...paths] = argv
  const name = owner.split(":")[0] ?? ""
  const uid = name === "root" ? 0 : name === "user" ? 1000 : Number(name)
  return each(process, argv[0], paths, "changing ownership of", (path) => {
    const place = process.kernel.tree.lookup(path, process.uid, true)
    if (Result.isFailure(place)) return place
    const { tree } = process.kernel
    const { node } = place.success
    if (process.uid !== 0) return Result.fail<FsFailure>({ reason: "permission", path, detail: "" })
    if (node.frozen) return Result.fail<FsFailure>({ reason: "read-only", path, detail: "" })
    node.uid = uid
    node.gid = uid
    if (node.kind !== "directory") tree.changed({ kind: "modified", at: place.success, node })
    return Result.succeed(undefined)
  })
}

/** `dd [if=file] [of=file] [bs=size] [count=blocks]`: without `if`, standard input. */
export const dd: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const settings = new Map(
    argv.slice(1).map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)])
  )
  const block = blockSize(settings.get("bs") ?? "512")
  let left = Number(settings.get("count") ?? Number.POSITIVE_INFINITY) * block
  const files = [settings.get("if"), settings.get("of")] as const
  for (const [fd, path] of files.entries()) {
    if (path === undefined) continue
    const options =
      fd === 0 ? forReading : { ...forReading, read: false, write: true, create: true, truncate: true }
    const file = openPath(process, path, options)
    if (Result.isFailure(file))
      return yield* complain(process, argv[0], `failed to open '${path}'`, file.failure)
    process.setFile(fd, file.success)
  }
  let total = 0
  while (left > 0) {
    const data = yield* process.read(0, Math.min(left, 64 * 1024))
    if (data.length === 0) break
    left -= data.length
    const code = yield* output(
      process,
      `${argv[0]}: error writing '${settings.get("of") ?? "standard output"}'`,
      data
    )
    if (code !== 0) return code
    total += data.length
  }
  yield* process.err(`${total} bytes copied\n`)
  return 0
})

const blockSize = (text: string): number => {
  const match = /^([0-9]+)([kKMG]?)/.exec(text)
  const unit = { "": 1, k: 1024, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[match?.[2] ?? ""] ?? 1
  return Number(match?.[1] ?? 512) * unit
}

/** `mktemp [-d]`: a new name in /tmp. */
export const mktemp: Program = (process, argv) => {
  const { flags } = parse(argv)
  const { tree, random } = process.kernel
  const letter = () => "abcdefghijklmnopqrstuvwxyz"[Math.floor(random.nextDoubleUnsafe() * 26)] ?? "a"
  const path = `/tmp/tmp.${Array.from({ length: 10 }, letter).join("")}`
  const made = flags.includes("d")
    ? makeDirs(tree, path, 0o700, process.uid)
    : writeWhole(tree, path, new Uint8Array(0), 0o600, process.uid)
  return Result.isFailure(made)
    ? complain(process, argv[0], `failed to create '${path}'`, made.failure)
    : output(process, argv[0], `${path}\n`)
}
