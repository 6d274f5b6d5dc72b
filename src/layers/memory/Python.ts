/**
 * A stand-in for Python, so that the first example anybody runs works: it knows
 * `print(...)` of integer arithmetic and string literals, and nothing else.
 * Anything else ends with exit code 1 and says so.
 */
import { Effect, Result } from "effect"
import { fail, output } from "./CommandsBasic.ts"
import { readAll } from "./Files.ts"
import { decode, errorText } from "./Inode.ts"
import type { Process, Program } from "./Process.ts"

type Value = bigint | string | number

/** `python3 -c program`, `python3 file`, or a program on standard input. */
export const python: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const [, first, second = ""] = argv
  if (first === "--version" || first === "-V") return yield* output(process, argv[0], "Python 3.11.2\n")
  if (first === "-c") return yield* run(process, argv[0], second)
  if (first === undefined || first === "-")
    return yield* run(process, argv[0], decode(yield* process.readAll()))
  const file = readAll(process.kernel.tree, process.absolute(first), process.uid)
  if (Result.isSuccess(file)) return yield* run(process, argv[0], decode(file.success))
  return yield* fail(
    process,
    argv[0],
    `can't open file '${process.absolute(first)}': ${errorText[file.failure.reason]}`,
    2
  )
})

const run = Effect.fnUntraced(function* (process: Process, name: string | undefined, source: string) {
  for (const statement of statements(source)) {
    const printed = print(statement)
    if (Result.isFailure(printed)) {
      return yield* fail(
        process,
        name,
        `${printed.failure} (this Python knows only print of integers and strings)`
      )
    }
    const status = yield* output(process, name, `${printed.success}\n`)
    if (status !== 0) return status
  }
  return 0
})

/** Lines and parts between semicolons, without comments; quotes are respected. */
const statements = (source: string): ReadonlyArray<string> => {
  const list: Array<string> = []
  let current = ""
  for (const piece of source.match(/'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|#[^\n]*|[\s\S]/g) ?? []) {
    if (piece === "\n" || piece === ";") {
      list.push(current)
      current = ""
    } else if (!piece.startsWith("#")) current += piece
  }
  return [...list, current].map((statement) => statement.trim()).filter((statement) => statement !== "")
}

const print = (statement: string): Result.Result<string, string> => {
  const match = /^print\s*\(([\s\S]*)\)$/.exec(statement)
  if (match === null) return Result.fail(`cannot run: ${statement.slice(0, 80)}`)
  const expression = new Expression(match[1] ?? "")
  const values = expression.list()
  return expression.failure === undefined
    ? Result.succeed(values.map(text).join(" "))
    : Result.fail(`${expression.failure} in: ${statement.slice(0, 80)}`)
}

const text = (value: Value): string =>
  typeof value === "number" && Number.isInteger(value) ? value.toFixed(1) : String(value)

const escapes: { readonly [char: string]: string } = { n: "\n", t: "\t", r: "\r", "0": "\0" }

class Expression {
  failure: string | undefined = undefined
  private readonly tokens: ReadonlyArray<string>
  private at = 0

  constructor(source: string) {
    this.tokens =
      source.match(/'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[0-9][0-9_]*|\*\*|\/\/|[-+*/%(),]|[^\s]/g) ?? []
  }

  list(): ReadonlyArray<Value> {
    if (this.tokens.length === 0) return []
    const values = [this.sum()]
    while (this.accept(",") && this.at < this.tokens.length) values.push(this.sum())
    if (this.at < this.tokens.length) this.failure ??= "SyntaxError"
    return values
  }

  private accept(token: string): boolean {
    if (this.tokens[this.at] !== token) return false
    this.at++
    return true
  }

  private sum(): Value {
    let left = this.product()
    for (;;) {
      const operator = this.accept("+") ? "+" : this.accept("-") ? "-" : undefined
      if (operator === undefined) return left
      left = this.apply(operator, left, this.product())
    }
  }

  private product(): Value {
    let left = this.unary()
    for (;;) {
      const operator = ["*", "//", "/", "%"].find((one) => this.accept(one))
      if (operator === undefined) return left
      left = this.apply(operator, left, this.unary())
    }
  }

  private unary(): Value {
    if (this.accept("-")) return this.apply("-", 0n, this.unary())
    if (this.accept("+")) return this.unary()
    const base = this.atom()
    return this.accept("**") ? this.apply("**", base, this.unary()) : base
  }

  private atom(): Value {
    const token = this.tokens[this.at++] ?? ""
    if (token === "(") {
      const value = this.sum()
      if (!this.accept(")")) this.failure ??= "SyntaxError"
      return value
    }
    if (/^[0-9]/.test(token)) return BigInt(token.replaceAll("_", ""))
    if (/^['"]/.test(token))
      return token.slice(1, -1).replace(/\\(.)/g, (_, char: string) => escapes[char] ?? char)
    this.failure ??= "SyntaxError"
    return 0n
  }

  private apply(operator: string, a: Value, b: Value): Value {
    if (typeof a === "string" && typeof b === "string" && operator === "+") return a + b
    if (operator === "*" && typeof a === "string" && typeof b === "bigint") return this.times(a, b)
    if (operator === "*" && typeof a === "bigint" && typeof b === "string") return this.times(b, a)
    if (typeof a !== "bigint" || typeof b !== "bigint") {
      this.failure ??= "TypeError"
      return 0n
    }
    switch (operator) {
      case "+":
        return a + b
      case "-":
        return a - b
      case "*":
        return a * b
      case "**":
        return b >= 0n && b <= 4096n ? a ** b : this.invalid("OverflowError")
      default:
        if (b === 0n) return this.invalid("ZeroDivisionError")
        if (operator === "/") return Number(a) / Number(b)
        // Python rounds towards minus infinity.
        return operator === "%" ? ((a % b) + b) % b : (a - (((a % b) + b) % b)) / b
    }
  }

  private times(repeated: string, count: bigint): Value {
    return count * BigInt(repeated.length) <= 1024n * 1024n
      ? repeated.repeat(Math.max(0, Number(count)))
      : this.invalid("MemoryError")
  }

  private invalid(kind: string): Value {
    this.failure ??= kind
    return 0n
  }
}
