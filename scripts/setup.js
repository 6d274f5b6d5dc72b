#!/usr/bin/env node
// Makes a machine ready for fiberbox: installs the system parts it may install, names those it may not, and compiles
// the two native programs. Safe to run again at any time: when everything is there it only looks, in a few milliseconds.
//
// Plain JavaScript without dependencies, because it also runs from an installed package, where Node strips no types.
//
//   node scripts/setup.js [--quiet] [--no-install]
//
// Exit code 0: done, or something is missing that only the machine's owner can add (it says what).
// Exit code 1: an installation or a compilation was tried and failed.
import { spawn } from "node:child_process"
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync
} from "node:fs"
import { delimiter, dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const native = join(root, "native")
const quiet = process.argv.includes("--quiet")
const mayInstall = !process.argv.includes("--no-install")
/** One a line: static, so that the programs run in any image, and hardened. */
const flagsFile = join(native, "flags")
const flags = readFileSync(flagsFile, "utf8").trim().split("\n")

/**
 * A program fiberbox needs on the machine: its name, what for, and the Debian packages that bring it.
 *
 * @typedef {{ readonly program: string, readonly why: string, readonly packages: ReadonlyArray<string> }} Part
 */

/** @type {ReadonlyArray<Part>} */
const runtimeParts = [
  { program: "runc", why: "runs the containers", packages: ["runc"] },
  { program: "mkfs.ext4", why: "limits a sandbox's disk", packages: ["e2fsprogs"] }
]

/** @type {Part} */
const compiler = { program: "cc", why: "compiles the native parts", packages: ["gcc", "libc6-dev"] }

const colour = process.stdout.isTTY === true && process.env.NO_COLOR === undefined
/** @type {(code: number, text: string) => string} */
const paint = (code, text) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text)
/** @type {(text: string) => void} */
const step = (text) => console.log(`${paint(36, "•")} ${text}`)
/** @type {(text: string) => void} */
const done = (text) => console.log(`${paint(32, "✓")} ${text}`)
/** @type {(text: string) => void} */
const problem = (text) => console.error(`${paint(31, "✗")} ${text}`)

// A plain user's PATH often lacks the sbin directories where these programs live.
const searchPath = [...(process.env.PATH ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"]

/** @type {(program: string) => boolean} */
const isOnPath = (program) =>
  searchPath.some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

/** @type {(command: string, args: ReadonlyArray<string>) => Promise<{ readonly ok: boolean, readonly output: string }>} */
const run = (command, args) =>
  new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        PATH: searchPath.join(delimiter),
        LC_ALL: "C",
        DEBIAN_FRONTEND: "noninteractive"
      }
    })
    let output = ""
    /** @type {(chunk: Buffer) => void} */
    const collect = (chunk) => {
      output += chunk.toString()
    }
    child.stdout.on("data", collect)
    child.stderr.on("data", collect)
    child.on("error", (error) => resolve({ ok: false, output: error.message }))
    child.on("close", (code) => resolve({ ok: code === 0, output }))
  })

/** @type {(start: number) => string} */
const seconds = (start) => `${((performance.now() - start) / 1000).toFixed(1)} s`

/** @type {(packages: ReadonlyArray<string>) => string} */
const installCommand = (packages) => {
  let family = ""
  try {
    family = readFileSync("/etc/os-release", "utf8")
  } catch {
    // Without the file the Debian names are still the best hint there is.
  }
  if (/^ID(_LIKE)?=.*(fedora|rhel|centos)/m.test(family))
    return "sudo dnf install -y runc e2fsprogs gcc glibc-static"
  if (/^ID(_LIKE)?=.*arch/m.test(family)) return "sudo pacman -S --needed runc e2fsprogs gcc"
  return `sudo apt-get install -y ${packages.join(" ")}`
}

const isRoot = process.getuid?.() === 0
const canInstall = mayInstall && isRoot && isOnPath("apt-get")

/**
 * Installs the packages, or says in one line what is missing and how to get it.
 *
 * @type {(parts: ReadonlyArray<Part>) => Promise<"installed" | "missing" | "failed">}
 */
const provide = async (parts) => {
  const packages = parts.flatMap((part) => part.packages)
  if (!canInstall) {
    const missing = parts.map((part) => `${part.program} (${part.why})`).join(" and ")
    problem(`containers will not work here without ${missing}. Fix: ${installCommand(packages)}`)
    return "missing"
  }
  step(`installing ${packages.join(", ")} with apt-get ...`)
  const start = performance.now()
  const apt = ["-o", "DPkg::Lock::Timeout=300", "-qq"]
  const install = [...apt, "install", "-y", "--no-install-recommends", ...packages]
  let result = await run("apt-get", install)
  if (!result.ok) {
    // A fresh machine has no package lists yet.
    const update = await run("apt-get", [...apt, "update"])
    result = await run("apt-get", install)
    if (!result.ok) {
      problem(`apt-get could not install ${packages.join(", ")}:\n${update.output}${result.output}`.trimEnd())
      return "failed"
    }
  }
  const absent = parts.filter((part) => !isOnPath(part.program)).map((part) => part.program)
  if (absent.length > 0) {
    problem(`${packages.join(", ")} are installed and yet ${absent.join(", ")} is not on the PATH`)
    return "failed"
  }
  done(`installed ${packages.join(", ")} (${seconds(start)})`)
  return "installed"
}

/** @type {(directory: string) => Array<string>} */
const filesBelow = (directory) => {
  try {
    return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
      const path = join(directory, entry.name)
      return entry.isDirectory() ? filesBelow(path) : [path]
    })
  } catch {
    return []
  }
}

/** @type {(path: string) => number} */
const modifiedAt = (path) => {
  try {
    return statSync(path).mtimeMs
  } catch {
    return Number.NEGATIVE_INFINITY
  }
}

/**
 * The native programs whose sources are newer than what was built of them.
 *
 * @type {() => Array<{ readonly target: string, readonly sources: ReadonlyArray<string> }>}
 */
const staleTargets = () => {
  const headers = ["agent", "host", "common"].flatMap((name) =>
    filesBelow(join(native, name)).filter((path) => path.endsWith(".h"))
  )
  return ["agent", "host"].flatMap((name) => {
    const sources = filesBelow(join(native, name)).filter((path) => path.endsWith(".c"))
    const target = join(native, "build", `fiberbox-${name}`)
    const newest = Math.max(
      ...[...sources, ...headers, flagsFile, fileURLToPath(import.meta.url)].map(modifiedAt)
    )
    return sources.length > 0 && modifiedAt(target) < newest ? [{ target, sources }] : []
  })
}

/**
 * @typedef {{ readonly ok: boolean, readonly output: string }} Compilation
 * @type {(target: string, sources: ReadonlyArray<string>) => Promise<Compilation>}
 */
const compile = async (target, sources) => {
  // Built beside and renamed: a running sandbox keeps the program it has, and two setups at once do no harm.
  const temporary = `${target}.${process.pid}`
  const result = await run("cc", [...flags, "-o", temporary, ...sources])
  if (result.ok) renameSync(temporary, target)
  else rmSync(temporary, { force: true })
  return result
}

/**
 * Compiles what is stale. True when all of it is built.
 *
 * @type {(stale: ReturnType<typeof staleTargets>) => Promise<boolean>}
 */
const compileNative = async (stale) => {
  if (stale.length === 0) return true
  mkdirSync(join(native, "build"), { recursive: true })
  const start = performance.now()
  const names = stale.map(({ target }) => relative(root, target)).join(" and ")
  const compileAll = () => Promise.all(stale.map(({ sources, target }) => compile(target, sources)))
  let results = await compileAll()
  const lacksLibrary = results.some(({ output }) =>
    /cannot find -lc\b|No such file or directory/.test(output)
  )
  if (lacksLibrary && canInstall) {
    // A compiler may be there without the C library's headers and archive.
    if ((await provide([compiler])) !== "installed") return false
    results = await compileAll()
  }
  const failed = results.filter(({ ok }) => !ok)
  for (const { output } of failed) problem(`compiling the native parts failed:\n${output}`.trimEnd())
  if (failed.length > 0) return false
  for (const { output } of results) if (output !== "") console.error(output.trimEnd())
  done(`compiled ${names} (${seconds(start)})`)
  return true
}

/**
 * Joins the modules of the command line, so that it starts faster. It runs without that too, only slower: where the
 * bundler is not installed, nothing is said.
 *
 * @type {() => Promise<void>}
 */
const bundleCommandLine = async () => {
  if (!existsSync(join(root, "src/cli.ts")) || !existsSync(join(root, "node_modules/rolldown"))) return
  const { bundleCheckout, isFresh } = await import("./bundle.js")
  if (isFresh()) return
  const start = performance.now()
  try {
    await bundleCheckout()
    done(`bundled the command line (${seconds(start)})`)
  } catch (error) {
    problem(`the command line could not be bundled and starts slower: ${error}`)
  }
}

/**
 * True unless something was tried and failed.
 *
 * @type {() => Promise<boolean>}
 */
const setup = async () => {
  await bundleCommandLine()
  if (process.platform !== "linux") {
    problem(
      `containers need Linux and this is ${process.platform}; the memory backend and remote clients work.`
    )
    return true
  }
  const stale = staleTargets()
  const needed = stale.length === 0 ? runtimeParts : [...runtimeParts, compiler]
  const missing = needed.filter((part) => !isOnPath(part.program))
  const provided = missing.length === 0 ? "installed" : await provide(missing)
  if (provided !== "installed" && missing.includes(compiler)) return provided === "missing"
  const compiled = await compileNative(stale)
  if (compiled && provided === "installed" && !quiet) done("the machine is ready: see `npx fiberbox doctor`")
  return compiled && provided !== "failed"
}

process.exitCode = (await setup()) ? 0 : 1
