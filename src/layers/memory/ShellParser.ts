/**
 * A recursive-descent parser for the shell's language.
 */
import { Result } from "effect"
import { Lexer, textOf, wordEnd } from "./ShellLexer.ts"
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
const nothing: Command = { type: "simple", assignments: [], words: [], redirects: [] }

class Parser extends Lexer {
  private readonly documents: Array<{
    readonly end: string
    readonly strip: boolean
    readonly parts: Array<Part>
    readonly literal: boolean
  }> = []

  protected nested(text: string): { readonly script: Script; readonly failure: SyntaxFailure | undefined } {
    const script = parseScript(text)
    return Result.isSuccess(script)
      ? { script: script.success, failure: undefined }
      : { script: [], failure: script.failure }
  }

  // --- lists ----------------------------------------------------------------

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

  protected lineEnded(): void {
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
      else {
        const inside = new Parser(text)
        document.parts.push(...inside.quotedParts(""))
        this.failure ??= inside.failure
      }
    }
  }
}
