/**
 * The commands a shell runs itself, and `sh` as a program.
 */
import { Effect, Result } from "effect"
import { exitCodeOf, type Signal } from "../../domain/Process.ts"
import { kill, signalOf } from "./CommandKill.ts"
import { falseCommand, pwd, shellEcho, shellPrintf, trueCommand } from "./CommandsBasic.ts"
import { test } from "./CommandTest.ts"
import { normalize, readAll } from "./Files.ts"
import { decode, errorText } from "./Inode.ts"
import { enterable, forReading, openPath } from "./OpenPath.ts"
import type { Process, Program } from "./Process.ts"
import { type Builtin, type Builtins, Shell } from "./Shell.ts"
import { parseScript } from "./ShellParser.ts"
import { ShellState } from "./ShellState.ts"
import { isName } from "./ShellSyntax.ts"
import { waitFor } from "./Wakeup.ts"

/** A program that the shell runs in its own process. */
const inProcess =
  (program: Program): Builtin =>
  (shell, argv) => {
    const { process, state } = shell
    process.shellPrefix = `${state.name}: 1: `
    return Effect.map(program(process, argv), (status) => {
      process.shellPrefix = ""
      return status
    })
  }

const number = (text: string | undefined, otherwise: number): number =>
  text === undefined || !/^[0-9]+$/.test(text) ? otherwise : Number(text)

const ok = Effect.succeed(0)

const exit: Builtin = ({ state }, [, code]) => {
  state.flow = { type: "exit" }
  return Effect.succeed(number(code, state.status) & 255)
}

const returns: Builtin = ({ state }, [, code]) => {
  state.flow = { type: "return" }
  return Effect.succeed(number(code, state.status) & 255)
}

const leave =
  (type: "break" | "continue"): Builtin =>
  ({ state }, [, levels]) => {
    state.flow = { type, levels: number(levels, 1) }
    return ok
  }

const cd: Builtin = (shell, [, target]) => {
  const { process, state } = shell
  const wanted = target === "-" ? state.variables.get("OLDPWD") : (target ?? state.variables.get("HOME"))
  const path = normalize(process.absolute(wanted ?? "/"))
  const found = enterable(process, path)
  if (Result.isFailure(found)) return shell.complain(`cd: can't cd to ${target ?? path}`, 2)
  state.set("OLDPWD", process.cwd)
  process.cwd = path
  state.set("PWD", path)
  return target === "-" ? Effect.as(process.out(`${path}\n`), 0) : ok
}

const exportCommand: Builtin = (shell, argv) => {
  const { state } = shell
  const names = argv.slice(1).filter((name) => name !== "-p")
  if (names.length === 0) {
    const lines = [...state.environment()].map(([name, value]) => `export ${name}='${value}'\n`)
    return Effect.as(shell.process.out(lines.join("")), 0)
  }
  for (const argument of names) {
    const [name, value] = splitAssignment(argument)
    if (!isName(name)) return shell.complain(`export: ${name}: bad variable name`, 2)
    if (value !== undefined) state.set(name, value)
    state.exported.add(name)
  }
  return ok
}

const splitAssignment = (text: string): readonly [string, string | undefined] => {
  const at = text.indexOf("=")
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

const local: Builtin = ({ state }, argv) => {
  for (const argument of argv.slice(1)) {
    const [name, value] = splitAssignment(argument)
    state.makeLocal(name)
    if (value !== undefined) state.set(name, value)
  }
  return ok
}

const unset: Builtin = ({ state }, argv) => {
  for (const name of argv.slice(1)) {
    if (name === "-v" || name === "-f") continue
    state.unset(name)
    state.functions.delete(name)
  }
  return ok
}

const set: Builtin = ({ state }, argv) => {
  for (let at = 1; at < argv.length; at++) {
    const option = argv[at] ?? ""
    if (option === "--" || !/^[-+]/.test(option)) {
      state.positional = argv.slice(option === "--" ? at + 1 : at)
      return ok
    }
    if (option === "-o" || option === "+o") {
      at++
      if (argv[at] === "errexit") state.errexit = option === "-o"
      continue
    }
    const on = option.startsWith("-")
    if (option.includes("e")) state.errexit = on
    if (option.includes("u")) state.nounset = on
    if (option.includes("x")) state.xtrace = on
  }
  return ok
}

const shift: Builtin = (shell, [, count]) => {
  const { state } = shell
  const by = number(count, 1)
  if (by > state.positional.length) return shell.abort("shift: can't shift that many", 2)
  state.positional = state.positional.slice(by)
  return ok
}

const read: Builtin = Effect.fnUntraced(function* (shell: Shell, argv: ReadonlyArray<string>) {
  const { process, state } = shell
  const names = argv.slice(1).filter((name) => !name.startsWith("-"))
  const bytes: Array<number> = []
  let ended = false
  for (;;) {
    // Byte by byte: what follows the line belongs to whoever reads next.
    const data = yield* process.read(0, 1)
    const byte = data[0]
    ended = byte === undefined
    if (byte === undefined || byte === 10) break
    bytes.push(byte)
    yield* countLine(process, bytes.length)
  }
  const words = decode(Uint8Array.from(bytes))
    .trim()
    .split(/[ \t]+/)
  const targets = names.length === 0 ? ["REPLY"] : names
  targets.forEach((name, index) => {
    const last = index === targets.length - 1
    state.set(name, (last ? words.slice(index).join(" ") : words[index]) ?? "")
  })
  return ended ? 1 : 0
})

/** A line is memory, too; counted now and then. */
const countLine = (process: Process, length: number): Effect.Effect<void> =>
  length % 65_536 === 0 ? process.allocate(65_536) : Effect.void

const evaluate: Builtin = (shell, argv) => shell.source(argv.slice(1).join(" "))

const dot: Builtin = Effect.fnUntraced(function* (shell: Shell, argv: ReadonlyArray<string>) {
  const { process } = shell
  const path = argv[1] ?? ""
  const file = openPath(process, path, forReading)
  if (Result.isFailure(file)) {
    const { reason } = file.failure
    return yield* shell.abort(
      `.: cannot open ${path}: ${reason === "not-found" ? "No such file" : errorText[reason]}`,
      2
    )
  }
  process.setFile(scriptFd, file.success)
  const text = decode(yield* process.readAll(scriptFd))
  process.closeFile(scriptFd)
  shell.state.status = 0
  return yield* shell.source(text)
})

/** A descriptor no script uses itself. */
const scriptFd = 255

const wait: Builtin = Effect.fnUntraced(function* (shell: Shell, argv: ReadonlyArray<string>) {
  const { process } = shell
  const pids = argv.slice(1).map(Number)
  let status = 0
  const wanted = [...process.children].filter((child) => pids.length === 0 || pids.includes(child.pid))
  if (pids.length > wanted.length) status = 127
  for (const child of wanted) {
    // A signal with a command ends the wait.
    const ended = yield* waitFor(
      process.changed,
      () => child.status ?? (shell.trapped.length > 0 ? "trap" : undefined)
    )
    if (ended === "trap") return 130
    yield* process.wait(child)
    if (pids.length === 0) continue
    yield* shell.announce(ended)
    status = exitCodeOf(ended)
  }
  return status
})

const trap: Builtin = (shell, argv) => {
  const { process, state } = shell
  const [, command = "", ...names] = argv
  const reset = command === "-" || names.length === 0
  for (const name of names.length === 0 ? argv.slice(1) : names) {
    const signal = name === "0" || name === "EXIT" ? "EXIT" : signalOf(name)
    if (signal === undefined) return shell.complain(`trap: ${name}: bad trap`, 1)
    if (reset) state.traps.delete(signal)
    else state.traps.set(signal, command)
    if (signal !== "EXIT") dispose(shell, process, signal, reset ? undefined : command)
  }
  return ok
}

const dispose = (shell: Shell, process: Process, signal: Signal, command: string | undefined): void => {
  if (command === undefined) process.dispositions.delete(signal)
  else process.dispositions.set(signal, command === "" ? "ignore" : () => shell.trapped.push(command))
}

const execute: Builtin = (shell, argv) => {
  if (argv.length === 1) return ok
  const { process, state } = shell
  const found = process.kernel.load(argv.slice(1), {
    cwd: process.cwd,
    path: state.variables.get("PATH"),
    uid: process.uid
  })
  if (Result.isFailure(found)) return shell.abort(`exec: ${argv[1] ?? ""}: not found`, 127)
  process.argv = found.success.argv
  process.env = state.environment()
  state.traps.clear()
  state.flow = { type: "exit" }
  return found.success.program(process, found.success.argv)
}

const command: Builtin = (shell, argv) => {
  if (argv[1] === "-v" || argv[1] === "-V")
    return Effect.map(which(shell, argv[2] ?? ""), (found) => (found ? 0 : 127))
  const builtin = shell.builtins.all.get(argv[1] ?? "")
  if (builtin !== undefined) return builtin(shell, argv.slice(1))
  return shell.source(argv.slice(1).map(quote).join(" "))
}

const type: Builtin = (shell, argv) => Effect.map(which(shell, argv[1] ?? ""), (found) => (found ? 0 : 127))

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

const which = (shell: Shell, name: string): Effect.Effect<boolean> => {
  const { process, state, builtins } = shell
  if (state.functions.has(name) || builtins.all.has(name)) return Effect.as(process.out(`${name}\n`), true)
  for (const directory of (state.variables.get("PATH") ?? "").split(":")) {
    const path = name.includes("/") ? name : `${directory}/${name}`
    const found = process.kernel.load([path], { cwd: process.cwd, path: undefined, uid: process.uid })
    if (Result.isSuccess(found)) return Effect.as(process.out(`${path}\n`), true)
  }
  return Effect.succeed(false)
}

/** What the shell runs itself. */
export const shellBuiltins: Builtins = {
  special: new Set([
    ":",
    ".",
    "break",
    "continue",
    "eval",
    "exec",
    "exit",
    "export",
    "return",
    "set",
    "shift",
    "trap",
    "unset"
  ]),
  all: new Map<string, Builtin>([
    [":", () => ok],
    [".", dot],
    ["source", dot],
    ["break", leave("break")],
    ["continue", leave("continue")],
    ["eval", evaluate],
    ["exec", execute],
    ["exit", exit],
    ["export", exportCommand],
    ["readonly", exportCommand],
    ["return", returns],
    ["set", set],
    ["shift", shift],
    ["trap", trap],
    ["unset", unset],
    ["cd", cd],
    ["command", command],
    ["type", type],
    ["local", local],
    ["read", read],
    ["wait", wait],
    ["umask", () => ok],
    ["echo", inProcess(shellEcho)],
    ["printf", inProcess(shellPrintf)],
    ["pwd", inProcess(pwd)],
    ["test", inProcess(test)],
    ["[", inProcess(test)],
    ["true", inProcess(trueCommand)],
    ["false", inProcess(falseCommand)],
    ["kill", inProcess(kill)]
  ])
}

// --- the program --------------------------------------------------------------

/** `sh [-lceuxi] [-c script [name [args]]] [file [args]]`; without either it reads commands from standard input. */
export const sh: Program = (process, argv) => {
  const options = argv
    .slice(1)
    .filter((_, index, rest) => rest.slice(0, index + 1).every((one) => /^-./.test(one)))
  const flags = options.filter((option) => !option.startsWith("--")).join("")
  const rest = argv.slice(1 + options.length)
  const shellName = argv[0] ?? "sh"
  const hasScript = flags.includes("c")
  const name = (hasScript ? rest[1] : rest[0]) ?? shellName
  const state = new ShellState(process, name, rest.slice(hasScript ? 2 : 1))
  state.errexit = flags.includes("e")
  state.nounset = flags.includes("u")
  state.xtrace = flags.includes("x")
  const shell = new Shell(state, shellBuiltins)
  const login = flags.includes("l") || shellName.startsWith("-") ? loadProfiles(shell) : Effect.void
  const interactive = flags.includes("i") || process.files.get(0)?.terminal === true
  const run = hasScript
    ? shell.source(rest[0] ?? "", true)
    : rest[0] !== undefined
      ? runFile(shell, rest[0])
      : readCommands(shell, interactive)
  return Effect.flatMap(login, () => Effect.flatMap(run, () => shell.finish()))
}

const loadProfiles = Effect.fnUntraced(function* (shell: Shell) {
  const { process, state } = shell
  for (const file of ["/etc/profile", `${state.variables.get("HOME") ?? ""}/.profile`]) {
    const text = readAll(process.kernel.tree, process.absolute(file), process.uid)
    if (Result.isSuccess(text)) yield* shell.source(decode(text.success))
  }
})

const runFile = (shell: Shell, file: string): Effect.Effect<number> => {
  const { process } = shell
  const text = readAll(process.kernel.tree, process.absolute(file), process.uid)
  if (Result.isSuccess(text)) return shell.source(decode(text.success), true)
  return shell.complain(
    `cannot open ${file}: ${text.failure.reason === "not-found" ? "No such file" : errorText[text.failure.reason]}`,
    2
  )
}

/** Commands from standard input, each run as soon as it is complete; interactive ones behind a prompt. */
const readCommands = Effect.fnUntraced(function* (shell: Shell, interactive: boolean) {
  const { process, state } = shell
  const prompt = (name: string, otherwise: string) =>
    interactive ? process.err(state.variables.get(name) ?? otherwise) : Effect.void
  if (interactive) process.dispositions.set("SIGINT", () => {})
  let text = ""
  yield* prompt("PS1", process.uid === 0 ? "# " : "$ ")
  for (;;) {
    const line = yield* readLine(process)
    text += line
    const script = parseScript(text)
    if (Result.isFailure(script) && script.failure.incomplete && line !== "") {
      yield* prompt("PS2", "> ")
      continue
    }
    if (text !== "") yield* shell.source(text)
    text = ""
    if (interactive && Result.isFailure(script)) state.flow = undefined
    if (line === "" || state.flow !== undefined) return state.status
    yield* prompt("PS1", process.uid === 0 ? "# " : "$ ")
  }
})

const readLine = Effect.fnUntraced(function* (process: Process) {
  const bytes: Array<number> = []
  for (;;) {
    const byte = (yield* process.read(0, 1))[0]
    if (byte === undefined) break
    bytes.push(byte)
    yield* countLine(process, bytes.length)
    if (byte === 10) break
  }
  return decode(Uint8Array.from(bytes))
})
