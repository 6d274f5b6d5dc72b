/**
 * `test` and `[`.
 */
import { Effect, Result } from "effect"
import { fail } from "./CommandsBasic.ts"
import { stat } from "./Files.ts"
import { allowed } from "./Inode.ts"
import type { Process, Program } from "./Process.ts"

/** `test` and `[`: files, strings, integers, with `!`, `-a`, `-o` and parentheses. */
export const test: Program = (process, argv) => {
  const bracket = argv[0] === "["
  if (bracket && argv.at(-1) !== "]") return fail(process, "[", "missing ]", 2)
  const evaluator = new Conditions(process, argv.slice(1, bracket ? -1 : undefined))
  const result = evaluator.run()
  return evaluator.problem === undefined
    ? Effect.succeed(result ? 0 : 1)
    : fail(process, argv[0], evaluator.problem, 2)
}

class Conditions {
  problem: string | undefined = undefined
  private readonly process: Process
  private readonly words: ReadonlyArray<string>
  private at = 0

  constructor(process: Process, words: ReadonlyArray<string>) {
    this.process = process
    this.words = words
  }

  run(): boolean {
    if (this.words.length === 0) return false
    const result = this.or()
    if (this.at < this.words.length) this.problem ??= `unexpected operator`
    return result
  }

  private or(): boolean {
    let result = this.and()
    while (this.accept("-o")) result = this.and() || result
    return result
  }

  private and(): boolean {
    let result = this.not()
    while (this.accept("-a")) result = this.not() && result
    return result
  }

  private accept(word: string): boolean {
    if (this.words[this.at] !== word) return false
    this.at++
    return true
  }

  private not(): boolean {
    if (this.words.length - this.at > 1 && this.accept("!")) return !this.not()
    return this.primary()
  }

  private primary(): boolean {
    const [first = "", second = "", third] = this.words.slice(this.at, this.at + 3)
    if (third !== undefined && isBinary(second)) {
      this.at += 3
      return this.compare(first, second, third)
    }
    if (this.words.length - this.at >= 2 && /^-[bcdefghknprstuwxzLOGS]$/.test(first)) {
      this.at += 2
      return this.unary(first, second)
    }
    if (first === "(" && this.words.length - this.at > 1) {
      this.at++
      const result = this.or()
      if (!this.accept(")")) this.problem ??= "closing paren expected"
      return result
    }
    this.at++
    return first !== ""
  }

  private unary(operator: string, word: string): boolean {
    if (operator === "-z") return word === ""
    if (operator === "-n") return word !== ""
    if (operator === "-t") return this.process.files.get(Number(word))?.terminal === true
    const { process } = this
    const { tree } = process.kernel
    const path = process.absolute(word)
    if (operator === "-L" || operator === "-h") {
      const link = stat(tree, path, process.uid)
      return Result.isSuccess(link) && link.success.type === "symlink"
    }
    const found = tree.lookup(path, process.uid, true)
    if (word === "" || Result.isFailure(found)) return false
    const node = found.success.node
    switch (operator) {
      case "-f":
        return node.kind === "file"
      case "-d":
        return node.kind === "directory"
      case "-s":
        return node.kind !== "file" || node.size > 0
      case "-c":
        return node.kind === "device"
      case "-r":
        return allowed(node, process.uid, 4)
      case "-w":
        return allowed(node, process.uid, 2) && !node.frozen
      case "-x":
        return allowed(node, process.uid, 1)
      case "-O":
        return node.uid === process.uid
      case "-e":
        return true
      default:
        return false
    }
  }

  private compare(left: string, operator: string, right: string): boolean {
    switch (operator) {
      case "=":
      case "==":
        return left === right
      case "!=":
        return left !== right
      case "<":
        return left < right
      case ">":
        return left > right
      case "-nt":
      case "-ot":
        return operator === "-nt"
          ? this.modified(left) > this.modified(right)
          : this.modified(left) < this.modified(right)
    }
    const a = this.number(left)
    const b = this.number(right)
    return comparisons[operator]?.(a, b) ?? false
  }

  private number(text: string): number {
    if (!/^\s*[-+]?[0-9]+\s*$/.test(text)) this.problem ??= `Illegal number: ${text}`
    return Number(text)
  }

  private modified(path: string): number {
    const info = stat(this.process.kernel.tree, this.process.absolute(path), this.process.uid, true)
    return Result.isSuccess(info) ? info.success.modifiedAt : -1
  }
}

const comparisons: { readonly [operator: string]: (a: number, b: number) => boolean } = {
  "-eq": (a, b) => a === b,
  "-ne": (a, b) => a !== b,
  "-lt": (a, b) => a < b,
  "-le": (a, b) => a <= b,
  "-gt": (a, b) => a > b,
  "-ge": (a, b) => a >= b
}

const isBinary = (word: string): boolean =>
  ["=", "==", "!=", "<", ">", "-nt", "-ot"].includes(word) || comparisons[word] !== undefined
