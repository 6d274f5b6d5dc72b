/**
 * Programs that look at files: ls, stat, readlink, find, df, du ...
 */
import { DateTime, Effect, Result } from "effect"
import type { FileInfo } from "../../domain/FileSystem.ts"
import { complain, lastName, parse } from "./CommandPaths.ts"
import { fail, output } from "./CommandsBasic.ts"
import { list, normalize, parentOf, stat as statOf } from "./Files.ts"
import { blocksOf, type FsFailure } from "./Inode.ts"
import type { Process, Program } from "./Process.ts"
import { matches } from "./ShellGlob.ts"

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
  const time = DateTime.formatIso(DateTime.makeUnsafe(info.modifiedAt)).replace("T", " ").slice(0, 16)
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

/** `find [path] [-maxdepth levels] [-type f|d|l] [-name pattern]` */
export const find: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const words = argv.slice(1)
  const path = words[0]?.startsWith("-") === false ? words[0] : "."
  const options = new Map<string, string>()
  for (let index = words[0] === path ? 1 : 0; index < words.length; index += 2) {
    const option = words[index] ?? ""
    if (!["-maxdepth", "-type", "-name"].includes(option)) {
      return yield* fail(process, argv[0], `unknown predicate '${option}'`)
    }
    options.set(option, words[index + 1] ?? "")
  }
  const { tree } = process.kernel
  const at = normalize(process.absolute(path))
  const root = statOf(tree, at, process.uid)
  if (Result.isFailure(root)) return yield* complain(process, argv[0], `'${path}'`, root.failure)
  const depth = Number(options.get("-maxdepth") ?? 64)
  const below = depth > 0 ? list(tree, at, depth, Number.POSITIVE_INFINITY, process.uid) : undefined
  const entries = below !== undefined && Result.isSuccess(below) ? below.success.entries : []
  const type = options.get("-type")
  const name = options.get("-name")
  const lines = [root.success, ...entries]
    .filter((entry) => type === undefined || letters[entry.type] === (type === "f" ? "-" : type))
    .map((entry) => `${path}${entry.path.slice(at === "/" ? 0 : at.length)}`)
    .filter((shown) => name === undefined || matches(name, lastName(shown)))
  return yield* output(process, argv[0], lines.map((line) => `${line}\n`).join(""))
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
