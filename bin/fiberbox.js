#!/usr/bin/env node
// The `fiberbox` command. Plain JavaScript that even an old Node can parse, so that it can say what is wrong.
import { existsSync } from "node:fs"
import * as Module from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
if (major < 22 || (major === 22 && minor < 19)) {
  console.error(
    `fiberbox needs Node 22.19 or newer and this is ${process.version}. ` +
      "Fix: in a checkout run `npm ci` and then `npx fiberbox ...`; elsewhere install a newer Node."
  )
  process.exit(1)
}

// The store is Node's own SQLite, whose "experimental" notice would stand in every command's stderr on Node 22 and 24.
const emitWarning = process.emitWarning
process.emitWarning = (
  /** @type {string | Error} */ warning,
  /** @type {ReadonlyArray<unknown>} */ ...rest
) => {
  if (!String(warning).startsWith("SQLite is an experimental feature")) {
    Reflect.apply(emitWarning, process, [warning, ...rest])
  }
}

const root = dirname(dirname(fileURLToPath(import.meta.url)))
// Node does not strip types below node_modules, so an installed package runs what was built.
const installed = root.split("/").includes("node_modules")

/**
 * The bundle of the package; in a checkout the one that the set-up step made, while it is as new as the sources. Its
 * compiled code lies beside, never in a shared temporary directory where another user could poison it.
 */
const findBundle = async () => {
  if (installed) return { bundle: join(root, "dist/bundle"), cache: join(root, "../.cache/fiberbox") }
  const { cached, compiled, isFresh } = await import("../scripts/bundle.js")
  return isFresh() ? { bundle: cached, cache: compiled } : undefined
}

if (process.argv[2] === "setup") {
  await import("../scripts/setup.js")
} else {
  const found = await findBundle()
  if (found === undefined) {
    Module.enableCompileCache?.(join(root, "node_modules/.cache/fiberbox"))
    await import(pathToFileURL(join(root, "src/cli.ts")).href)
  } else if (existsSync(join(found.bundle, "package.json"))) {
    const { entryOf, makeLoader } = await import("./load.js")
    makeLoader(found.bundle, found.cache).load(entryOf(found.bundle))
  } else {
    console.error(
      `fiberbox: ${found.bundle} is missing. Fix: reinstall the package, or run \`npm ci\` in the checkout.`
    )
    process.exit(1)
  }
}
