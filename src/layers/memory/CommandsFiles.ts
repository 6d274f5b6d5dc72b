/**
 * Programs about files: ls, mkdir, rm, touch, mv, cp, ln, chmod, stat ...
 */
import { Effect, Result } from "effect"
import type { FileInfo } from "../../domain/FileSystem.ts"
import { fail, output } from "./CommandsBasic.ts"
import {
  chmod as changeMode,
  join,
  list,
  makeDirs,
  normalize,
  parentOf,
  readAll,
  remove,
  stat as statOf,
  writeWhole
} from "./Files.ts"
import { blocksOf, errorText, type FsFailure, type FsResult } from "./Inode.ts"
import { forReading, openPath } from "./OpenPath.ts"
import type { Process, Program } from "./Process.ts"

interface Arguments {
  readonly flags: string
  readonly rest: ReadonlyArray<string>
}

const parse = (argv: ReadonlyArray<string>): Arguments => {
  const words = argv.slice(1)
  const options = words.filter((word) => /^-[^-]/.test(word))
  return {
    flags: options.map((option) => option.slice(1)).join(""),
    rest: words.filter((word) => !/^-[^-]/.test(word) && word !== "--")
  }
}

/** Does something with each path, saying what failed. */
const each = Effect.fnUntraced(function* (
  process: Process,
  name: string | undefined,
  paths: ReadonlyArray<string>,
  what: string,
  act: (path: string) => FsResult<unknown>,
  missing?: string
) {
  if (paths.length === 0) return yield* fail(process, name, "missing operand")
  let status = 0
  for (const path of paths) {
    const at = process.absolute(path)
    const result = act(at)
    if (Result.isSuccess(result)) continue
    const { failure } = result
    const isMissing = missing !== undefined && failure.reason === "not-found" && failure.path === at
    status = yield* complain(process, name, `${isMissing ? missing : what} '${path}'`, failure)
  }
  return status
})

const complain = (
  process: Process,
  name: string | undefined,
  what: string,
  failure: FsFailure
): Effect.Effect<number> => fail(process, name, `${what}: ${errorText[failure.reason]}`)

const lastName = (path: string): string => {
  const trimmed = path.replace(/\/+$/, "")
  return trimmed.slice(trimmed.lastIndexOf("/") + 1)
}

// --- looking ------------------------------------------------------------------

const letters: { readonly [T in FileInfo["type"]]: string } = {
  file: "-",
  directory: "d",
  symlink: "l",
  device: "c",
  fifo: "p",
  socket: "s"
}

const modeText = (info: FileInfo): string => {
  const bits = [6, 3, 0].map((shift) => {
    const three = (info.mode >> shift) & 7
    return `${three & 4 ? "r" : "-"}${three & 2 ? "w" : "-"}${three & 1 ? "x" : "-"}`
  })
  const text = `${letters[info.type]}${bits.join("")}`
  return (info.mode & 0o1000) === 0 ? text : `${text.slice(0, -1)}${(info.mode & 1) === 1 ? "t" : "T"}`
}

const userName = (uid: number): string => (uid === 0 ? "root" : uid === 1000 ? "user" : String(uid))

const longLine = (info: FileInfo, name: string): string => {
  const time = new Date(info.modifiedAt).toISOString().replace("T", " ").slice(0, 16)
  const link = info.target === undefined ? "" : ` -> ${info.target}`
  return `${modeText(info)} 1 ${userName(info.uid)} ${userName(info.gid)} ${String(info.size).padStart(8)} ${time} ${name}${link}\n`
}

/** `ls [-a] [-A] [-l] [-d] [-R] [-1] [path ...]`: always one name in a line. */
export const ls: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { flags, rest } = parse(argv)
  const { tree } = process.kernel
  let status = 0
  let text = ""
  const line = (info: FileInfo, name: string) => (flags.includes("l") ? longLine(info, name) : `${name}\n`)
  const enter = (path: string, shown: string): FsFailure | undefined => {
    const found = list(tree, path, 1, Number.POSITIVE_INFINITY, process.uid)
    if (Result.isFailure(found)) return found.failure
    const hidden = flags.includes("a") || flags.includes("A")
    const entries = found.success.entries.filter((entry) => hidden || !lastName(entry.path).startsWith("."))
    if (rest.length > 1 || flags.includes("R")) text += `${text === "" ? "" : "\n"}${shown}:\n`
    if (flags.includes("a")) text += ".\n..\n"
    for (const entry of entries) text += line(entry, lastName(entry.path))
    if (!flags.includes("R")) return undefined
    for (const entry of entries)
      if (entry.type === "directory") enter(entry.path, `${shown}/${lastName(entry.path)}`)
    return undefined
  }
  for (const path of rest.length === 0 ? ["."] : rest) {
    const at = normalize(process.absolute(path))
    const info = statOf(tree, at, process.uid, !flags.includes("d") && !flags.includes("l"))
    const failure = Result.isFailure(info)
      ? info.failure
      : info.success.type === "directory" && !flags.includes("d")
        ? enter(at, path)
        : undefined
    if (failure !== undefined) {
      yield* complain(process, argv[0], `cannot access '${path}'`, failure)
      status = 2
    } else if (Result.isSuccess(info) && (info.success.type !== "directory" || flags.includes("d"))) {
      text += line(info.success, path)
    }
  }
  const written = yield* output(process, argv[0], text)
  return written === 0 ? status : written
})

/** `stat [-L] [-c format] path ...` with %a %s %n %U %u %g %F %Y %N. */
export const stat: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const at = argv.indexOf("-c")
  const format =
    at < 0 ? "  File: %n\n  Size: %s\nAccess: %a Uid: %u Gid: %g\nModify: %Y" : (argv[at + 1] ?? "")
  const paths = argv
    .slice(1)
    .filter((word, index) => word !== "-L" && (at < 0 || (index + 1 !== at && index !== at)))
  let status = 0
  for (const path of paths) {
    const found = statOf(process.kernel.tree, process.absolute(path), process.uid, argv.includes("-L"))
    if (Result.isFailure(found)) {
      status = yield* complain(process, argv[0], `cannot statx '${path}'`, found.failure)
      continue
    }
    const info = found.success
    const kinds = {
      file: info.size === 0 ? "regular empty file" : "regular file",
      symlink: "symbolic link",
      device: "character special file",
      directory: "directory",
      fifo: "fifo",
      socket: "socket"
    }
    const fields: { readonly [field: string]: string } = {
      a: info.mode.toString(8),
      s: String(info.size),
      n: path,
      N: `'${path}'`,
      u: String(info.uid),
      g: String(info.gid),
      U: userName(info.uid),
      G: userName(info.gid),
      F: kinds[info.type],
      Y: String(Math.floor(info.modifiedAt / 1000))
    }
    yield* output(
      process,
      argv[0],
      `${format.replace(/%(.)/g, (whole, field: string) => fields[field] ?? whole)}\n`
    )
  }
  return status
})

export const readlink: Program = (process, argv) => {
  const { flags, rest } = parse(argv)
  const path = process.absolute(rest[0] ?? "")
  const { tree } = process.kernel
  if (flags.includes("f")) {
    const place = tree.resolve(path, process.uid, true)
    return Result.isFailure(place) ? Effect.succeed(1) : output(process, argv[0], `${place.success.path}\n`)
  }
  const info = statOf(tree, path, process.uid)
  return Result.isFailure(info) || info.success.target === undefined
    ? Effect.succeed(1)
    : output(process, argv[0], `${info.success.target}\n`)
}

export const basename: Program = (process, argv) => {
  const name = lastName(argv[1] ?? "")
  const suffix = argv[2]
  return output(
    process,
    argv[0],
    `${suffix !== undefined && name !== suffix && name.endsWith(suffix) ? name.slice(0, -suffix.length) : name}\n`
  )
}

export const dirname: Program = (process, argv) => {
  const path = argv[1] ?? ""
  return output(process, argv[0], `${path.includes("/") ? parentOf(path) : "."}\n`)
}

/** `find [path] [-name pattern is not understood: everything is listed]` */
export const find: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const path = argv[1] ?? "."
  const at = normalize(process.absolute(path))
  const found = list(process.kernel.tree, at, 64, Number.POSITIVE_INFINITY, process.uid)
  if (Result.isFailure(found)) return yield* complain(process, argv[0], `'${path}'`, found.failure)
  const lines = found.success.entries.map(
    (entry) => `${path}${entry.path.slice(at === "/" ? 0 : at.length)}\n`
  )
  return yield* output(process, argv[0], `${path}\n${lines.join("")}`)
})

/** Disk use of the machine's writable part. */
export const df: Program = (process, argv) => {
  const { usedBytes, limits } = process.kernel.tree
  const [total, used] = [Math.floor(limits.bytes / 1024), Math.ceil(usedBytes / 1024)]
  return output(
    process,
    argv[0],
    `Filesystem 1K-blocks Used Available Mounted\nmemory ${total} ${used} ${total - used} /\n`
  )
}

/** `du [-s] path`: kilobytes of everything below. */
export const du: Program = (process, argv) => {
  const { rest } = parse(argv)
  const path = rest[0] ?? "."
  const found = list(process.kernel.tree, process.absolute(path), 64, Number.POSITIVE_INFINITY, process.uid)
  if (Result.isFailure(found)) return complain(process, argv[0], `cannot access '${path}'`, found.failure)
  const bytes = found.success.entries.reduce((sum, entry) => sum + blocksOf(entry.size), 4096)
  return output(process, argv[0], `${bytes / 1024}\t${path}\n`)
}

// --- changing -----------------------------------------------------------------

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

export const rm: Program = (process, argv) => {
  const { flags, rest } = parse(argv)
  const recursive = /[rR]/.test(flags)
  const force = flags.includes("f")
  if (force && rest.length === 0) return Effect.succeed(0)
  return each(process, argv[0], rest, "cannot remove", (path) => {
    const info = statOf(process.kernel.tree, path, process.uid)
    if (Result.isFailure(info) && info.failure.reason === "not-found" && force)
      return Result.succeed(undefined)
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
      return tree.add(place.success, tree.nodes.file(0o644, process.uid, tree.now()), process.uid, path)
    }
    if (node.frozen) return Result.fail<FsFailure>({ reason: "read-only", path, detail: "" })
    node.modifiedAt = tree.now()
    if (node.kind !== "directory") tree.changed({ kind: "modified", place: place.success })
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
  toTarget(process, argv, "cannot move", (from, to) => process.kernel.tree.rename(from, to, process.uid))

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
    const data = readAll(tree, from, process.uid)
    if (Result.isFailure(data)) return data
    const parent = tree.lookup(parentOf(to), process.uid, true)
    if (Result.isFailure(parent)) return parent
    const existing = statOf(tree, to, process.uid, true)
    const mode = Result.isSuccess(existing) ? undefined : info.success.mode & 0o755
    return writeWhole(tree, to, data.success, mode, process.uid)
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

/** `chmod [-R is not understood] mode path ...` with an octal mode or `[ugoa][+-=][rwx]`. */
export const chmod: Program = (process, argv) => {
  const [, wanted = "", ...paths] = argv
  return each(
    process,
    argv[0],
    paths,
    "changing permissions of",
    (path) => {
      const info = statOf(process.kernel.tree, path, process.uid, true)
      if (Result.isFailure(info)) return info
      const mode = modeOf(wanted, info.success.mode)
      return mode === undefined
        ? Result.fail<FsFailure>({ reason: "invalid", path, detail: wanted })
        : changeMode(process.kernel.tree, path, mode, process.uid)
    },
    "cannot access"
  )
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
    const { node } = place.success
    if (process.uid !== 0) return Result.fail<FsFailure>({ reason: "permission", path, detail: "" })
    if (node.frozen) return Result.fail<FsFailure>({ reason: "read-only", path, detail: "" })
    node.uid = uid
    node.gid = uid
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
