/**
 * Redirections of a shell's commands: files opened for them, for the time of a
 * command or for good.
 */
import { Effect, Result } from "effect"
import { encode, errorText } from "./Inode.ts"
import { type OpenFile, Pipe, pipeEnds } from "./OpenFile.ts"
import { forAppending, forReading, forWriting, openPath } from "./OpenPath.ts"
import type { Process } from "./Process.ts"
import type { Shell } from "./Shell.ts"
import type { Redirect } from "./ShellSyntax.ts"
import { substitute } from "./ShellWords.ts"

/** Lets go of a file that was held. */
export const release = (file: OpenFile | undefined): void => {
  if (file === undefined) return
  file.refs--
  if (file.refs === 0) file.close()
}

/** Descriptors with redirections applied. */
export interface Redirected {
  /** All descriptors as the command shall have them. */
  readonly files: Map<number, OpenFile>
  /** Lets go of what was opened, once the command has it. */
  readonly release: () => void
}

/** Opens redirections; undefined when one failed, which has been said. */
export const openRedirects = Effect.fnUntraced(function* (shell: Shell, redirects: ReadonlyArray<Redirect>) {
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
export const withRedirects = Effect.fnUntraced(function* (
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
export const keepRedirects = Effect.fnUntraced(function* (shell: Shell, redirects: ReadonlyArray<Redirect>) {
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
