import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = fileURLToPath(new URL("..", import.meta.url))
const read = (path: string) => readFileSync(`${root}/${path}`, "utf8")

describe.each(["README.md", "ARCHITECTURE.md", "SECURITY.md", "FAILURES.md"])("%s", (document) => {
  it("names only files that exist", () => {
    const named = new Set(
      Array.from(
        read(document).matchAll(/\b(?:src|test|native|examples|scripts|bin)\/[\w./-]*\w\/?/g),
        ([path]) => path
      )
    )
    assert.isAbove(named.size, 0)
    assert.deepStrictEqual(
      [...named].filter((path) => !existsSync(`${root}/${path}`)),
      []
    )
  })

  it("links only to what exists", () => {
    const links = Array.from(read(document).matchAll(/\]\((?!https?:)([^)#]+)\)/g), ([, path]) => path ?? "")
    assert.deepStrictEqual(
      links.filter((path) => !existsSync(`${root}/${path}`)),
      []
    )
  })
})

describe.each(["SECURITY.md", "FAILURES.md"])("%s", (document) => {
  it("names only tests that exist", () => {
    const claims = Array.from(
      read(document).matchAll(/`(test\/[\w./-]+\.test\.ts)`: ([^;|`)]+)/g),
      ([, file = "", name = ""]) => ({ file, name: name.trim() })
    )
    assert.isAbove(claims.length, 10)
    assert.deepStrictEqual(
      claims.filter(({ file, name }) => !read(file).toLowerCase().includes(name.toLowerCase())),
      []
    )
  })
})

describe("README.md", () => {
  it("shows the quickstart's imports as the examples have them", () => {
    const imports = (text: string) =>
      Array.from(text.matchAll(/^import .* from "(.*)"$/gm), ([, from]) => from)
    const [, block = ""] = /```ts\n(import[\s\S]*?)```/.exec(read("README.md")) ?? []
    assert.deepStrictEqual(imports(block), imports(read("examples/01_quickstart.ts")))
  })
})
