// Runs the bundled command line, with the compiled code of earlier runs.
//
// Node's own compile cache keeps what is compiled when a module is loaded, which leaves out the functions that V8
// compiles when they are first called: some three thousand of them in `fiberbox run`, a third of its processor time. So
// the bundle is CommonJS and loaded here, where its compiled code can be asked for at the end, when it has run.
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { Script } from "node:vm"

/**
 * @typedef {{ readonly exports: unknown, readonly script: Script, readonly name: string }} Loaded
 * @typedef {{ readonly load: (name: string) => unknown }} Loader
 */

/** @type {(path: string) => Buffer | undefined} */
const readIfThere = (path) => {
  try {
    return readFileSync(path)
  } catch {
    return undefined
  }
}

/** Written beside and renamed, so that nobody reads half a file. @type {(path: string, data: Buffer) => void} */
const replace = (path, data) => {
  const temporary = `${path}.${process.pid}`
  writeFileSync(temporary, data, { mode: 0o600 })
  renameSync(temporary, path)
}

/** On the first line, so that positions stay what they are. @type {(source: string) => string} */
const wrapped = (source) => `(function (exports, require, module, __filename, __dirname) { ${source}\n})`

/**
 * A loader of the modules of a bundle. The compiled code lies in `cache`, by the names of the modules: these must
 * change with what is in them, and nobody else may be able to write there.
 *
 * @type {(bundle: string, cache: string) => Loader}
 */
export const makeLoader = (bundle, cache) => {
  /** @type {Map<string, Loaded>} */
  const modules = new Map()
  const builtin = createRequire(join(bundle, "package.json"))
  const place = join(cache, process.version)
  let learnt = false

  /** @type {(name: string) => unknown} */
  const load = (name) => {
    const known = modules.get(name)
    if (known !== undefined) return known.exports
    const path = join(bundle, name)
    const cachedData = readIfThere(join(place, name))
    const script = new Script(wrapped(readFileSync(path, "utf8")), {
      filename: path,
      ...(cachedData === undefined ? {} : { cachedData })
    })
    if (cachedData === undefined || script.cachedDataRejected === true) learnt = true
    const module = { exports: {}, script, name }
    modules.set(name, module)
    /** @type {(id: string) => unknown} */
    const require = (id) => (id.startsWith("./") ? load(id.slice(2)) : builtin(id))
    script.runInThisContext()(module.exports, require, module, path, dirname(path))
    return module.exports
  }

  // When one module was new, so was much of what it called in the others.
  const keep = () => {
    if (!learnt) return
    try {
      mkdirSync(place, { recursive: true, mode: 0o700 })
      for (const { name, script } of modules.values()) replace(join(place, name), script.createCachedData())
      const present = new Set(readdirSync(bundle))
      for (const name of readdirSync(place)) if (!present.has(name)) rmSync(join(place, name))
    } catch {
      // Without a place to write to, each run compiles again.
    }
  }
  process.on("exit", keep)
  return { load }
}

/** The name of a bundle's first module. @type {(bundle: string) => string} */
export const entryOf = (bundle) => JSON.parse(readFileSync(join(bundle, "package.json"), "utf8")).main
