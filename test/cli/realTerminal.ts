/**
 * A real terminal, by node-pty, with a shell of this machine on it that runs
 * `fiberbox`.
 */
import * as pty from "@lydell/node-pty"
import { Effect, type Scope } from "effect"
import { Served } from "./served.ts"
import { bin, eventually } from "./support.ts"

export interface RealTerminal {
  /** All that it has shown so far. */
  readonly screen: () => string
  /** Waits until something is shown; what was shown before the last call of this does not count. */
  readonly shows: (text: string | RegExp) => Effect.Effect<string>
  readonly type: (keys: string) => Effect.Effect<void>
  /** Types a key, and again as a person would, until something is shown: while a shell gives the terminal away, a key is nobody's. */
  readonly press: (key: string, text: string) => Effect.Effect<string>
  readonly resize: (rows: number, cols: number) => Effect.Effect<void>
  readonly pid: number
  /** Its exit code. */
  readonly ended: Effect.Effect<number>
}

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

/** A command line of fiberbox for a shell. */
export const line = (args: ReadonlyArray<string>): string =>
  [process.execPath, bin, ...args].map(quote).join(" ")

/** Runs a script on a terminal of 24 rows and 80 columns; it is killed with the scope. */
export const onRealTerminal = (script: string): Effect.Effect<RealTerminal, never, Served | Scope.Scope> =>
  Effect.flatMap(Served, ({ baseDir }) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const env = { ...process.env, NODE_OPTIONS: "", FIBERBOX_BASE_DIR: baseDir, TERM: "xterm-256color" }
        return pty.spawn("/bin/sh", ["-c", script], { name: "xterm-256color", rows: 24, cols: 80, env })
      }),
      (terminal) =>
        Effect.sync(() => {
          try {
            process.kill(-terminal.pid, "SIGKILL")
          } catch {
            // It has ended by itself.
          }
        })
    )
  ).pipe(
    Effect.map((terminal) => {
      let shown = ""
      let seen = 0
      let exitCode: number | undefined
      terminal.onData((data) => {
        shown += data
      })
      terminal.onExit((exit) => {
        exitCode = exit.exitCode
      })
      const find = (text: string | RegExp) => {
        const rest = shown.slice(seen)
        const [found] =
          typeof text === "string" ? [rest.includes(text) ? text : undefined] : (text.exec(rest) ?? [])
        if (found !== undefined) {
          seen += rest.indexOf(found) + found.length
          return found
        }
        if (exitCode !== undefined) throw new Error(`it ended with ${exitCode} without ${text}:\n${shown}`)
        return undefined
      }
      const shows = (text: string | RegExp) => eventually(() => find(text))
      const type = (keys: string) => Effect.sync(() => terminal.write(keys))
      const press = (key: string, text: string): Effect.Effect<string> =>
        Effect.andThen(
          type(key),
          Effect.timeoutOrElse(shows(text), { duration: "2 seconds", orElse: () => press(key, text) })
        )
      return {
        screen: () => shown,
        shows,
        type,
        press,
        resize: (rows, cols) => Effect.sync(() => terminal.resize(cols, rows)),
        pid: terminal.pid,
        ended: eventually(() => exitCode)
      }
    })
  )
