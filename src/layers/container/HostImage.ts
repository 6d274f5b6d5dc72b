/**
 * The read-only lower layers of a container's root.
 *
 * A base layer is made once and kept in the shared cache: directories, mount
 * points and `/etc`. For the image `host` the machine's own `/usr` is mounted
 * into it by the host helper; for a directory image it only supplies what a
 * container needs and the directory may lack.
 */
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import type { BackendFailed, ResourceExhausted, Unsupported } from "../../domain/Errors.ts"
import { copiedNames, copiedSslNames, madeFiles } from "./EtcFiles.ts"
import { backendFailed, startFailed, unsupported } from "./Failures.ts"
import { fileStates } from "./Kernel.ts"

/** Changes when a layer made by this code would differ from one made before. */
const formatVersion = "1"

/** Directories with their modes and owners, as the container sees them; parents first. */
const directories: ReadonlyArray<readonly [path: string, mode: number, owner: number]> = [
  [".fiberbox", 0o755, 0],
  ["dev", 0o755, 0],
  ["etc", 0o755, 0],
  ["home", 0o755, 0],
  ["home/user", 0o755, 1000],
  ["mnt", 0o755, 0],
  ["opt", 0o755, 0],
  ["proc", 0o555, 0],
  ["root", 0o700, 0],
  ["run", 0o755, 0],
  ["run/lock", 0o1777, 0],
  ["srv", 0o755, 0],
  ["sys", 0o555, 0],
  ["sys/devices", 0o555, 0],
  ["sys/devices/system", 0o555, 0],
  ["sys/devices/system/cpu", 0o555, 0],
  ["tmp", 0o1777, 0],
  ["usr", 0o755, 0],
  ["var", 0o755, 0],
  ["var/cache", 0o755, 0],
  ["var/lib", 0o755, 0],
  ["var/log", 0o755, 0],
  ["var/mail", 0o755, 0],
  ["var/spool", 0o755, 0],
  ["var/tmp", 0o1777, 0]
]

/** What a container needs of any image: the mount points, and a home for its user. */
const pointNames = [".fiberbox", "dev", "home", "home/user", "proc", "sys", "tmp"]

const systemLinks: ReadonlyArray<readonly [path: string, target: string]> = [
  ["etc/mtab", "../proc/self/mounts"],
  ["var/lock", "../run/lock"],
  ["var/run", "../run"]
]

/** Names in the root that are links into `/usr` on a merged system. */
const mergedNames = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]

/** The modes are what the container's users see, whatever the service's own file mode mask is. */
const makeDirectory = Effect.fnUntraced(function* (path: string, mode: number) {
  const fs = yield* FileSystem.FileSystem
  yield* fs.makeDirectory(path)
  yield* fs.chmod(path, mode)
})

const makeFile = Effect.fnUntraced(function* (path: string, content: string, mode: number) {
  const fs = yield* FileSystem.FileSystem
  yield* fs.writeFileString(path, content)
  yield* fs.chmod(path, mode)
})

const makeDirectories = Effect.fnUntraced(function* (
  root: string,
  wanted: ReadonlyArray<readonly [path: string, mode: number, owner: number]>
) {
  const fs = yield* FileSystem.FileSystem
  for (const [path, mode, owner] of wanted) {
    const target = `${root}/${path}`
    yield* makeDirectory(target, mode)
    if (owner !== 0) yield* fs.chown(target, owner, owner)
  }
  yield* makeFile(`${root}/.fiberbox/agent`, "", 0o755)
})

/** Copies a file, link or tree; what not everybody may read is left out. */
const copyPublic = (from: string, to: string): Effect.Effect<void, PlatformError, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const info = yield* fs.lstat(from)
    if (info.type === "SymbolicLink") return yield* fs.symlink(yield* fs.readLink(from), to)
    if (info.type === "File" && (info.mode & 0o004) !== 0) return yield* fs.copyFile(from, to)
    if (info.type !== "Directory" || (info.mode & 0o005) !== 0o005) return
    yield* makeDirectory(to, 0o755)
    const names = yield* fs.readDirectory(from)
    yield* Effect.forEach(names, (name) => copyPublic(`${from}/${name}`, `${to}/${name}`), {
      concurrency: 16,
      discard: true
    })
  })

/** The listed parts of the host's `/etc`, as paths below it. */
const listedEtc = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const names = yield* fs.readDirectory("/etc")
  const listed = names.filter((name) => copiedNames.some((pattern) => pattern.test(name)))
  const ssl = yield* Effect.filter(
    copiedSslNames.map((name) => `ssl/${name}`),
    (name) => fs.exists(`/etc/${name}`)
  )
  return [...listed, ...ssl].sort()
})

/** The links of a merged system, as `[name, target]`; a system that is not merged has no single `/usr` to show. */
const mergedLinks = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const linkOf = Effect.fnUntraced(function* (name: string) {
    const info = yield* fs.lstat(`/${name}`).pipe(Effect.option)
    if (Option.isNone(info)) return []
    if (info.value.type !== "SymbolicLink") {
      return yield* unsupported("image host", `/${name} is not a link into /usr on this machine`)
    }
    const link: readonly [path: string, target: string] = [name, yield* fs.readLink(`/${name}`)]
    return [link]
  })
  return (yield* Effect.forEach(mergedNames, linkOf, { concurrency: "unbounded" })).flat()
})

/** Names the host's present state of all that is copied. */
const stateKey = (listed: ReadonlyArray<string>): Effect.Effect<string, BackendFailed> => {
  // A directory's own time does not tell of a file in it that was rewritten in place.
  const watched = [...listed, "ssl/certs/ca-certificates.crt"]
  return fileStates(watched.map((name) => `/etc/${name}`)).pipe(
    Effect.mapError((code) => backendFailed("make the host image", code, "not-started")),
    Effect.map((states) => {
      const described = states.map((state, index) => `${watched[index]}:${state}`)
      return createHash("sha256").update(described.join("\n")).digest("hex").slice(0, 24)
    })
  )
}

/** Makes a layer under another name and shows it by a rename, so that a half-made one is never used. */
const cached = <E, R>(
  cache: string,
  name: string,
  build: (root: string) => Effect.Effect<void, E, R>
): Effect.Effect<string, E | PlatformError, R | FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const finished = `${cache}/${name}`
    if (yield* fs.exists(finished)) return finished
    yield* fs.makeDirectory(cache, { recursive: true, mode: 0o700 })
    const fresh = yield* fs.makeTempDirectory({ directory: cache, prefix: "new-" })
    yield* fs.chmod(fresh, 0o755)
    yield* build(fresh).pipe(Effect.onError(() => Effect.ignore(fs.remove(fresh, { recursive: true }))))
    yield* fs.rename(fresh, finished).pipe(
      // Another instance was faster; both are alike.
      Effect.catch(() => fs.remove(fresh, { recursive: true, force: true }))
    )
    return finished
  })

const buildHostBase = (listed: ReadonlyArray<string>, links: ReadonlyArray<readonly [string, string]>) =>
  Effect.fnUntraced(function* (root: string) {
    const fs = yield* FileSystem.FileSystem
    yield* makeDirectories(root, directories)
    for (const [path, target] of [...links, ...systemLinks]) yield* fs.symlink(target, `${root}/${path}`)
    yield* makeDirectory(`${root}/etc/ssl`, 0o755)
    yield* Effect.forEach(listed, (name) => copyPublic(`/etc/${name}`, `${root}/etc/${name}`), {
      concurrency: 8,
      discard: true
    })
    for (const file of madeFiles) {
      yield* makeFile(`${root}/etc/${file.name}`, file.content, 0o644)
    }
  })

/**
 * The base layer of the image `host`, made when the cache has none for the
 * host's present state. `Unsupported` on a machine whose `/bin` is not in `/usr`.
 */
export const hostBase = (
  cache: string
): Effect.Effect<string, BackendFailed | ResourceExhausted | Unsupported, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const [listed, links] = yield* Effect.all([listedEtc, mergedLinks], { concurrency: 2 })
    const key = yield* stateKey(listed)
    return yield* cached(cache, `host-${formatVersion}-${key}`, buildHostBase(listed, links))
  }).pipe(Effect.catchTag("PlatformError", (error) => Effect.fail(startFailed("make the host image")(error))))

/** The layer above a directory image, with the mount points that it may lack. */
export const pointsBase = (
  cache: string
): Effect.Effect<string, BackendFailed | ResourceExhausted, FileSystem.FileSystem> =>
  cached(cache, `points-${formatVersion}`, (root) =>
    makeDirectories(
      root,
      directories.filter(([path]) => pointNames.some((name) => path === name) || path.startsWith("sys/"))
    )
  ).pipe(Effect.mapError(startFailed("make the mount points")))

/** Writes the files that differ from sandbox to sandbox into its own layer, the topmost. */
export const writeOwnLayer = (
  root: string,
  hostname: string
): Effect.Effect<void, BackendFailed | ResourceExhausted, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    yield* fs.remove(root, { recursive: true, force: true })
    yield* fs.makeDirectory(`${root}/etc`, { recursive: true })
    const hosts = `127.0.0.1 localhost ${hostname}\n::1 localhost ip6-localhost ip6-loopback\n`
    yield* Effect.all(
      [
        fs.chmod(root, 0o755),
        fs.chmod(`${root}/etc`, 0o755),
        makeFile(`${root}/etc/hostname`, `${hostname}\n`, 0o644),
        makeFile(`${root}/etc/hosts`, hosts, 0o644)
      ],
      { concurrency: "unbounded", discard: true }
    )
  }).pipe(Effect.mapError(startFailed("write a sandbox's own files")))
