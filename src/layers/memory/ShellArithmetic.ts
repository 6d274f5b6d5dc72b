/**
 * Arithmetic of the shell: `$(( ))`, in 64-bit integers, with C's operators.
 */
import { Result } from "effect"

/** Variables an expression reads and sets. */
export interface ArithmeticScope {
  readonly get: (name: string) => string
  readonly set: (name: string, value: string) => void
}

const binary: ReadonlyArray<ReadonlyArray<string>> = [
  ["||"],
  ["&&"],
  ["|"],
  ["^"],
  ["&"],
  ["==", "!="],
  ["<=", ">=", "<", ">"],
  ["<<", ">>"],
  ["+", "-"],
  ["*", "/", "%"]
]

const tokens =
  /\s*(0[xX][0-9a-fA-F]+|[0-9]+|[A-Za-z_][A-Za-z0-9_]*|<<=|>>=|&&|\|\||<<|>>|[-+*/%&|^=!<>]=|[-+*/%()<>=!~?:&|^,])/y

/** The value of an expression, or what is wrong with it. */
export const arithmetic = (text: string, scope: ArithmeticScope): Result.Result<bigint, string> => {
  const list: Array<string> = []
  tokens.lastIndex = 0
  for (let match = tokens.exec(text); match !== null; match = tokens.exec(text)) {
    list.push(match[1] ?? "")
    if (tokens.lastIndex >= text.trimEnd().length) break
  }
  if (list.join("").length !== text.replace(/\s/g, "").length)
    return Result.fail(`arithmetic expression: "${text}"`)
  if (list.length === 0) return Result.succeed(0n)
  const evaluator = new Evaluator(list, scope)
  const value = evaluator.assignment()
  if (evaluator.failure !== undefined) return Result.fail(evaluator.failure)
  return evaluator.atEnd ? Result.succeed(value) : Result.fail(`arithmetic expression: "${text}"`)
}

class Evaluator {
  failure: string | undefined = undefined
  private readonly list: ReadonlyArray<string>
  private readonly scope: ArithmeticScope
  private at = 0
  /** Inside the branch of `?:`, `&&` or `||` that is not taken: nothing is set, nothing divided. */
  private skipping = 0

  constructor(list: ReadonlyArray<string>, scope: ArithmeticScope) {
    this.list = list
    this.scope = scope
  }

  get atEnd(): boolean {
    return this.at >= this.list.length
  }

  private accept(token: string): boolean {
    if (this.list[this.at] !== token) return false
    this.at++
    return true
  }

  assignment(): bigint {
    const name = this.list[this.at] ?? ""
    const operator = this.list[this.at + 1] ?? ""
    if (!/^[A-Za-z_]/.test(name) || !/^([-+*/%&|^]|<<|>>)?=$/.test(operator)) return this.ternary()
    this.at += 2
    const right = this.assignment()
    const value = operator === "=" ? right : this.apply(operator.slice(0, -1), this.variable(name), right)
    if (this.skipping === 0) this.scope.set(name, String(value))
    return value
  }

  private ternary(): bigint {
    const condition = this.level(0)
    if (!this.accept("?")) return condition
    const yes = this.unless(condition === 0n, () => this.assignment())
    if (!this.accept(":")) this.failure ??= "arithmetic expression: expected ':'"
    const no = this.unless(condition !== 0n, () => this.assignment())
    return condition === 0n ? no : yes
  }

  private unless(skip: boolean, evaluate: () => bigint): bigint {
    if (skip) this.skipping++
    const value = evaluate()
    if (skip) this.skipping--
    return value
  }

  private level(index: number): bigint {
    const level = binary[index]
    if (level === undefined) return this.unary()
    let left = this.level(index + 1)
    for (;;) {
      const operator = this.list[this.at] ?? ""
      if (!level.includes(operator)) return left
      this.at++
      const short = (operator === "&&" && left === 0n) || (operator === "||" && left !== 0n)
      const before = left
      const right = this.unless(short, () => this.level(index + 1))
      left = this.apply(operator, before, right)
    }
  }

  private unary(): bigint {
    if (this.accept("-")) return BigInt.asIntN(64, -this.unary())
    if (this.accept("+")) return this.unary()
    if (this.accept("!")) return this.unary() === 0n ? 1n : 0n
    if (this.accept("~")) return ~this.unary()
    if (this.accept("(")) {
      const value = this.assignment()
      if (!this.accept(")")) this.failure ??= "arithmetic expression: expected ')'"
      return value
    }
    const token = this.list[this.at] ?? ""
    this.at++
    if (/^[0-9]/.test(token)) return number(token)
    if (/^[A-Za-z_]/.test(token)) return this.variable(token)
    this.failure ??= "arithmetic expression: expecting primary"
    return 0n
  }

  private variable(name: string): bigint {
    const text = this.scope.get(name).trim()
    if (text === "") return 0n
    if (/^[-+]?(0[xX][0-9a-fA-F]+|[0-9]+)$/.test(text)) {
      return text.startsWith("-") ? -number(text.slice(1)) : number(text.replace("+", ""))
    }
    this.failure ??= `Illegal number: ${text}`
    return 0n
  }

  private apply(operator: string, a: bigint, b: bigint): bigint {
    if ((operator === "/" || operator === "%") && b === 0n) {
      if (this.skipping === 0) this.failure ??= "division by zero"
      return 0n
    }
    return BigInt.asIntN(64, operations[operator]?.(a, b) ?? 0n)
  }
}

const number = (text: string): bigint => BigInt(/^0[0-7]+$/.test(text) ? `0o${text.slice(1)}` : text)

const truth = (value: boolean): bigint => (value ? 1n : 0n)

const operations: { readonly [operator: string]: (a: bigint, b: bigint) => bigint } = {
  "||": (a, b) => truth(a !== 0n || b !== 0n),
  "&&": (a, b) => truth(a !== 0n && b !== 0n),
  "|": (a, b) => a | b,
  "^": (a, b) => a ^ b,
  "&": (a, b) => a & b,
  "==": (a, b) => truth(a === b),
  "!=": (a, b) => truth(a !== b),
  "<=": (a, b) => truth(a <= b),
  ">=": (a, b) => truth(a >= b),
  "<": (a, b) => truth(a < b),
  ">": (a, b) => truth(a > b),
  "<<": (a, b) => a << (b & 63n),
  ">>": (a, b) => a >> (b & 63n),
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "%": (a, b) => a % b
}
