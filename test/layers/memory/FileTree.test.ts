import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import {
  chmod,
  list,
  makeDirs,
  normalize,
  readAll,
  remove,
  stat,
  writeWhole
} from "../../../src/layers/memory/Files.ts"
import { FileTree } from "../../../src/layers/memory/FileTree.ts"
import { decode, encode, type FsResult } from "../../../src/layers/memory/Inode.ts"

let clock = 0

/** An empty disk that user 1000 may write to. */
const disk = (limits = { bytes: 1024 * 1024, inodes: 1000 }) => {
  const tree = new FileTree({ now: () => clock, limits })
  tree.root.uid = 1000
  return tree
}

const user = 1000
const root = 0

const reason = (result: FsResult<unknown>) => (Result.isFailure(result) ? result.failure.reason : "done")
const write = (tree: FileTree, path: string, text: string, uid = user) =>
  writeWhole(tree, path, encode(text), undefined, uid)
const read = (tree: FileTree, path: string, uid = user) => Result.map(readAll(tree, path, uid), decode)
const link = (tree: FileTree, target: string, path: string) => {
  const place = Result.getOrThrow(tree.resolve(path, user, false))
  return Result.getOrThrow(tree.add(place, tree.nodes.symlink(target, user, 0), user, path))
}

describe("a file that grows piece by piece", () => {
  const grow = (limit: number, size: number) => {
    const tree = disk({ bytes: limit, inodes: 10 })
    const file = Result.getOrThrow(tree.unnamed(0o644, user, "/file"))
    const piece = new Uint8Array(128 * 1024)
    let moved = 0
    let before = file.data
    for (let at = 0; at < size; at += piece.length) {
      tree.writeAt(file, at, piece)
      if (file.data !== before) moved += before.length
      before = file.data
    }
    return { file, moved }
  }

  it("has each of its bytes moved twice at most on average", () => {
    const size = 100 * 1024 * 1024
    const { file, moved } = grow(8 * size, size)
    assert.strictEqual(file.size, size)
    assert.isBelow(moved, 2 * size)
  })

  it("takes no more memory than its disk has bytes", () => {
    const limit = 10 * 1024 * 1024
    assert.isAtMost(grow(limit, 2 * limit).file.data.length, limit)
  })
})

describe("paths", () => {
  it("follow links at their beginning and middle, and at their end only to read", () => {
    const tree = disk()
    write(tree, "/real/dir/file", "text")
    link(tree, "real", "/to")
    link(tree, "../real/dir/file", "/real/up")
    link(tree, "/to/dir", "/absolute")
    assert.deepStrictEqual(read(tree, "/to/dir/file"), Result.succeed("text"))
    assert.deepStrictEqual(read(tree, "/absolute/file"), Result.succeed("text"))
    assert.deepStrictEqual(read(tree, "/real/up"), Result.succeed("text"))
    assert.deepStrictEqual(read(tree, "/to/../real/./dir//file"), Result.succeed("text"))
    assert.strictEqual(Result.getOrThrow(stat(tree, "/to", user)).type, "symlink")
    assert.strictEqual(Result.getOrThrow(stat(tree, "/to/", user)).type, "directory")
    assert.strictEqual(Result.getOrThrow(tree.resolve("/absolute/new", user, false)).path, "/real/dir/new")
  })

  it("may pass 40 links and no more", () => {
    const tree = disk()
    write(tree, "/l0", "end")
    for (let index = 1; index <= 41; index++) link(tree, `l${index - 1}`, `/l${index}`)
    assert.deepStrictEqual(read(tree, "/l40"), Result.succeed("end"))
    assert.strictEqual(reason(read(tree, "/l41")), "symlink-loop")
    link(tree, "b", "/a")
    link(tree, "a", "/b")
    for (const path of ["/a", "/a/x"]) {
      assert.strictEqual(reason(read(tree, path)), "symlink-loop")
      assert.strictEqual(reason(write(tree, path, "x")), "symlink-loop")
      assert.strictEqual(reason(makeDirs(tree, `${path}/y`, 0o755, user)), "symlink-loop")
    }
  })

  it("have names of 255 bytes and a length of 4095", () => {
    const tree = disk()
    assert.strictEqual(reason(write(tree, `/${"x".repeat(255)}`, "")), "done")
    assert.strictEqual(reason(write(tree, `/${"x".repeat(256)}`, "")), "name-too-long")
    assert.strictEqual(reason(write(tree, `/${"ž".repeat(128)}`, "")), "name-too-long")
    assert.strictEqual(reason(read(tree, `${"/x".repeat(2048)}`)), "name-too-long")
  })

  it.prop(
    "are the same after they were normalized",
    [Schema.Array(Schema.Literals(["a", "b", ".", "..", ""]))],
    ([parts]) => {
      const path = `/${parts.join("/")}`
      const plain = normalize(path)
      assert.strictEqual(normalize(plain), plain)
      assert.match(plain, /^(\/|(\/[ab])+)$/)
    }
  )
})

describe("rights", () => {
  it("keep others out, and let root in", () => {
    const tree = disk()
    makeDirs(tree, "/secret", 0o700, root)
    write(tree, "/secret/file", "s", root)
    write(tree, "/shared", "s", root)
    assert.strictEqual(reason(read(tree, "/secret/file")), "permission")
    assert.strictEqual(reason(stat(tree, "/secret/file", user)), "permission")
    assert.strictEqual(reason(list(tree, "/secret", 1, 10, user)), "permission")
    assert.strictEqual(reason(write(tree, "/secret/new", "")), "permission")
    assert.strictEqual(reason(chmod(tree, "/shared", 0o777, user)), "permission")
    write(tree, "/mine", "m")
    chmod(tree, "/mine", 0, user)
    assert.strictEqual(reason(read(tree, "/mine")), "permission")
    assert.deepStrictEqual(read(tree, "/mine", root), Result.succeed("m"))
  })

  it("of a sticky directory let only owners remove", () => {
    const tree = disk()
    makeDirs(tree, "/tmp", 0o1777, root)
    write(tree, "/tmp/root", "r", root)
    write(tree, "/tmp/user", "u")
    assert.strictEqual(reason(remove(tree, "/tmp/root", false, user)), "permission")
    assert.strictEqual(reason(tree.rename("/tmp/root", "/tmp/other", user)), "permission")
    assert.strictEqual(reason(write(tree, "/tmp/root", "over")), "permission")
    assert.strictEqual(reason(remove(tree, "/tmp/user", false, user)), "done")
  })

  it("and owners stay when root replaces a file", () => {
    const tree = disk()
    write(tree, "/file", "u")
    chmod(tree, "/file", 0o640, user)
    write(tree, "/file", "r", root)
    const info = Result.getOrThrow(stat(tree, "/file", user))
    assert.deepStrictEqual([info.uid, info.mode], [user, 0o640])
  })
})

describe("limits", () => {
  it("of bytes refuse a write whole, and give space back", () => {
    const tree = disk({ bytes: 3 * 4096, inodes: 100 })
    assert.strictEqual(reason(write(tree, "/a", "x".repeat(8000))), "done")
    assert.strictEqual(reason(write(tree, "/b", "x".repeat(8000))), "no-space")
    assert.strictEqual(reason(read(tree, "/b")), "not-found")
    assert.strictEqual(tree.usedBytes, 2 * 4096)
    remove(tree, "/a", false, user)
    assert.strictEqual(tree.usedBytes, 0)
    assert.strictEqual(reason(write(tree, "/b", "x".repeat(8000))), "done")
  })

  it("of inodes refuse one more", () => {
    const tree = disk({ bytes: 1024 * 1024, inodes: 2 })
    assert.strictEqual(reason(write(tree, "/a", "")), "done")
    assert.strictEqual(reason(makeDirs(tree, "/d", 0o755, user)), "done")
    assert.strictEqual(reason(write(tree, "/c", "")), "no-space")
    assert.strictEqual(reason(makeDirs(tree, "/e", 0o755, user)), "no-space")
    remove(tree, "/a", false, user)
    assert.strictEqual(reason(write(tree, "/c", "")), "done")
  })
})

describe("changes", () => {
  it("of names follow rename(2)", () => {
    const tree = disk()
    write(tree, "/a", "a")
    write(tree, "/d/e/f", "f")
    makeDirs(tree, "/empty", 0o755, user)
    assert.strictEqual(reason(tree.rename("/none", "/x", user)), "not-found")
    assert.strictEqual(reason(tree.rename("/a", "/d", user)), "is-directory")
    assert.strictEqual(reason(tree.rename("/d", "/a", user)), "not-directory")
    assert.strictEqual(reason(tree.rename("/d", "/d/e/g", user)), "invalid")
    assert.strictEqual(reason(tree.rename("/d/e", "/d", user)), "not-empty")
    assert.strictEqual(reason(tree.rename("/a", "/a", user)), "done")
    assert.strictEqual(reason(tree.rename("/d", "/empty", user)), "done")
    assert.deepStrictEqual(read(tree, "/empty/e/f"), Result.succeed("f"))
    assert.strictEqual(reason(tree.rename("/a", "/empty/e/f", user)), "done")
    assert.deepStrictEqual(read(tree, "/empty/e/f"), Result.succeed("a"))
  })

  it("are dated by the clock", () => {
    const tree = disk()
    clock = 1000
    write(tree, "/d/file", "1")
    clock = 2000
    write(tree, "/d/other", "2")
    assert.strictEqual(Result.getOrThrow(stat(tree, "/d/file", user)).modifiedAt, 1000)
    assert.strictEqual(Result.getOrThrow(stat(tree, "/d", user)).modifiedAt, 2000)
  })

  it("of whole trees never follow links", () => {
    const tree = disk()
    write(tree, "/kept/file", "kept")
    makeDirs(tree, "/gone", 0o755, user)
    link(tree, "/kept", "/gone/link")
    assert.strictEqual(reason(remove(tree, "/gone", false, user)), "not-empty")
    assert.strictEqual(reason(remove(tree, "/gone", true, user)), "done")
    assert.deepStrictEqual(read(tree, "/kept/file"), Result.succeed("kept"))
  })
})

// --- against a model ----------------------------------------------------------

const Path = Schema.Literals(["/a", "/b", "/d", "/d/a", "/d/b", "/d/d", "/d/d/a"])
const Step = Schema.Union([
  Schema.TaggedStruct("Write", { path: Path, text: Schema.Literals(["", "x", "yy"]) }),
  Schema.TaggedStruct("MakeDir", { path: Path }),
  Schema.TaggedStruct("Remove", { path: Path, recursive: Schema.Boolean }),
  Schema.TaggedStruct("Rename", { path: Path, to: Path })
])

/** A file system as a table from path to content; null is a directory. */
type Model = Map<string, string | null>

const parents = (path: string) =>
  path
    .split("/")
    .slice(1, -1)
    .map((_, index, all) => `/${all.slice(0, index + 1).join("/")}`)
const below = (model: Model, path: string) => [...model.keys()].filter((key) => key.startsWith(`${path}/`))
const fileAbove = (model: Model, path: string) =>
  parents(path).some((parent) => typeof model.get(parent) === "string")
const dirAbove = (model: Model, path: string) => parents(path).every((parent) => model.get(parent) === null)

const expected = (model: Model, step: typeof Step.Type): string => {
  const { path } = step
  const present = model.get(path)
  if (fileAbove(model, path)) return "not-directory"
  switch (step._tag) {
    case "Write":
      if (present === null) return "is-directory"
      for (const parent of parents(path)) model.set(parent, null)
      model.set(path, step.text)
      return "done"
    case "MakeDir":
      if (typeof present === "string") return "exists"
      for (const parent of [...parents(path), path]) model.set(parent, null)
      return "done"
    case "Remove": {
      if (present === undefined) return "not-found"
      const inside = below(model, path)
      if (inside.length > 0 && !step.recursive) return "not-empty"
      for (const key of [path, ...inside]) model.delete(key)
      return "done"
    }
    case "Rename": {
      const { to } = step
      if (present === undefined) return "not-found"
      if (fileAbove(model, to)) return "not-directory"
      if (!dirAbove(model, to)) return "not-found"
      const there = model.get(to)
      if (to === path) return "done"
      if (present === null && to.startsWith(`${path}/`)) return "invalid"
      if (there === null && present !== null) return "is-directory"
      if (there === null && below(model, to).length > 0) return "not-empty"
      if (typeof there === "string" && present === null) return "not-directory"
      const moved = [path, ...below(model, path)].map((key) => [key, model.get(key) ?? null] as const)
      for (const [key] of moved) model.delete(key)
      for (const [key, content] of moved) model.set(to + key.slice(path.length), content)
      return "done"
    }
  }
}

const perform = (tree: FileTree, step: typeof Step.Type): FsResult<unknown> => {
  switch (step._tag) {
    case "Write":
      return write(tree, step.path, step.text)
    case "MakeDir":
      return makeDirs(tree, step.path, 0o755, user)
    case "Remove":
      return remove(tree, step.path, step.recursive, user)
    case "Rename":
      return tree.rename(step.path, step.to, user)
  }
}

describe("a file system", () => {
  it.prop(
    "does what a table of paths would",
    [Schema.Array(Step).check(Schema.isMaxLength(40))],
    ([steps]) => {
      const tree = disk()
      const model: Model = new Map()
      for (const step of steps) {
        assert.strictEqual(reason(perform(tree, step)), expected(model, step), JSON.stringify(step))
        const listed = Result.getOrThrow(list(tree, "/", 64, 1000, user)).entries
        assert.deepStrictEqual(
          listed.map((entry) => [
            entry.path,
            entry.type === "directory" ? null : Result.getOrThrow(read(tree, entry.path))
          ]),
          [...model].sort(([a], [b]) => (a < b ? -1 : 1))
        )
        const files = [...model.values()].filter((content) => content !== null && content !== "").length
        const directories = [...model.values()].filter((content) => content === null).length
        assert.strictEqual(tree.usedBytes, (files + directories) * 4096)
        assert.strictEqual(tree.usedInodes, model.size)
      }
    },
    { arbitrary: { runs: 300 } }
  )

  it("lists as deep and as much as asked", () => {
    const tree = disk()
    for (const path of ["/d/a/b/c", "/d/a.x", "/d/b"]) write(tree, path, "")
    const paths = (depth: number, limit: number) => {
      const found = Result.getOrThrow(list(tree, "/d", depth, limit, user))
      return [found.entries.map((entry) => entry.path), found.truncated]
    }
    assert.deepStrictEqual(paths(1, 10), [["/d/a", "/d/a.x", "/d/b"], false])
    assert.deepStrictEqual(paths(64, 10), [["/d/a", "/d/a.x", "/d/a/b", "/d/a/b/c", "/d/b"], false])
    assert.deepStrictEqual(paths(64, 2), [["/d/a", "/d/a.x"], true])
  })
})
