/**
 * What a running shell remembers, and what its words mean by that.
 */
import { Result } from "effect"
import type { Process } from "./Process.ts"
import { arithmetic } from "./ShellArithmetic.ts"
import { cut, escape, glob, isPattern, unescape } from "./ShellGlob.ts"
import type { Command, Part, Word } from "./ShellSyntax.ts"

/** Why commands are not gone on with. */
export type Flow =
  | { readonly type: "exit" }
  | { readonly type: "return" }
  | { readonly type: "break" | "continue"; readonly levels: number }

/** The results of a word's command substitutions, found before it is expanded. */
export type Substitutions = ReadonlyMap<Part, string>

/** The variables of one shell, and everything else that a subshell gets a copy of. */
export class ShellState {
  readonly process: Process
  readonly name: string
  readonly variables: Map<string, string>
  readonly exported: Set<string>
  readonly functions: Map<string, Command>
  positional: ReadonlyArray<string>
  status = 0
  lastBackground: number | undefined = undefined
  flow: Flow | undefined = undefined
  errexit = false
  nounset = false
  xtrace = false
  readonly traps = new Map<string, string>()
  /** An expansion that failed: the shell says so and gives up. */
  failure: string | undefined = undefined

  constructor(process: Process, name: string, positional: ReadonlyArray<string>, from?: ShellState) {
    this.process = process
    this.name = name
    this.positional = positional
    this.variables = new Map(from?.variables ?? process.env)
    this.exported = new Set(from?.exported ?? process.env.keys())
    this.functions = new Map(from?.functions)
    this.status = from?.status ?? 0
    this.lastBackground = from?.lastBackground
    this.errexit = from?.errexit ?? false
    this.nounset = from?.nounset ?? false
    this.xtrace = from?.xtrace ?? false
    this.variables.set("PWD", process.cwd)
  }

  get(name: string): string | undefined {
    switch (name) {
      case "?":
        return String(this.status)
      case "$":
        return this.variables.get("$") ?? String(this.process.pid)
      case "!":
        return this.lastBackground === undefined ? undefined : String(this.lastBackground)
      case "#":
        return String(this.positional.length)
      case "@":
      case "*":
        return this.positional.length === 0 ? undefined : this.positional.join(" ")
      case "-":
        return this.errexit ? "e" : ""
      case "0":
        return this.name
      case "PPID":
        return String(this.process.parentPid)
      case "LINES":
        return this.variables.get(name) ?? sizeText(this.process.execution.terminal?.size.rows)
      case "COLUMNS":
        return this.variables.get(name) ?? sizeText(this.process.execution.terminal?.size.cols)
      default:
        return /^[0-9]+$/.test(name) ? this.positional[Number(name) - 1] : this.variables.get(name)
    }
  }

  set(name: string, value: string): void {
    this.variables.set(name, value)
  }

  unset(name: string): void {
    this.variables.delete(name)
    this.exported.delete(name)
  }

  private locals: Map<string, string | undefined> | undefined = undefined

  /** Begins a function: gives what ends it, bringing back the variables it made local. */
  enterFunction(): () => void {
    const outer = this.locals
    const locals = new Map<string, string | undefined>()
    this.locals = locals
    return () => {
      this.locals = outer
      for (const [name, value] of locals) {
        if (value === undefined) this.unset(name)
        else this.set(name, value)
      }
    }
  }

  /** Makes a variable local to the function that runs; false outside of functions. */
  makeLocal(name: string): boolean {
    if (this.locals === undefined) return false
    if (!this.locals.has(name)) this.locals.set(name, this.variables.get(name))
    return true
  }

  /** The environment of programs it starts. */
  environment(): Map<string, string> {
    const env = new Map<string, string>()
    for (const name of this.exported) {
      const value = this.variables.get(name)
      if (value !== undefined) env.set(name, value)
    }
    return env
  }

  // --- words ----------------------------------------------------------------

  /** A word as one text, neither split nor matched against files. */
  text(word: Word, substitutions: Substitutions): string {
    return unescape(this.pattern(word, substitutions))
  }

  /** A word as one pattern: what was quoted in it is escaped. */
  pattern(word: Word, substitutions: Substitutions): string {
    let out = ""
    word.forEach((part, index) => {
      if (part.type === "text") {
        const text = index === 0 && !part.quoted ? this.tilde(part.text) : part.text
        out += part.quoted ? escape(text) : text.replace(/\\/g, "\\\\")
      } else {
        const value = this.value(part, substitutions)
        out += part.quoted ? escape(value) : value.replace(/\\/g, "\\\\")
      }
    })
    return out
  }

  /** The fields a word becomes: split at blanks, patterns replaced by the files they name. */
  fields(word: Word, substitutions: Substitutions): ReadonlyArray<string> {
    const fields: Array<string> = []
    let field = ""
    let present = false
    const finish = () => {
      if (present) fields.push(field)
      field = ""
      present = false
    }
    const separators = this.variables.get("IFS") ?? " \t\n"
    const split = (value: string) => {
      for (const char of value) {
        if (!separators.includes(char)) {
          field += char === "\\" ? "\\\\" : char
          present = true
        } else {
          if (char.trim() !== "") present = true
          finish()
        }
      }
    }
    word.forEach((part, index) => {
      if (part.type === "text") {
        const text = index === 0 && !part.quoted ? this.tilde(part.text) : part.text
        field += part.quoted ? escape(text) : text.replace(/\\/g, "\\\\")
        present = true
      } else if (
        part.type === "variable" &&
        (part.name === "@" || part.name === "*") &&
        part.operator === ""
      ) {
        if (part.quoted && part.name === "*") {
          field += escape(this.positional.join(separators.slice(0, 1)))
          present = true
          return
        }
        this.positional.forEach((value, position) => {
          if (position > 0) finish()
          if (part.quoted) {
            field += escape(value)
            present = true
          } else split(value)
        })
      } else {
        const value = this.value(part, substitutions)
        if (part.quoted) {
          field += escape(value)
          present = true
        } else split(value)
      }
    })
    finish()
    return fields.flatMap((pattern) => this.files(pattern))
  }

  private files(pattern: string): ReadonlyArray<string> {
    if (!isPattern(pattern)) return [unescape(pattern)]
    const { kernel, cwd, uid } = this.process
    const found = glob(kernel.tree, cwd, uid, pattern)
    return found.length > 0 ? found : [unescape(pattern)]
  }

  private tilde(text: string): string {
    return text === "~" || text.startsWith("~/")
      ? `${this.variables.get("HOME") ?? "~"}${text.slice(1)}`
      : text
  }

  private value(part: Exclude<Part, { readonly type: "text" }>, substitutions: Substitutions): string {
    switch (part.type) {
      case "command":
        return substitutions.get(part) ?? ""
      case "arithmetic":
        return this.arithmetic(this.text(part.word, substitutions))
      case "variable":
        return this.variable(part, substitutions)
    }
  }

  private arithmetic(text: string): string {
    const value = arithmetic(text, {
      get: (name) => this.get(name) ?? "",
      set: (name, result) => this.set(name, result)
    })
    if (Result.isSuccess(value)) return String(value.success)
    this.failure ??= value.failure
    return ""
  }

  private variable(part: Extract<Part, { readonly type: "variable" }>, substitutions: Substitutions): string {
    const { name, operator } = part
    const value = this.get(name)
    const missing = value === undefined || (operator.startsWith(":") && value === "")
    switch (operator.replace(":", "")) {
      case "-":
        return missing ? this.text(part.word, substitutions) : value
      case "+":
        return missing ? "" : this.text(part.word, substitutions)
      case "=": {
        if (!missing) return value
        const assigned = this.text(part.word, substitutions)
        this.set(name, assigned)
        return assigned
      }
      case "?":
        if (!missing) return value
        this.failure ??= `${name}: ${this.text(part.word, substitutions) || "parameter not set"}`
        return ""
    }
    if (value === undefined && this.nounset && name !== "@" && name !== "*") {
      this.failure ??= `${name}: parameter not set`
    }
    const text = value ?? ""
    switch (operator) {
      case "length":
        return String([...text].length)
      case "%":
      case "%%":
      case "#":
      case "##":
        return cut(
          text,
          this.pattern(part.word, substitutions),
          operator.startsWith("%"),
          operator.length === 2
        )
      default:
        return text
    }
  }
}

const sizeText = (size: number | undefined): string | undefined =>
  size === undefined ? undefined : String(size)
