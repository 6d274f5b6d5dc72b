/**
 * A recursive-descent parser for the shell's language.
 */
import { Result } from "effect"
import {
  type AndOr,
  type Assignment,
  type Command,
  isName,
  type Part,
  type Pipeline,
  type Redirect,
  type Script,
  type SyntaxFailure,
  type Word
} from "./ShellSyntax.ts"

/** Parses a whole script. */
export const parseScript = (source: string): Result.Result<Script, SyntaxFailure> => {
  const parser = new Parser(source)
  const script = parser.script([])
  if (parser.failure !== undefined) return Result.fail(parser.failure)
  if (!parser.atEnd) parser.unexpected()
  if (parser.failure !== undefined) return Result.fail(parser.failure)
  return Result.succeed(script)
}

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
const reserved = new Set([
  "if",
  "then",
  "elif",
  "else",
  "fi",
  "while",
  "until",
  "do",
  "done",
  "for",
  "case",
  "in",
  "esac",
  "{",
  "}",
  "!"
])
const wordEnd = new Set([" ", "\t", "\n", ";", "&", "|", "<", ">", "(", ")"])
const nothing: Command = { type: "simple", assignments: [], words: [], redirects: [] }

/**
 * After a failure every method returns something harmless, and the first
 * failure is kept: so no method needs to check what another one met.
 */
class Parser {
  failure: SyntaxFailure | undefined = undefined
  private readonly source: string
  private at = 0
  private readonly documents: Array<{
    readonly end: string
    readonly strip: boolean
    readonly parts: Array<Part>
    readonly literal: boolean
  }> = []

  constructor(source: string) {
    this.source = source
  }

  get atEnd(): boolean {
    return this.at >= this.source.length
  }

  private fail(message: string): void {
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
  private blanks(): void {
    for (;;) {
      const char = this.source[this.at]
      if (char === " " || char === "\t") this.at++
      else if (char === "\\" && this.source[this.at + 1] === "\n") this.at += 2
      else if (char === "#") while (!this.atEnd && this.source[this.at] !== "\n") this.at++
      else return
    }
  }

  private operator(): string | undefined {
    this.blanks()
    return operators.find((operator) => this.source.startsWith(operator, this.at))
  }

  private accept(operator: string): boolean {
    if (this.operator() !== operator) return false
    this.at += operator.length
    if (operator === "\n") this.readDocuments()
    return true
  }

  private newlines(): void {
    while (this.accept("\n"));
  }

  /** The unquoted word that comes next, if one does, without passing it. */
  private peekWord(): string | undefined {
    this.blanks()
    const match = /^[^\s;&|<>()'"$`\\]+/.exec(this.source.slice(this.at, this.at + 64))
    if (match === null) return undefined
    const next = this.source[this.at + match[0].length]
    return next === undefined || wordEnd.has(next) ? match[0] : undefined
  }

  private acceptWord(word: string): boolean {
    if (this.peekWord() !== word) return false
    this.at += word.length
    return true
  }

  private expectWord(word: string): void {
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

  // --- lists ----------------------------------------------------------------

  /** Commands up to the end, a closing operator, or one of the words. */
  script(stops: ReadonlyArray<string>): Script {
    const list: Array<{ readonly andOr: AndOr; readonly background: boolean }> = []
    for (;;) {
      this.newlines()
      const operator = this.operator()
      if (this.atEnd || operator === ")" || operator === ";;") return list
      const word = this.peekWord()
      if (word !== undefined && stops.includes(word)) return list
      const andOr = this.andOr()
      const background = this.accept("&")
      const separated = background || this.accept(";") || this.accept("\n")
      list.push({ andOr, background })
      if (!separated) return list
    }
  }

  private body(stops: ReadonlyArray<string>): Script {
    const script = this.script(stops)
    if (script.length === 0) this.unexpected()
    return script
  }

  private andOr(): AndOr {
    const first = this.pipeline()
    const rest: Array<AndOr["rest"][number]> = []
    for (;;) {
      const operator = this.accept("&&") ? "&&" : this.accept("||") ? "||" : undefined
      if (operator === undefined) return { first, rest }
      this.newlines()
      rest.push({ operator, pipeline: this.pipeline() })
    }
  }

  private pipeline(): Pipeline {
    let negated = false
    while (this.acceptWord("!")) negated = !negated
    const commands = [this.command()]
    while (this.operator() === "|") {
      this.accept("|")
      this.newlines()
      commands.push(this.command())
    }
    return { negated, commands }
  }

  // --- commands -------------------------------------------------------------

  private command(): Command {
    if (this.accept("(")) {
      const body = this.body([])
      if (!this.accept(")")) this.unexpected(")")
      return { type: "subshell", body, redirects: this.redirects() }
    }
    switch (this.peekWord()) {
      case "{":
        return this.group()
      case "if":
        return this.conditional()
      case "while":
      case "until":
        return this.loop()
      case "for":
        return this.forLoop()
      case "case":
        return this.choice()
      default:
        return this.simple()
    }
  }

  private group(): Command {
    this.acceptWord("{")
    const body = this.body(["}"])
    this.expectWord("}")
    return { type: "group", body, redirects: this.redirects() }
  }

  private conditional(): Command {
    const branches: Array<{ readonly condition: Script; readonly body: Script }> = []
    this.acceptWord("if")
    do {
      const condition = this.body(["then"])
      this.expectWord("then")
      branches.push({ condition, body: this.body(["elif", "else", "fi"]) })
    } while (this.acceptWord("elif"))
    const otherwise = this.acceptWord("else") ? this.body(["fi"]) : undefined
    this.expectWord("fi")
    return { type: "if", branches, otherwise, redirects: this.redirects() }
  }

  private loop(): Command {
    const until = this.acceptWord("until")
    if (!until) this.acceptWord("while")
    const condition = this.body(["do"])
    return { type: "loop", until, condition, body: this.doBody(), redirects: this.redirects() }
  }

  private doBody(): Script {
    this.expectWord("do")
    const body = this.body(["done"])
    this.expectWord("done")
    return body
  }

  private forLoop(): Command {
    this.acceptWord("for")
    const name = this.peekWord() ?? ""
    if (!isName(name)) this.fail("Bad for loop variable")
    this.acceptWord(name)
    this.newlines()
    let words: Array<Word> | undefined
    if (this.acceptWord("in")) {
      words = []
      while (this.hasWord()) words.push(this.word())
    }
    this.accept(";")
    const body = this.doBody()
    return { type: "for", name, words, body, redirects: this.redirects() }
  }

  private choice(): Command {
    this.acceptWord("case")
    const word = this.word()
    this.expectWord("in")
    const branches: Array<{ readonly patterns: ReadonlyArray<Word>; readonly body: Script }> = []
    this.newlines()
    while (!this.atEnd && this.peekWord() !== "esac") {
      this.accept("(")
      const patterns = [this.word()]
      while (this.accept("|")) patterns.push(this.word())
      if (!this.accept(")")) this.unexpected(")")
      branches.push({ patterns, body: this.script(["esac"]) })
      if (!this.accept(";;")) break
      this.newlines()
    }
    this.expectWord("esac")
    return { type: "case", word, branches, redirects: this.redirects() }
  }

  private simple(): Command {
    const assignments: Array<Assignment> = []
    const words: Array<Word> = []
    const redirects: Array<Redirect> = []
    const first = this.peekWord()
    if (first !== undefined && reserved.has(first)) this.unexpected()
    for (;;) {
      const redirect = this.redirect()
      if (redirect !== undefined) {
        redirects.push(redirect)
        continue
      }
      if (!this.hasWord()) break
      const assignment = words.length === 0 ? this.assignment() : undefined
      if (assignment !== undefined) {
        assignments.push(assignment)
        continue
      }
      const word = this.word()
      const name = words.length === 0 && assignments.length === 0 ? textOf(word) : undefined
      if (name !== undefined && isName(name) && this.accept("(")) return this.definition(name)
      words.push(word)
    }
    if (assignments.length + words.length + redirects.length === 0) {
      this.unexpected()
      return nothing
    }
    return { type: "simple", assignments, words, redirects }
  }

  private definition(name: string): Command {
    if (!this.accept(")")) this.unexpected(")")
    this.newlines()
    return { type: "function", name, body: this.command() }
  }

  private assignment(): Assignment | undefined {
    const match = /^([A-Za-z_][A-Za-z0-9_]*)=/.exec(this.source.slice(this.at, this.at + 256))
    if (match === null) return undefined
    this.at += match[0].length
    const next = this.source[this.at]
    return { name: match[1] ?? "", value: next === undefined || wordEnd.has(next) ? [] : this.word() }
  }

  // --- redirections ---------------------------------------------------------

  private redirects(): ReadonlyArray<Redirect> {
    const redirects: Array<Redirect> = []
    for (let redirect = this.redirect(); redirect !== undefined; redirect = this.redirect())
      redirects.push(redirect)
    return redirects
  }

  private redirect(): Redirect | undefined {
    this.blanks()
    const match = /^([0-9]?)(<<-|<<|>>|<&|>&|<>|>\||<|>)/.exec(this.source.slice(this.at, this.at + 4))
    if (match === null) return undefined
    this.at += match[0].length
    const [, number = "", operator = ""] = match
    const fd = number !== "" ? Number(number) : operator.startsWith("<") ? 0 : 1
    if (!this.hasWord()) this.unexpected()
    const target = this.word()
    switch (operator) {
      case "<<":
      case "<<-":
        return { fd, operator: "<<", target: this.document(target, operator === "<<-") }
      case "<":
      case ">":
      case ">>":
      case "<&":
      case ">&":
      case "<>":
      case ">|":
        return { fd, operator, target }
      default:
        return undefined
    }
  }

  /** A here-document: its text is read where the line ends. */
  private document(mark: Word, strip: boolean): Word {
    const parts: Array<Part> = []
    const literal = mark.some((part) => part.type === "text" && part.quoted)
    const end = mark.map((part) => (part.type === "text" ? part.text : "")).join("")
    this.documents.push({ end, strip, parts, literal })
    return parts
  }

  private readDocuments(): void {
    for (const document of this.documents.splice(0)) {
      let text = ""
      for (;;) {
        if (this.atEnd) break
        const newline = this.source.indexOf("\n", this.at)
        const raw = this.source.slice(this.at, newline < 0 ? this.source.length : newline)
        this.at = newline < 0 ? this.source.length : newline + 1
        const line = document.strip ? raw.replace(/^\t+/, "") : raw
        if (line === document.end) break
        text += `${line}\n`
      }
      if (document.literal) document.parts.push({ type: "text", text, quoted: true })
      else document.parts.push(...new Parser(text).quotedParts("", this))
    }
  }

  // --- words ----------------------------------------------------------------

  private hasWord(): boolean {
    this.blanks()
    const char = this.source[this.at]
    return char !== undefined && !wordEnd.has(char)
  }

  private word(): Word {
    this.blanks()
    return this.wordUntil((char) => wordEnd.has(char))
  }

  private wordUntil(isEnd: (char: string) => boolean): Word {
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
        parts.push(...this.quotedParts('"', this))
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
  quotedParts(end: string, owner: Parser): Array<Part> {
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
    if (this.failure !== undefined) owner.failure ??= this.failure
    return parts
  }

  /** What begins with `$` or a backquote. */
  private expansion(quoted: boolean): Part {
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

  private backquoted(quoted: boolean): Part {
    let text = ""
    this.at++
    while (!this.atEnd && this.source[this.at] !== "`") {
      if (this.source[this.at] === "\\" && "$`\\".includes(this.source[this.at + 1] ?? "?")) this.at++
      text += this.source[this.at] ?? ""
      this.at++
    }
    if (this.atEnd) this.fail("EOF in backquote substitution")
    this.at++
    const script = parseScript(text)
    if (Result.isFailure(script)) {
      this.failure ??= script.failure
      return { type: "text", text: "", quoted }
    }
    return { type: "command", script: script.success, quoted }
  }

  private arithmetic(quoted: boolean): Part {
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

  private braced(quoted: boolean): Part {
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
