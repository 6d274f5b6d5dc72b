/**
 * `fiberbox cp`: files and directories in and out.
 */
import { posix } from "node:path"
import { Effect, Path, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { User } from "../domain/Sandbox.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { homeOf, inside } from "./copy/Inside.ts"
import { local } from "./copy/Local.ts"
import { type End, type Entry, type Place, parseEnd } from "./copy/Place.ts"
import { progress } from "./copy/Progress.ts"
import { type At, copyDirectory, copyFile, type Listener, type Summary } from "./copy/Tree.ts"
import { ownFailureCode, refuse } from "./Failure.ts"
import { performOn, remark, writeJson } from "./Perform.ts"
import { connectionFlags, jsonFlag } from "./SharedFlags.ts"
import { stdin, write } from "./Stdio.ts"
import { size } from "./Text.ts"

const flags = {
  user: Flag.Literals("user", User.literals).pipe(
    Flag.withAlias("u"),
    Flag.withDescription("With whose rights inside: user (the default) or the sandbox's own root"),
    Flag.withDefault("user")
  ),
  quiet: Flag.Boolean("quiet").pipe(
    Flag.withAlias("q"),
    Flag.withDescription("Show no progress"),
    Flag.withDefault(false)
  ),
  ...connectionFlags,
  json: jsonFlag("Write one JSON document a line for each source: from, to, files, bytes, skipped, unnamed"),
  paths: Argument.String("path").pipe(
    Argument.withDescription("Sources, then the target: a path here, SANDBOX:path, or - for a pipe"),
    Argument.atLeast(1)
  )
}

type Options = Command.Command.Config.Infer<typeof flags>

/** Where an end of a copy is. A path inside that is not absolute begins at the user's home. */
const placeOf = Effect.fnUntraced(function* (end: Exclude<End, { _tag: "Stdio" }>, user: User) {
  const path = yield* Path.Path
  if (end._tag === "Local") return { place: local, path: path.resolve(end.path), text: end.path }
  const sandbox = yield* Sandboxes.connect(end.sandbox)
  return {
    place: inside(sandbox, user),
    path: posix.resolve(homeOf(user), end.path),
    text: end.path
  }
})

/** Whether a path is written as a directory. */
const isAsDirectory = (text: string): boolean => text === "" || /(^|\/)\.{0,2}$/.test(text)

/** Whether the entries of a directory are meant and not the directory: `dir/.` */
const isContent = (text: string): boolean => text === "" || /(^|\/)\.$/.test(text)

interface Target {
  readonly at: At
  readonly isDirectory: boolean
}

const targetOf = Effect.fnUntraced(function* (end: Exclude<End, { _tag: "Stdio" }>, options: Options) {
  const { place, path, text } = yield* placeOf(end, options.user)
  const found = yield* place.find(path)
  const target: Target = {
    at: { place, path },
    isDirectory: found?.type === "directory" || isAsDirectory(text)
  }
  return target
})

const within = ({ at, isDirectory }: Target, name: string): At =>
  isDirectory ? { ...at, path: posix.join(at.path, name) } : at

const copyTo = Effect.fnUntraced(function* (source: End, target: Target, user: User, listener: Listener) {
  if (source._tag === "Stdio") {
    if (target.isDirectory) {
      return yield* refuse("standard input has no name", "name the file it becomes, as in SANDBOX:/path/file")
    }
    const count = counting(listener)
    yield* copyFile(stdin, undefined, target.at, count)
    return { files: 1, bytes: count.bytes(), skipped: [], unnamed: [] }
  }
  const { place, path, text } = yield* placeOf(source, user)
  const entry = yield* present(place, path, text)
  if (entry.type === "directory") {
    const to = isContent(text) ? target.at : within(target, posix.basename(path))
    return yield* copyDirectory({ place, path }, entry, to, listener)
  }
  listener.total(entry.size)
  const count = counting(listener)
  yield* copyFile(place.read(path), entry, within(target, posix.basename(path)), count)
  return { files: 1, bytes: count.bytes(), skipped: [], unnamed: [] }
})

const counting = (listener: Listener): Listener & { readonly bytes: () => number } => {
  let bytes = 0
  return {
    total: listener.total,
    copied: (more) => {
      bytes += more
      listener.copied(more)
    },
    bytes: () => bytes
  }
}

const present = (place: Place, path: string, text: string) =>
  Effect.flatMap(
    place.find(path),
    (found): Effect.Effect<Entry, ReturnType<typeof refuse>> =>
      found === undefined
        ? refuse(
            `${text === "" ? path : text}: no such file or directory`,
            "is it on the side that is meant? SANDBOX:path is inside"
          )
        : Effect.succeed(found)
  )

/** A file to standard output. */
const copyOut = Effect.fnUntraced(function* (source: End, user: User, listener: Listener) {
  if (source._tag === "Stdio") return yield* refuse("from - to - there is nothing to copy", "name a file")
  const { place, path, text } = yield* placeOf(source, user)
  const entry = yield* present(place, path, text)
  if (entry.type === "directory") {
    return yield* refuse(
      `${text}: a directory cannot go to standard output`,
      "fiberbox exec SANDBOX -- tar -C DIR -c . writes it as one stream"
    )
  }
  listener.total(entry.size)
  const count = counting(listener)
  yield* Stream.runForEach(place.read(path), (bytes) =>
    Effect.tap(
      write("stdout", bytes),
      Effect.sync(() => count.copied(bytes.byteLength))
    )
  )
  return { files: 1, bytes: count.bytes(), skipped: [], unnamed: [] }
})

/** A terminal that shows what is copied needs no bar over it. */
const showsProgress = (options: Options, toStdout: boolean): boolean =>
  !options.quiet &&
  !options.json &&
  process.stderr.isTTY === true &&
  !(toStdout && process.stdout.isTTY === true)

const tell = (options: Options, from: string, to: string, summary: Summary) =>
  Effect.gen(function* () {
    // Where the file itself is on standard output, nothing else may be.
    if (options.json && to !== "-") return yield* writeJson({ from, to, ...summary })
    for (const path of summary.unnamed) {
      yield* remark(options, `refused ${path}: it is, or leads to, a name that is no UTF-8`)
    }
    for (const path of summary.skipped) yield* remark(options, `left out ${path}: no file, directory or link`)
    if (!showsProgress(options, to === "-")) return
    const what = summary.files === 1 ? "1 file" : `${summary.files} files`
    yield* write("stderr", `${from} → ${to}: ${what}, ${size(summary.bytes)}\n`)
  })

/** What can be seen to be wrong without looking at any file. */
const check = Effect.fnUntraced(function* ({ paths }: Options) {
  if (paths.length < 2) {
    return yield* refuse("a copy needs a source and a target", "as in `fiberbox cp file SANDBOX:`")
  }
  if (!paths.some((path) => parseEnd(path)._tag === "Inside")) {
    return yield* refuse(
      "none of these paths is in a sandbox",
      "write SANDBOX:path, as in dev:/home/user/file"
    )
  }
})

const copyAll = Effect.fnUntraced(function* (options: Options) {
  const texts = options.paths.slice(0, -1)
  const toText = options.paths.at(-1) ?? ""
  const to = parseEnd(toText)
  const target = to._tag === "Stdio" ? undefined : yield* targetOf(to, options)
  if (texts.length > 1 && target?.isDirectory !== true) {
    return yield* refuse("several sources need a directory as target", "make it, or end its name with /")
  }
  let refused = 0
  for (const text of texts) {
    const source = parseEnd(text)
    const copy = Effect.flatMap(progress(showsProgress(options, target === undefined)), (listener) =>
      target === undefined
        ? copyOut(source, options.user, listener)
        : copyTo(source, target, options.user, listener)
    )
    const summary = yield* Effect.scoped(copy)
    refused += summary.unnamed.length
    yield* tell(options, text, toText, summary)
  }
  return refused === 0 ? 0 : ownFailureCode
})

const description = `Copy files and directories into a sandbox, out of it, or from one to another

A path inside is SANDBOX:path; one that does not begin with / begins at the home of the user. A directory is
copied with all below it, links as links; DIR/. means its entries. Files appear whole or not at all, and a new
directory too: an interrupted copy leaves nothing. Permission bits, times (on this machine to the microsecond), hard
links within what is copied, and holes are kept. Owners are not: inside, files are the user's (-u); here, yours, and
without the bits that give a program its owner's rights. A name that is no UTF-8 is refused, and the rest copied.`

/** The command `cp`. */
export const cp = Command.make("cp", flags, (options) =>
  performOn(options, copyAll(options), check(options))
).pipe(
  Command.withDescription(description),
  Command.withShortDescription("Copy files in and out"),
  Command.withExamples([
    { command: "fiberbox cp main.py dev:", description: "Into its home" },
    { command: "fiberbox cp -u root nginx.conf dev:/etc/", description: "As root of the sandbox" },
    { command: "fiberbox cp dev:out/. results", description: "The entries of a directory out of it" },
    { command: "pg_dump app | fiberbox cp - dev:/tmp/app.sql", description: "What a program writes" },
    { command: "fiberbox cp dev:/var/log/app.log - | grep ERROR", description: "To what a program reads" }
  ])
)
