/**
 * The command line with all of its code loaded that `run` needs, doing nothing:
 * what starting Node and loading cost. JavaScript, as `bin/fiberbox.js` is: no
 * part of that program loads the stripper of types when its bundle is fresh.
 */
import { readdirSync } from "node:fs"
import { enableCompileCache } from "node:module"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { cached, isFresh } from "../../scripts/bundle.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Where the bundler put what the command line imports when it runs: their names end in a hash. */
const chunk = (/** @type {string} */ name) => {
  const found = readdirSync(cached).find((file) => new RegExp(`^${name}-[^.]+\\.js$`).test(file))
  if (found === undefined) throw new Error(`the bundle of the command line has no ${name}`)
  return join(cached, found)
}

const needed = isFresh()
  ? [chunk("container"), chunk("Run")]
  : [join(root, "src/container.ts"), join(root, "src/cli/Run.ts")]

enableCompileCache(join(root, "node_modules/.cache/fiberbox"))
for (const module of needed) await import(module)
process.argv.splice(2, Number.POSITIVE_INFINITY, "--version")
await import("../../bin/fiberbox.js")
