/**
 * Simple commands: words, assignments and redirections that run a function, a
 * builtin of the shell or a program.
 */
import { Effect, Result } from "effect"
import { exitCodeOf } from "../../domain/Process.ts"
import { encode } from "./Inode.ts"
import type { Loaded } from "./Kernel.ts"
import type { Program } from "./Process.ts"
import type { Shell } from "./Shell.ts"
import { keepRedirects, openRedirects, type Redirected, withRedirects } from "./ShellRedirects.ts"
import type { Command, Redirect } from "./ShellSyntax.ts"
import { expandAll, substitute } from "./ShellWords.ts"

type Simple = Extract<Command, { readonly type: "simple" }>

/** As dash has it. */
const maxDepth = 1000

/** Runs assignments, a function, a builtin or a program. */
export const runSimple = Effect.fnUntraced(function* (
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
  if (shell.depth >= maxDepth) {
    return yield* shell.abort(`Maximum function recursion depth (${maxDepth}) reached`, 2)
  }
  shell.depth++
  const before = state.positional
  state.positional = argv.slice(1)
  const locals = state.enterFunction()
  yield* shell.command(body, false)
  locals()
  state.positional = before
  shell.depth--
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
