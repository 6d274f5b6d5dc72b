/**
 * The shell: runs scripts as processes of an in-memory machine.
 */
import { Effect, Result } from "effect"
import { type ExitStatus, exitCodeOf } from "../../domain/Process.ts"
import { decode, encode, errorText } from "./Inode.ts"
import type { Loaded } from "./Kernel.ts"
import { type OpenFile, Pipe, pipeEnds } from "./OpenFile.ts"
import { forAppending, forReading, forWriting, openPath } from "./OpenPath.ts"
import { concat, type Process, type Program } from "./Process.ts"
import { matches } from "./ShellGlob.ts"
import { parseScript } from "./ShellParser.ts"
import { ShellState, type Substitutions } from "./ShellState.ts"
import type { AndOr, Command, Pipeline, Redirect, Script, Word } from "./ShellSyntax.ts"

type Simple = Extract<Command, { readonly type: "simple" }>

/** What strsignal(3) says; of interrupts and broken pipes nothing is said. */
const signalText: { readonly [signal: string]: string } = {
  SIGHUP: "Hangup",
  SIGQUIT: "Quit",
  SIGKILL: "Killed",
  SIGUSR1: "User defined signal 1",
  SIGUSR2: "User defined signal 2",
  SIGTERM: "Terminated"
}

/** A command the shell runs itself. */
export type Builtin = (shell: Shell, argv: ReadonlyArray<string>) => Effect.Effect<number>

/** The commands a shell runs itself; special ones keep the variables set before them. */
export interface Builtins {
  readonly all: ReadonlyMap<string, Builtin>
  readonly special: ReadonlySet<string>
}

/** One shell: its state, and whether its failures are answers at the moment. */
export class Shell {
  readonly state: ShellState
  readonly builtins: Builtins
  /** More than 0 inside a condition, where a failure does not end the shell. */
  conditions = 0
  /** Commands of signals that have come. */
  readonly trapped: Array<string> = []

  constructor(state: ShellState, builtins: Builtins) {
    this.state = state
    this.builtins = builtins
  }

  get process(): Process {
    return this.state.process
  }

  /** Prints a message as dash does, and gives the status. */
  complain(message: string, status: number): Effect.Effect<number> {
    this.state.status = status
    return Effect.as(this.process.err(`${this.state.name}: 1: ${message}\n`), status)
  }

  /** Complains, and gives the shell up. */
  abort(message: string, status: number): Effect.Effect<number> {
    this.state.flow = { type: "exit" }
    return this.complain(message, status)
  }

  /** Says how a child was ended by a signal, as dash does. */
  announce(status: ExitStatus): Effect.Effect<unknown> {
    if (status._tag === "Exited") return Effect.void
    const text = signalText[status.signal]
    return text === undefined ? Effect.void : this.process.err(`${text}\n`)
  }

  /** Runs a script's text. `final`: nothing comes after it, so its last program may take the shell's place. */
  source(text: string, final = false): Effect.Effect<number> {
    const script = parseScript(text)
    return Result.isSuccess(script)
      ? runScript(this, script.success, final)
      : this.abort(script.failure.message, 2)
  }

  /** Runs what `trap ... EXIT` left to be done. */
  finish(): Effect.Effect<number> {
    const { state } = this
    const command = state.traps.get("EXIT")
    const { status } = state
    if (command === undefined) return Effect.succeed(status)
    state.traps.delete("EXIT")
    state.flow = undefined
    return Effect.map(this.source(command), () => (state.flow === undefined ? status : state.status))
  }
}

// --- lists ------------------------------------------------------------------

const runScript = Effect.fnUntraced(function* (shell: Shell, script: Script, final: boolean) {
  const { state } = shell
  for (let index = 0; index < script.length; index++) {
    const item = script[index]
    if (item === undefined) break
    if (item.background) yield* runBackground(shell, item.andOr)
    else yield* runAndOr(shell, item.andOr, final && index === script.length - 1)
    if (shell.trapped.length > 0) yield* runTraps(shell)
    if (state.flow !== undefined) break
  }
  return state.status
})

const runTraps = Effect.fnUntraced(function* (shell: Shell) {
  const { status } = shell.state
  for (const command of shell.trapped.splice(0)) {
    yield* shell.source(command)
    if (shell.state.flow !== undefined) return
  }
  shell.state.status = status
})

const runAndOr = Effect.fnUntraced(function* (shell: Shell, andOr: AndOr, final: boolean) {
  const { state } = shell
  const count = andOr.rest.length
  yield* runPipeline(shell, andOr.first, final && count === 0, count > 0)
  for (let index = 0; index < count; index++) {
    const next = andOr.rest[index]
    if (next === undefined || state.flow !== undefined) break
    if ((state.status === 0) !== (next.operator === "&&")) continue
    const last = index === count - 1
    yield* runPipeline(shell, next.pipeline, final && last, !last)
  }
  return state.status
})

const runPipeline = Effect.fnUntraced(function* (
  shell: Shell,
  pipeline: Pipeline,
  final: boolean,
  isCondition: boolean
) {
  const { state } = shell
  const tolerant = isCondition || pipeline.negated
  if (tolerant) shell.conditions++
  const [only] = pipeline.commands
  if (pipeline.commands.length === 1 && only !== undefined) yield* runCommand(shell, only, final && !tolerant)
  else yield* runPipes(shell, pipeline.commands)
  if (tolerant) shell.conditions--
  if (pipeline.negated && state.flow === undefined) state.status = state.status === 0 ? 1 : 0
  const fails = state.errexit && state.status !== 0
  if (fails && !tolerant && shell.conditions === 0) state.flow ??= { type: "exit" }
  return state.status
})

const runPipes = Effect.fnUntraced(function* (shell: Shell, commands: ReadonlyArray<Command>) {
  const { process, state } = shell
  const children: Array<Process> = []
  let input: OpenFile | undefined
  for (const [index, command] of commands.entries()) {
    const files = new Map(process.files)
    const ends = index < commands.length - 1 ? pipeEnds(new Pipe(process.kernel.schedule)) : undefined
    // Held until the child has them, so that no end seems closed in between.
    if (ends !== undefined) {
      ends.reader.refs++
      ends.writer.refs++
      files.set(1, ends.writer)
    }
    if (input !== undefined) files.set(0, input)
    const child = fork(shell, files, (subshell) => runCommand(subshell, command, true))
    release(input)
    release(ends?.writer)
    input = ends?.reader
    if (child === undefined) {
      release(input)
      return yield* shell.abort("Cannot fork", 2)
    }
    children.push(child)
  }
  for (const child of children) {
    const status = yield* process.wait(child)
    yield* shell.announce(status)
    state.status = exitCodeOf(status)
  }
  return state.status
})

const release = (file: OpenFile | undefined): void => {
  if (file === undefined) return
  file.refs--
  if (file.refs === 0) file.close()
}

/** Starts a subshell as a process of its own. */
const fork = (
  shell: Shell,
  files: ReadonlyMap<number, OpenFile>,
  run: (subshell: Shell) => Effect.Effect<number>
): Process | undefined => {
  const { process, state, conditions } = shell
  return process.kernel.spawn(process.execution, process, {
    argv: process.argv,
    env: process.env,
    cwd: process.cwd,
    uid: process.uid,
    files,
    program: (child) => {
      const copy = new ShellState(child, state.name, state.positional, state)
      copy.variables.set("$", state.get("$") ?? "")
      const subshell = new Shell(copy, shell.builtins)
      subshell.conditions = conditions
      return Effect.flatMap(run(subshell), () => subshell.finish())
    }
  })
}

const runBackground = Effect.fnUntraced(function* (shell: Shell, andOr: AndOr) {
  const { process, state } = shell
  const files = new Map(process.files)
  const empty = openPath(process, "/dev/null", forReading)
  if (Result.isSuccess(empty)) files.set(0, empty.success)
  const child = fork(shell, files, (subshell) => runAndOr(subshell, andOr, true))
  if (child === undefined) return yield* shell.abort("Cannot fork", 2)
  child.dispositions.set("SIGINT", "ignore").set("SIGQUIT", "ignore")
  state.lastBackground = child.pid
  state.status = 0
  return 0
})

// --- commands ---------------------------------------------------------------

const runCommand = (shell: Shell, command: Command, final: boolean): Effect.Effect<number> => {
  switch (command.type) {
    case "simple":
      return runSimple(shell, command, final)
    case "function":
      shell.state.functions.set(command.name, command.body)
      shell.state.status = 0
      return Effect.succeed(0)
    case "subshell":
      return runSubshell(shell, command, final)
    default:
      return command.redirects.length === 0
        ? runCompound(shell, command, final)
        : withRedirects(shell, command.redirects, () => runCompound(shell, command, false))
  }
}

const runSubshell = Effect.fnUntraced(function* (
  shell: Shell,
  command: Extract<Command, { readonly type: "subshell" }>,
  final: boolean
) {
  const { process, state } = shell
  // Nothing of this shell is needed afterwards, so it is its own subshell.
  if (final && command.redirects.length === 0 && state.traps.size === 0)
    return yield* runScript(shell, command.body, true)
  const redirected = yield* openRedirects(shell, command.redirects)
  if (redirected === undefined) return state.status
  const child = fork(shell, redirected.files, (subshell) => runScript(subshell, command.body, true))
  redirected.release()
  if (child === undefined) return yield* shell.abort("Cannot fork", 2)
  const status = yield* process.wait(child)
  yield* shell.announce(status)
  state.status = exitCodeOf(status)
  return state.status
})

const runCompound = Effect.fnUntraced(function* (
  shell: Shell,
  command: Exclude<Command, { readonly type: "simple" | "function" | "subshell" }>,
  final: boolean
): Effect.fn.Return<number> {
  const { state } = shell
  switch (command.type) {
    case "group":
      return yield* runScript(shell, command.body, final)
    case "if": {
      for (const branch of command.branches) {
        if (yield* holds(shell, branch.condition)) return yield* runScript(shell, branch.body, final)
        if (state.flow !== undefined) return state.status
      }
      state.status = 0
      return command.otherwise === undefined ? 0 : yield* runScript(shell, command.otherwise, final)
    }
    case "loop": {
      let status = 0
      while ((yield* holds(shell, command.condition)) !== command.until) {
        if (state.flow !== undefined) break
        status = yield* runScript(shell, command.body, false)
        if (leavesLoop(shell)) break
      }
      if (state.flow === undefined) state.status = status
      return state.status
    }
    case "for": {
      const words = command.words === undefined ? state.positional : yield* expandAll(shell, command.words)
      state.status = 0
      for (const word of words) {
        state.set(command.name, word)
        yield* runScript(shell, command.body, false)
        if (leavesLoop(shell)) break
      }
      return state.status
    }
    case "case": {
      const text = state.text(command.word, yield* substitute(shell, [command.word]))
      state.status = 0
      for (const branch of command.branches) {
        const substitutions = yield* substitute(shell, branch.patterns)
        if (branch.patterns.some((pattern) => matches(state.pattern(pattern, substitutions), text))) {
          return yield* runScript(shell, branch.body, final)
        }
      }
      return 0
    }
  }
})

/** Whether a condition succeeds. */
const holds = Effect.fnUntraced(function* (shell: Shell, condition: Script) {
  shell.conditions++
  const status = yield* runScript(shell, condition, false)
  shell.conditions--
  return status === 0
})

/** After a loop's body: whether the loop is over; takes one level off a `break` or `continue`. */
const leavesLoop = ({ state }: Shell): boolean => {
  const { flow } = state
  if (flow === undefined) return false
  if (flow.type !== "break" && flow.type !== "continue") return true
  state.flow = flow.levels > 1 ? { type: flow.type, levels: flow.levels - 1 } : undefined
  return flow.type === "break" || flow.levels > 1
}

// --- simple commands --------------------------------------------------------

const runSimple = Effect.fnUntraced(function* (
  shell: Shell,
  command: Simple,
  final: boolean
): Effect.fn.Return<number> {
  const { state, builtins } = shell
  const substituted = state.status
  const argv = yield* expandAll(shell, command.words)
  const values: Array<readonly [string, string]> = []
  for (const { name, value } of command.assignments) {
    values.push([name, state.text(value, yield* substitute(shell, [value]))])
  }
  if (state.failure !== undefined) return yield* failExpansion(shell)
  if (state.xtrace && argv.length + values.length > 0) {
    yield* shell.process.err(
      `+ ${[...values.map(([name, value]) => `${name}=${value}`), ...argv].join(" ")}\n`
    )
  }
  const [name] = argv
  if (name === undefined) {
    for (const [variable, value] of values) state.set(variable, value)
    if (command.words.length === 0 && !hasSubstitution(command)) state.status = 0
    else if (!hasSubstitution(command)) state.status = substituted
    return command.redirects.length === 0
      ? state.status
      : yield* withRedirects(shell, command.redirects, () => Effect.succeed(state.status))
  }
  const body = state.functions.get(name)
  if (body !== undefined) {
    return yield* withRedirects(shell, command.redirects, () =>
      withVariables(shell, values, callFunction(shell, body, argv))
    )
  }
  if (name === "exec" && argv.length === 1) return yield* keepRedirects(shell, command.redirects)
  const builtin = builtins.all.get(name)
  if (builtin === undefined) return yield* runExternal(shell, argv, values, command.redirects, final)
  const run = Effect.suspend(() => builtin(shell, argv))
  if (builtins.special.has(name)) for (const [variable, value] of values) state.set(variable, value)
  const scoped = builtins.special.has(name) ? run : withVariables(shell, values, run)
  return yield* withRedirects(shell, command.redirects, () =>
    Effect.map(scoped, (status) => {
      state.status = status
      return status
    })
  )
})

const hasSubstitution = (command: Simple): boolean =>
  [...command.words, ...command.assignments.map(({ value }) => value)].some((word) =>
    word.some((part) => part.type === "command")
  )

const failExpansion = (shell: Shell): Effect.Effect<number> => {
  const message = shell.state.failure ?? ""
  shell.state.failure = undefined
  return shell.abort(message, 2)
}

/** Sets variables for the time of one command. */
const withVariables = (
  { state }: Shell,
  values: ReadonlyArray<readonly [string, string]>,
  run: Effect.Effect<number>
): Effect.Effect<number> => {
  if (values.length === 0) return run
  return Effect.suspend(() => {
    const before = values.map(
      ([name]) => [name, state.variables.get(name), state.exported.has(name)] as const
    )
    for (const [name, value] of values) {
      state.set(name, value)
      state.exported.add(name)
    }
    return Effect.map(run, (status) => {
      for (const [name, value, exported] of before) {
        if (value === undefined) state.unset(name)
        else state.set(name, value)
        if (!exported) state.exported.delete(name)
      }
      return status
    })
  })
}

const callFunction = Effect.fnUntraced(function* (shell: Shell, body: Command, argv: ReadonlyArray<string>) {
  const { state } = shell
  const before = state.positional
  state.positional = argv.slice(1)
  const locals = state.enterFunction()
  yield* runCommand(shell, body, false)
  locals()
  state.positional = before
  if (state.flow?.type === "return") state.flow = undefined
  return state.status
})

const runExternal = Effect.fnUntraced(function* (
  shell: Shell,
  argv: ReadonlyArray<string>,
  values: ReadonlyArray<readonly [string, string]>,
  redirects: ReadonlyArray<Redirect>,
  final: boolean
) {
  const { process, state } = shell
  const redirected = yield* openRedirects(shell, redirects)
  if (redirected === undefined) return state.status
  const path = values.findLast(([name]) => name === "PATH")?.[1] ?? state.variables.get("PATH")
  const found = process.kernel.load(argv, { cwd: process.cwd, path, uid: process.uid })
  const loaded = Result.isFailure(found) && found.failure === "not-executable" ? asScript(shell, argv) : found
  if (Result.isFailure(loaded)) {
    const text = loaded.failure === "not-found" ? "not found" : "Permission denied"
    const message = `${state.name}: 1: ${argv[0] ?? ""}: ${text}\n`
    redirected.files.get(2)?.write(encode(message))
    redirected.release()
    state.status = loaded.failure === "not-found" ? 127 : 126
    return state.status
  }
  const env = state.environment()
  for (const [name, value] of values) env.set(name, value)
  if (final && state.traps.size === 0) return yield* replace(shell, loaded.success, env, redirected)
  const child = process.kernel.spawn(process.execution, process, {
    argv: loaded.success.argv,
    env,
    cwd: process.cwd,
    uid: process.uid,
    files: redirected.files,
    program: loaded.success.program
  })
  redirected.release()
  if (child === undefined) return yield* shell.abort("Cannot fork", 2)
  const status = yield* process.wait(child)
  yield* shell.announce(status)
  state.status = exitCodeOf(status)
  return state.status
})

/** A text without `#!` is a script of this shell. */
const asScript = (shell: Shell, argv: ReadonlyArray<string>): Result.Result<Loaded, "not-found"> => {
  const program = shell.process.kernel.programs.get("sh")
  return program === undefined ? Result.fail("not-found") : Result.succeed({ program, argv: ["sh", ...argv] })
}

/** The program takes the shell's place. */
const replace = (
  shell: Shell,
  { program, argv }: { readonly program: Program; readonly argv: ReadonlyArray<string> },
  env: Map<string, string>,
  redirected: Redirected
): Effect.Effect<number> => {
  const { process, state } = shell
  for (const [fd, file] of redirected.files) if (process.files.get(fd) !== file) process.setFile(fd, file)
  for (const fd of [...process.files.keys()]) if (!redirected.files.has(fd)) process.closeFile(fd)
  redirected.release()
  process.argv = argv
  process.env = env
  state.flow = { type: "exit" }
  return Effect.map(program(process, argv), (status) => {
    state.status = status
    return status
  })
}

// --- redirections -----------------------------------------------------------

interface Redirected {
  /** All descriptors as the command shall have them. */
  readonly files: Map<number, OpenFile>
  /** Lets go of what was opened, once the command has it. */
  readonly release: () => void
}

/** Opens redirections; undefined when one failed, which has been said. */
const openRedirects = Effect.fnUntraced(function* (shell: Shell, redirects: ReadonlyArray<Redirect>) {
  const files = new Map(shell.process.files)
  const opened: Array<OpenFile> = []
  const redirected: Redirected = { files, release: () => opened.splice(0).forEach(release) }
  for (const redirect of redirects) {
    const target = shell.state.text(redirect.target, yield* substitute(shell, [redirect.target]))
    const file = openRedirect(shell, files, redirect, target)
    if (typeof file === "string") {
      redirected.release()
      yield* shell.complain(file, 2)
      return undefined
    }
    if (file === undefined) files.delete(redirect.fd)
    else {
      file.refs++
      opened.push(file)
      files.set(redirect.fd, file)
    }
  }
  return redirected
})

/** The file of a redirection, undefined for `>&-`, or a message. */
const openRedirect = (
  shell: Shell,
  files: ReadonlyMap<number, OpenFile>,
  { operator }: Redirect,
  target: string
): OpenFile | undefined | string => {
  const { process } = shell
  if (operator === ">&" || operator === "<&") {
    if (target === "-") return undefined
    return files.get(Number(target)) ?? `${target}: Bad file descriptor`
  }
  if (operator === "<<") {
    const text = encode(target)
    const pipe = new Pipe(process.kernel.schedule, text.length + 1)
    const { reader } = pipeEnds(pipe)
    pipe.write(text)
    pipe.end()
    return reader
  }
  const options =
    operator === "<"
      ? forReading
      : operator === ">>"
        ? forAppending
        : operator === "<>"
          ? { ...forReading, write: true, create: true }
          : forWriting
  const file = openPath(process, target, options)
  if (Result.isSuccess(file)) return file.success
  const { reason } = file.failure
  const missing = options.create ? "Directory nonexistent" : "No such file"
  const text = reason === "not-found" ? missing : errorText[reason]
  return `cannot ${options.create ? "create" : "open"} ${target}: ${text}`
}

/** Runs something of this shell with redirections in force. */
const withRedirects = Effect.fnUntraced(function* (
  shell: Shell,
  redirects: ReadonlyArray<Redirect>,
  run: () => Effect.Effect<number>
): Effect.fn.Return<number> {
  if (redirects.length === 0) return yield* run()
  const { process } = shell
  const redirected = yield* openRedirects(shell, redirects)
  if (redirected === undefined) return shell.state.status
  const before = new Map(process.files)
  for (const file of before.values()) file.refs++
  install(process, redirected.files)
  redirected.release()
  const status = yield* run()
  install(process, before)
  for (const file of before.values()) release(file)
  return status
})

/** `exec` without a program: the redirections stay in force. */
const keepRedirects = Effect.fnUntraced(function* (shell: Shell, redirects: ReadonlyArray<Redirect>) {
  const redirected = yield* openRedirects(shell, redirects)
  if (redirected === undefined) return shell.state.status
  install(shell.process, redirected.files)
  redirected.release()
  shell.state.status = 0
  return 0
})

const install = (process: Process, files: ReadonlyMap<number, OpenFile>): void => {
  for (const [fd, file] of files) if (process.files.get(fd) !== file) process.setFile(fd, file)
  for (const fd of [...process.files.keys()]) if (!files.has(fd)) process.closeFile(fd)
}

// --- words ------------------------------------------------------------------

const expandAll = Effect.fnUntraced(function* (shell: Shell, words: ReadonlyArray<Word>) {
  const substitutions = yield* substitute(shell, words)
  return words.flatMap((word) => shell.state.fields(word, substitutions))
})

const noSubstitutions: Substitutions = new Map()

/** Runs the command substitutions in words. */
const substitute = (shell: Shell, words: ReadonlyArray<Word>): Effect.Effect<Substitutions> => {
  const parts = words.flatMap(substitutionsIn)
  if (parts.length === 0) return Effect.succeed(noSubstitutions)
  return Effect.gen(function* () {
    const results = new Map<Word[number], string>()
    for (const part of parts) results.set(part, yield* capture(shell, part.script))
    return results
  })
}

const substitutionsIn = (word: Word): Array<Extract<Word[number], { readonly type: "command" }>> =>
  word.flatMap((part) =>
    part.type === "command" ? [part] : part.type === "text" ? [] : substitutionsIn(part.word)
  )

/** What a script prints, without the newlines at its end. */
const capture = Effect.fnUntraced(function* (shell: Shell, script: Script) {
  const { process, state } = shell
  const pipe = new Pipe(process.kernel.schedule)
  const { reader, writer } = pipeEnds(pipe)
  const files = new Map(process.files).set(1, writer)
  const child = fork(shell, files, (subshell) => runScript(subshell, script, true))
  if (child === undefined) {
    yield* shell.abort("Cannot fork", 2)
    return ""
  }
  const descriptor = 10 + process.files.size
  process.setFile(descriptor, reader)
  const chunks: Array<Uint8Array> = []
  for (;;) {
    const data = yield* process.read(descriptor)
    if (data.length === 0) break
    chunks.push(data)
  }
  process.closeFile(descriptor)
  const status = yield* process.wait(child)
  yield* shell.announce(status)
  state.status = exitCodeOf(status)
  return decode(concat(chunks)).replace(/\n+$/, "").replace(/\0/g, "")
})
