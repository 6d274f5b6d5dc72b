/**
 * The shell's tokens and words: operators, quotes, and expansions within words.
 */
import type { Part, Script, SyntaxFailure, Word } from "./ShellSyntax.ts"

const operators = [
  "&&",
  "||",
  ";;",
  "<<-",
  "<<",
  ">>",
  "<&",
  ">&",
  "<>",
  ">|",
  "&",
  "|",
  ";",
  "<",
  ">",
  "(",
  ")",
  "\n"
]
/** Characters that end an unquoted word. */
export const wordEnd = new Set([" ", "\t", "\n", ";", "&", "|", "<", ">", "(", ")"])

/**
 * Reads tokens and words. After a failure every method returns something
 * harmless, and the first failure is kept: so no method needs to check what another one met.
 */
export abstract class Lexer {
  failure: SyntaxFailure | undefined = undefined
  protected readonly source: string
  protected at = 0

  constructor(source: string) {
    this.source = source
  }

  /** Commands up to the end, a closing operator, or one of the words. */
  abstract script(stops: ReadonlyArray<string>): Script
  /** Another text as a script of its own. */
  protected abstract nested(text: string): {
    readonly script: Script
    readonly failure: SyntaxFailure | undefined
  }
  /** A line has ended: what was to follow it is read. */
  protected abstract lineEnded(): void

  get atEnd(): boolean {
    return this.at >= this.source.length
  }

  protected fail(message: string): void {
    this.failure ??= { message: `Syntax error: ${message}`, incomplete: this.atEnd }
    this.at = this.source.length
  }

  /** What comes next should not. */
  unexpected(expecting?: string): void {
    const found = this.peekText()
    const name = found === "end of file" || found === "newline" ? found : `"${found}"`
    this.fail(`${name} unexpected${expecting === undefined ? "" : ` (expecting "${expecting}")`}`)
  }

  // --- tokens ---------------------------------------------------------------

  /** Passes blanks, comments and escaped line ends. */
  protected blanks(): void {
    for (;;) {
      const char = this.source[this.at]
      if (char === " " || char === "\t") this.at++
      else if (char === "\\" && this.source[this.at + 1] === "\n") this.at += 2
      else if (char === "#") while (!this.atEnd && this.source[this.at] !== "\n") this.at++
      else return
    }
  }

  protected operator(): string | undefined {
    this.blanks()
    return operators.find((operator) => this.source.startsWith(operator, this.at))
  }

  protected accept(operator: string): boolean {
    if (this.operator() !== operator) return false
    this.at += operator.length
    if (operator === "\n") this.lineEnded()
    return true
  }

  protected newlines(): void {
    while (this.accept("\n"));
  }

  /** The unquoted word that comes next, if one does, without passing it. */
  protected peekWord(): string | undefined {
    this.blanks()
    const match = /^[^\s;&|<>()'"$`\\]+/.exec(this.source.slice(this.at, this.at + 64))
    if (match === null) return undefined
    const next = this.source[this.at + match[0].length]
    return next === undefined || wordEnd.has(next) ? match[0] : undefined
  }

  protected acceptWord(word: string): boolean {
    if (this.peekWord() !== word) return false
    this.at += word.length
    return true
  }

  protected expectWord(word: string): void {
    this.newlines()
    if (!this.acceptWord(word)) this.unexpected(word)
  }

  peekText(): string {
    this.blanks()
    if (this.atEnd) return "end of file"
    const operator = this.operator()
    if (operator !== undefined) return operator === "\n" ? "newline" : operator
    return /^\S+/.exec(this.source.slice(this.at))?.[0] ?? ""
  }

  // --- words ----------------------------------------------------------------

  protected hasWord(): boolean {
    this.blanks()
    const char = this.source[this.at]
    return char !== undefined && !wordEnd.has(char)
  }

  protected word(): Word {
    this.blanks()
    return this.wordUntil((char) => wordEnd.has(char))
  }

  protected wordUntil(isEnd: (char: string) => boolean): Word {
    const parts: Array<Part> = []
    let text = ""
    const flush = () => {
      if (text !== "") parts.push({ type: "text", text, quoted: false })
      text = ""
    }
    for (;;) {
      const char = this.source[this.at]
      if (char === undefined || isEnd(char)) break
      if (char === "\\") {
        const next = this.source[this.at + 1]
        this.at += 2
        if (next === "\n") continue
        flush()
        parts.push({ type: "text", text: next ?? "\\", quoted: true })
      } else if (char === "'") {
        flush()
        const close = this.source.indexOf("'", this.at + 1)
        if (close < 0) {
          this.at = this.source.length
          this.fail("Unterminated quoted string")
          break
        }
        parts.push({ type: "text", text: this.source.slice(this.at + 1, close), quoted: true })
        this.at = close + 1
      } else if (char === '"') {
        flush()
        this.at++
        parts.push(...this.quotedParts('"'))
        if (this.source[this.at] === '"') this.at++
        else this.fail("Unterminated quoted string")
      } else if (char === "$" || char === "`") {
        flush()
        parts.push(this.expansion(false))
      } else {
        text += char
        this.at++
      }
    }
    flush()
    return parts
  }

  /** The inside of double quotes (or a here-document, with `end` empty), up to but without its end. */
  quotedParts(end: string): Array<Part> {
    const parts: Array<Part> = []
    let text = ""
    const flush = () => {
      if (text !== "") parts.push({ type: "text", text, quoted: true })
      text = ""
    }
    while (!this.atEnd && (end === "" || this.source[this.at] !== end)) {
      const char = this.source[this.at] ?? ""
      if (char === "\\") {
        const next = this.source[this.at + 1] ?? ""
        if (next !== "\n") text += next !== "" && `$\`\\${end}`.includes(next) ? next : `\\${next}`
        this.at += 2
      } else if (char === "$" || char === "`") {
        flush()
        parts.push(this.expansion(true))
      } else {
        text += char
        this.at++
      }
    }
    flush()
    // An empty pair of quotes still makes a word.
    if (parts.length === 0) parts.push({ type: "text", text: "", quoted: true })
    return parts
  }

  /** What begins with `$` or a backquote. */
  protected expansion(quoted: boolean): Part {
    if (this.source[this.at] === "`") return this.backquoted(quoted)
    const rest = this.source.slice(this.at + 1, this.at + 257)
    if (rest.startsWith("((")) return this.arithmetic(quoted)
    if (rest.startsWith("(")) {
      this.at += 2
      const script = this.script([])
      if (!this.accept(")")) this.unexpected(")")
      return { type: "command", script, quoted }
    }
    if (rest.startsWith("{")) return this.braced(quoted)
    const name = /^([A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-])/.exec(rest)?.[0]
    this.at += 1 + (name?.length ?? 0)
    return name === undefined
      ? { type: "text", text: "$", quoted }
      : { type: "variable", name, operator: "", word: [], quoted }
  }

  protected backquoted(quoted: boolean): Part {
    let text = ""
    this.at++
    while (!this.atEnd && this.source[this.at] !== "`") {
      if (this.source[this.at] === "\\" && "$`\\".includes(this.source[this.at + 1] ?? "?")) this.at++
      text += this.source[this.at] ?? ""
      this.at++
    }
    if (this.atEnd) this.fail("EOF in backquote substitution")
    this.at++
    const { script, failure } = this.nested(text)
    this.failure ??= failure
    return { type: "command", script, quoted }
  }

  protected arithmetic(quoted: boolean): Part {
    this.at += 3
    let depth = 0
    const word = this.wordUntil((char) => {
      if (char === "(") depth++
      if (char === ")") {
        if (depth === 0) return true
        depth--
      }
      return false
    })
    if (this.source.startsWith("))", this.at)) this.at += 2
    else this.fail("Missing '))'")
    return { type: "arithmetic", word, quoted }
  }

  protected braced(quoted: boolean): Part {
    this.at += 2
    const match = /^(#)?([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*?$!-]|#(?=\}))(:[-=+?]|[-=+?]|%%|%|##|#)?/.exec(
      this.source.slice(this.at, this.at + 256)
    )
    if (match === null) {
      this.fail("Bad substitution")
      return { type: "text", text: "", quoted }
    }
    this.at += match[0].length
    const [, length, name = "", operator = ""] = match
    const word = this.wordUntil((char) => char === "}")
    if (this.source[this.at] === "}") this.at++
    else this.fail("Bad substitution")
    return { type: "variable", name, operator: length === "#" ? "length" : operator, word, quoted }
  }
}

/** A word's text, when it is nothing but unquoted text. */
export const textOf = (word: Word): string | undefined => {
  const part = word[0]
  return word.length === 1 && part?.type === "text" && !part.quoted ? part.text : undefined
}
