// Joins the command line and everything it imports into a few files: Node loads those three times as fast as the some
// 500 modules they are made of, and a command line is started again and again.
//
//   node scripts/bundle.js          for this checkout: bin/fiberbox.js uses it while no source is newer
//   node scripts/bundle.js dist     for the package, of what was compiled: dist/bundle
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Where the checkout's bundle lies. */
export const cached = join(root, "node_modules/.cache/fiberbox/cli")

/** Where the compiled code of the checkout's bundle is kept; see bin/load.js. */
export const compiled = join(root, "node_modules/.cache/fiberbox/code")

/** @type {(path: string) => number} */
const modifiedAt = (path) => statSync(path).mtimeMs

/** @type {(bundle: string) => Array<[file: string, modifiedAt: number]>} */
const inputsOf = (bundle) => JSON.parse(readFileSync(join(bundle, "inputs.json"), "utf8"))

/**
 * Whether a bundle is there and was made of the sources as they are.
 *
 * @type {(bundle?: string) => boolean}
 */
export const isFresh = (bundle = cached) => {
  try {
    return inputsOf(bundle).every(([file, at]) => modifiedAt(join(root, file)) === at)
  } catch {
    return false
  }
}

/**
 * A module that finds files by its own place must find them from the bundle too.
 *
 * @type {(base: string, out: string) => import("rolldown").Plugin}
 */
const keepPlaces = (base, out) => ({
  name: "keep-places",
  transform: (code, id) => {
    if (!id.startsWith(base) || !code.includes("import.meta.url")) return null
    const place = JSON.stringify(relative(out, id))
    return { code: code.replaceAll("import.meta.url", `new URL(${place}, import.meta.url).href`), map: null }
  }
})

const licence = () =>
  `/*!\nContains effect and @effect/platform-node, under this licence:\n\n${readFileSync(
    join(root, "node_modules/effect/LICENSE"),
    "utf8"
  ).trim()}\n*/`

/**
 * Bundles `<base>/cli` into `out`, and gives the files it is made of.
 *
 * @type {(base: string, extension: string, out: string, place: string) => Promise<ReadonlyArray<string>>}
 */
const bundle = async (base, extension, out, place) => {
  const { rolldown } = await import("rolldown")
  const build = await rolldown({
    input: { cli: join(base, `cli.${extension}`) },
    platform: "node",
    plugins: [keepPlaces(base, place)],
    logLevel: "silent"
  })
  const banner = (/** @type {{ isEntry: boolean }} */ chunk) => (chunk.isEntry ? licence() : "")
  // Without the white space there is half as much to read; the names stay, for whoever reads a stack trace.
  const minify = { mangle: false, compress: true, codegen: { removeWhitespace: true } }
  const { output } = await build.write({
    dir: out,
    // What bin/load.js can load, and by names that change with their contents.
    format: "cjs",
    entryFileNames: "[name]-[hash].js",
    banner,
    minify
  })
  await build.close()
  const main = output.find((chunk) => chunk.type === "chunk" && chunk.isEntry)?.fileName
  writeFileSync(join(out, "package.json"), JSON.stringify({ type: "commonjs", main }))
  return output.flatMap((chunk) => (chunk.type === "chunk" ? chunk.moduleIds : []))
}

/**
 * Makes the checkout's bundle.
 *
 * @type {() => Promise<void>}
 */
export const bundleCheckout = async () => {
  // Made beside and renamed, so that a command line that is just starting finds the old one or the new.
  const temporary = `${cached}.${process.pid}`
  mkdirSync(temporary, { recursive: true })
  try {
    const modules = await bundle(join(root, "src"), "ts", temporary, cached)
    const sources = modules.filter((file) => file.startsWith(join(root, "src")))
    // npm writes this one whenever it changes what is installed.
    const inputs = [...sources, join(root, "node_modules/.package-lock.json")]
    writeFileSync(
      join(temporary, "inputs.json"),
      JSON.stringify(inputs.map((file) => [relative(root, file), modifiedAt(file)]))
    )
    rmSync(cached, { recursive: true, force: true })
    renameSync(temporary, cached)
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const out = join(root, "dist/bundle")
  await (process.argv[2] === "dist" ? bundle(join(root, "dist"), "js", out, out) : bundleCheckout())
}
