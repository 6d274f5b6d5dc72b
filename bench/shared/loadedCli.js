/**
 * The command line with all of its code loaded that `run` needs, doing nothing:
 * what starting Node and loading cost. JavaScript, as `bin/fiberbox.js` is: no
 * part of that program loads the stripper of types when its bundle is fresh.
 */
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { entryOf, makeLoader } from "../../bin/load.js"
import { cached, compiled, isFresh } from "../../scripts/bundle.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Where the bundler put what the command line imports when it runs: their names end in a hash. */
const chunk = (/** @type {string} */ name) => {
  const found = readdirSync(cached).find((file) => new RegExp(`^${name}-[^.]+\\.js$`).test(file))
  if (found === undefined) throw new Error(`the bundle of the command line has no ${name}`)
  return found
}

process.argv.splice(2, Number.POSITIVE_INFINITY, "--version")
if (isFresh()) {
  const loader = makeLoader(cached, compiled)
  for (const module of [chunk("container"), chunk("Run"), entryOf(cached)]) loader.load(module)
} else {
  for (const file of ["src/container.ts", "src/cli/Run.ts", "bin/fiberbox.js"]) await import(join(root, file))
}
