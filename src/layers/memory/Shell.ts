/**
 * The shell: runs scripts as processes of an in-memory machine.
 */
import { Effect, Result } from "effect"
import { type ExitStatus, exitCodeOf } from "../../domain/Process.ts"
import { type OpenFile, Pipe, pipeEnds } from "./OpenFile.ts"
import { forReading, openPath } from "./OpenPath.ts"
import type { Process } from "./Process.ts"
import { matches } from "./ShellGlob.ts"
import { parseScript } from "./ShellParser.ts"
import { openRedirects, release, withRedirects } from "./ShellRedirects.ts"
import { runSimple } from "./ShellSimple.ts"
import { ShellState } from "./ShellState.ts"
import type { AndOr, Command, Pipeline, Script } from "./ShellSyntax.ts"
import { expandAll, substitute } from "./ShellWords.ts"

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
  /** Functions that call each other at the moment. */
  depth = 0
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

  script(script: Script, final: boolean): Effect.Effect<number> {
    return runScript(this, script, final)
  }

  command(command: Command, final: boolean): Effect.Effect<number> {
    return runCommand(this, command, final)
  }

  /** Starts a subshell as a process of its own; undefined when the machine has no room for one. */
  fork(
    files: ReadonlyMap<number, OpenFile>,
    run: (subshell: Shell) => Effect.Effect<number>
  ): Process | undefined {
    return fork(this, files, run)
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
