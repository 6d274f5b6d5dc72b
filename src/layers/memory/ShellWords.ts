/**
 * What the words of a command become: command substitutions run, then everything
 * else expanded by the shell's state.
 */
import { Effect } from "effect"
import { exitCodeOf } from "../../domain/Process.ts"
import { decode } from "./Inode.ts"
import { Pipe, pipeEnds } from "./OpenFile.ts"
import { concat } from "./Process.ts"
import type { Shell } from "./Shell.ts"
import type { Substitutions } from "./ShellState.ts"
import type { Script, Word } from "./ShellSyntax.ts"

/** The fields that words become. */
export const expandAll = Effect.fnUntraced(function* (shell: Shell, words: ReadonlyArray<Word>) {
  const substitutions = yield* substitute(shell, words)
  return words.flatMap((word) => shell.state.fields(word, substitutions))
})

const noSubstitutions: Substitutions = new Map()

/** Runs the command substitutions in words. */
export const substitute = (shell: Shell, words: ReadonlyArray<Word>): Effect.Effect<Substitutions> => {
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
  const child = shell.fork(files, (subshell) => subshell.script(script, true))
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
    yield* process.allocate(data.length)
  }
  process.closeFile(descriptor)
  process.memory -= chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  const status = yield* process.wait(child)
  yield* shell.announce(status)
  state.status = exitCodeOf(status)
  return decode(concat(chunks)).replace(/\n+$/, "").replace(/\0/g, "")
})
