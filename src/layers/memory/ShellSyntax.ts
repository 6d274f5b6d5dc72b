/**
 * The shell's language: what a script is made of, and how text becomes that.
 *
 * A useful part of POSIX sh: lists, pipelines, redirections with here-documents,
 * quoting, expansions, subshells, groups, if, while, until, for, case, functions.
 */

/** A piece of a word. `quoted` pieces are neither split nor matched against file names. */
export type Part =
  | { readonly type: "text"; readonly text: string; readonly quoted: boolean }
  | {
      readonly type: "variable"
      readonly name: string
      /** `:-`, `-`, `:=`, `:+`, `+`, `:?`, `#` (length), `%`, `%%`, `##`, `#` before the pattern. */
      readonly operator: string
      readonly word: Word
      readonly quoted: boolean
    }
  | { readonly type: "command"; readonly script: Script; readonly quoted: boolean }
  | { readonly type: "arithmetic"; readonly word: Word; readonly quoted: boolean }

export type Word = ReadonlyArray<Part>

export interface Redirect {
  readonly fd: number
  readonly operator: "<" | ">" | ">>" | ">|" | "<>" | "<&" | ">&" | "<<"
  readonly target: Word
}

export interface Assignment {
  readonly name: string
  readonly value: Word
}

export type Command =
  | {
      readonly type: "simple"
      readonly assignments: ReadonlyArray<Assignment>
      readonly words: ReadonlyArray<Word>
      readonly redirects: ReadonlyArray<Redirect>
    }
  | { readonly type: "subshell"; readonly body: Script; readonly redirects: ReadonlyArray<Redirect> }
  | { readonly type: "group"; readonly body: Script; readonly redirects: ReadonlyArray<Redirect> }
  | {
      readonly type: "if"
      readonly branches: ReadonlyArray<{ readonly condition: Script; readonly body: Script }>
      readonly otherwise: Script | undefined
      readonly redirects: ReadonlyArray<Redirect>
    }
  | {
      readonly type: "loop"
      readonly until: boolean
      readonly condition: Script
      readonly body: Script
      readonly redirects: ReadonlyArray<Redirect>
    }
  | {
      readonly type: "for"
      readonly name: string
      /** Undefined: the positional parameters. */
      readonly words: ReadonlyArray<Word> | undefined
      readonly body: Script
      readonly redirects: ReadonlyArray<Redirect>
    }
  | {
      readonly type: "case"
      readonly word: Word
      readonly branches: ReadonlyArray<{ readonly patterns: ReadonlyArray<Word>; readonly body: Script }>
      readonly redirects: ReadonlyArray<Redirect>
    }
  | { readonly type: "function"; readonly name: string; readonly body: Command }

export interface Pipeline {
  readonly negated: boolean
  readonly commands: ReadonlyArray<Command>
}

export interface AndOr {
  readonly first: Pipeline
  readonly rest: ReadonlyArray<{ readonly operator: "&&" | "||"; readonly pipeline: Pipeline }>
}

/** A list of commands. */
export type Script = ReadonlyArray<{ readonly andOr: AndOr; readonly background: boolean }>

/** A script that cannot be understood; `incomplete` when more text could mend it. */
export interface SyntaxFailure {
  readonly message: string
  readonly incomplete: boolean
}

/** Whether a word is a plain name. */
export const isName = (text: string): boolean => /^[A-Za-z_][A-Za-z0-9_]*$/.test(text)
