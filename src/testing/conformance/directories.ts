/**
 * Conformance: the tree that files live in.
 */
import { Effect } from "effect"
import { area, home, refused, same, withSandbox } from "./Case.ts"

const root = `${home}/tree`

/** A small tree: files a, b/c, b/d/e and a link to a directory. */
const tree = {
  files: [
    { path: `${root}/a`, content: "a" },
    { path: `${root}/b/c`, content: "cc" },
    { path: `${root}/b/d/e`, content: "eee" }
  ],
  link: `ln -s ${root}/b/d ${root}/link`
}

export const directoryCases = area("directories")({
  "a list goes as deep as asked, sorted by path, and does not follow links": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* files.writeMany(tree.files)
      yield* commands.run(tree.link)
      const listed = (depth?: number) =>
        Effect.map(files.list(root, { depth }), ({ entries, truncated }) => {
          same(truncated, false)
          return entries.map(({ path, type }) => `${path.slice(root.length + 1)} ${type}`)
        })
      same(yield* listed(), ["a file", "b directory", "link symlink"])
      same(yield* listed(2), ["a file", "b directory", "b/c file", "b/d directory", "link symlink"])
      const all = ["a file", "b directory", "b/c file", "b/d directory", "b/d/e file", "link symlink"]
      same(yield* listed(3), all)
      same(yield* listed(64), all)
    })
  ),

  "a list of more than was asked for says that there is more": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.writeMany(tree.files)
      const { entries, truncated } = yield* files.list(root, { depth: 3, limit: 2 })
      same([entries.length, truncated], [2, true])
      same((yield* files.list(root, { depth: 3, limit: 5 })).truncated, false)
      yield* refused(files.list(root, { limit: 0 }), "InvalidArgument")
      yield* refused(files.list(root, { depth: 0 }), "InvalidArgument")
    })
  ),

  "a list of very long paths ends after some MiB and says that there is more": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      const deep = `${root}${"/".concat("d".repeat(240)).repeat(15)}`
      yield* files.makeDir(deep)
      yield* commands.run("i=0; while [ $i -lt 1200 ]; do echo > n$i; i=$((i+1)); done", { cwd: deep })
      const { entries, truncated } = yield* files.list(deep)
      same([truncated, entries.length > 1000, entries.length < 1200], [true, true, true])
    })
  ),

  "an empty directory lists nothing, and what is none is refused": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.makeDir(`${root}/empty`)
      same((yield* files.list(`${root}/empty`)).entries, [])
      yield* files.write(`${root}/file`, "")
      same((yield* refused(files.list(`${root}/file`), "FileFailed")).reason, "not-directory")
      same((yield* refused(files.list(`${root}/none`), "FileFailed")).reason, "not-found")
    })
  ),

  "stat describes the path itself": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* files.write(`${root}/file`, "12345", { mode: 0o640 })
      yield* commands.run(`ln -s file ${root}/link`)
      const file = yield* files.stat(`${root}/file`)
      same(
        { path: file.path, type: file.type, size: file.size, mode: file.mode, target: file.target },
        { path: `${root}/file`, type: "file", size: 5, mode: 0o640, target: undefined }
      )
      const link = yield* files.stat(`${root}/link`)
      same([link.type, link.target], ["symlink", "file"])
      same((yield* files.stat(root)).type, "directory")
      same((yield* refused(files.stat(`${root}/none`), "FileFailed")).reason, "not-found")
      same((yield* refused(files.stat(`${root}/file/none`), "FileFailed")).reason, "not-directory")
    })
  ),

  "exists tells what is from what is not": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* files.write(`${root}/file`, "")
      yield* commands.run(`ln -s nowhere ${root}/dangling`)
      const questions = [root, `${root}/file`, `${root}/dangling`, `${root}/none`, `${root}/file/none`]
      same(yield* Effect.forEach(questions, (path) => files.exists(path)), [true, true, true, false, false])
    })
  ),

  "a directory is made with its parents, again without complaint, and not over a file": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.makeDir(`${root}/x/y/z`, { mode: 0o700 })
      yield* files.makeDir(`${root}/x/y/z`)
      const made = yield* files.stat(`${root}/x/y/z`)
      same([made.type, made.mode, made.uid], ["directory", 0o700, 1000])
      yield* files.write(`${root}/file`, "f")
      same((yield* refused(files.makeDir(`${root}/file`), "FileFailed")).reason, "exists")
      same((yield* refused(files.makeDir(`${root}/file/x`), "FileFailed")).reason, "not-directory")
      same(yield* files.readText(`${root}/file`), "f")
    })
  ),

  "no directory is made through a link that leads nowhere, however far away that is": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* files.makeDir(root)
      yield* commands.run(`cd ${root}; ln -s none near; ln -s none/deeper far`)
      for (const path of ["near", "far", "near/x", "far/x"]) {
        same((yield* refused(files.makeDir(`${root}/${path}`), "FileFailed")).reason, "not-found")
      }
      same(
        (yield* files.list(root)).entries.map(({ type }) => type),
        ["symlink", "symlink"]
      )
    })
  ),

  "a rename moves files and directories, and replaces a file": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.writeMany(tree.files)
      yield* files.rename(`${root}/a`, `${root}/b/c`)
      same(yield* files.readText(`${root}/b/c`), "a")
      same(yield* files.exists(`${root}/a`), false)
      yield* files.rename(`${root}/b`, `${root}/moved`)
      same(yield* files.readText(`${root}/moved/d/e`), "eee")
      const missing = files.rename(`${root}/none`, `${root}/other`)
      same((yield* refused(missing, "FileFailed")).reason, "not-found")
      yield* files.write(`${root}/file`, "f")
      const over = files.rename(`${root}/file`, `${root}/moved`)
      same((yield* refused(over, "FileFailed")).reason, "is-directory")
      const inside = files.rename(`${root}/moved`, `${root}/moved/d/moved`)
      same((yield* refused(inside, "FileFailed")).reason, "invalid")
    })
  ),

  "remove takes a file or an empty directory; a tree only when told so, and no link's target": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* files.writeMany(tree.files)
      yield* files.write(`${home}/outside/kept`, "kept")
      yield* commands.run(`ln -s ${home}/outside ${root}/b/outside`)
      yield* files.remove(`${root}/a`)
      same((yield* refused(files.remove(`${root}/b`), "FileFailed")).reason, "not-empty")
      same(yield* files.readText(`${root}/b/c`), "cc")
      yield* files.remove(`${root}/b`, { recursive: true })
      same(yield* files.exists(`${root}/b`), false)
      same(yield* files.readText(`${home}/outside/kept`), "kept")
      yield* files.remove(root)
      same((yield* refused(files.remove(root), "FileFailed")).reason, "not-found")
    })
  ),

  "chmod sets every bit it is given": withSandbox(
    Effect.fnUntraced(function* ({ files, process }) {
      yield* files.write(`${root}/script`, "#!/bin/sh\necho ran\n")
      yield* files.chmod(`${root}/script`, 0o755)
      same((yield* process.run([`${root}/script`])).stdout, "ran\n")
      yield* files.makeDir(`${root}/sticky`)
      yield* files.chmod(`${root}/sticky`, 0o1777)
      same((yield* files.stat(`${root}/sticky`)).mode, 0o1777)
      same((yield* refused(files.chmod(`${root}/none`, 0o644), "FileFailed")).reason, "not-found")
      yield* refused(files.chmod(`${root}/script`, 0o10000), "InvalidArgument")
    })
  )
})
