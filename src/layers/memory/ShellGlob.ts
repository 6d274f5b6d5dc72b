/**
 * Patterns of the shell: `*`, `?` and `[...]`, in file names and in `case`. A
 * backslash before a character takes its meaning away.
 */
import { join } from "./Files.ts"
import type { FileTree } from "./FileTree.ts"
import { allowed, READ } from "./Inode.ts"

/** Whether a pattern has anything special in it. */
export const isPattern = (pattern: string): boolean => /(^|[^\\])(\\\\)*[*?[]/.test(pattern)

/** A pattern's text with the escapes taken out. */
export const unescape = (pattern: string): string => pattern.replace(/\\(.)/gs, "$1")

/** Takes the special meaning from every character. */
export const escape = (text: string): string => text.replace(/[\\*?[\]]/g, "\\$&")

type Token = "*" | ((char: string) => boolean)

const classes: { readonly [name: string]: RegExp } = {
  alpha: /[A-Za-z]/,
  digit: /[0-9]/,
  alnum: /[A-Za-z0-9]/,
  upper: /[A-Z]/,
  lower: /[a-z]/,
  space: /\s/,
  punct: /[!-/:-@[-`{-~]/
}

/** What is between brackets, as a test of one character. */
const setOf = (inside: string): ((char: string) => boolean) => {
  const negated = inside.startsWith("!") || inside.startsWith("^")
  const tests: Array<(char: string) => boolean> = []
  const rest = (negated ? inside.slice(1) : inside).replace(/\[:(\w+):\]/g, (_, name: string) => {
    const known = classes[name]
    if (known !== undefined) tests.push((char) => known.test(char))
    return ""
  })
  const chars = [...unescape(rest)]
  for (let at = 0; at < chars.length; at++) {
    const from = chars[at] ?? ""
    const to = chars[at + 1] === "-" ? chars[at + 2] : undefined
    if (to === undefined) tests.push((char) => char === from)
    else {
      tests.push((char) => char >= from && char <= to)
      at += 2
    }
  }
  return (char) => tests.some((test) => test(char)) !== negated
}

const tokensOf = (pattern: string): ReadonlyArray<Token> => {
  const tokens: Array<Token> = []
  const literal = (expected: string) => tokens.push((char) => char === expected)
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at] ?? ""
    if (char === "*") tokens.push("*")
    else if (char === "?") tokens.push(() => true)
    else if (char === "\\") literal(pattern[++at] ?? "\\")
    else if (char !== "[") literal(char)
    else {
      const inside = /^\[([!^]?(?:\[:\w+:\]|\]|[^\]])(?:\[:\w+:\]|[^\]])*)\]/.exec(pattern.slice(at))
      if (inside === null) literal("[")
      else {
        tokens.push(setOf(inside[1] ?? ""))
        at += inside[0].length - 1
      }
    }
  }
  return tokens
}

/** Whether a whole text fits a pattern. */
export const matches = (pattern: string, text: string): boolean => {
  const tokens = tokensOf(pattern)
  let token = 0
  let at = 0
  // Where to go on when what follows the last `*` did not fit: one character further.
  let star = -1
  let starAt = 0
  while (at < text.length) {
    const test = tokens[token]
    if (test === "*") {
      star = token++
      starAt = at
    } else if (test?.(text[at] ?? "")) {
      token++
      at++
    } else if (star >= 0) {
      token = star + 1
      at = ++starAt
    } else return false
  }
  return tokens.slice(token).every((rest) => rest === "*")
}

/** Cuts the shortest or longest matching beginning or end off a text. */
export const cut = (text: string, pattern: string, end: boolean, longest: boolean): string => {
  const lengths = Array.from({ length: text.length + 1 }, (_, length) => length)
  if (longest) lengths.reverse()
  for (const length of lengths) {
    const piece = end ? text.slice(text.length - length) : text.slice(0, length)
    if (matches(pattern, piece)) return end ? text.slice(0, text.length - length) : text.slice(length)
  }
  return text
}

/** The files a pattern names, sorted; none when there is no such file. */
export const glob = (tree: FileTree, cwd: string, uid: number, pattern: string): ReadonlyArray<string> => {
  const parts = pattern.split("/").filter((part) => part !== "")
  let found: Array<string> = [pattern.startsWith("/") ? "/" : ""]
  for (const part of parts) {
    found = found.flatMap((base) => below(tree, cwd, uid, base, part))
  }
  return found.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
}

const below = (tree: FileTree, cwd: string, uid: number, base: string, part: string): Array<string> => {
  const at = base === "" ? cwd : base.startsWith("/") ? base : join(cwd, base)
  const named = (name: string) => (base === "" ? name : join(base, name))
  if (!isPattern(part)) {
    const name = unescape(part)
    return tree.lookup(join(at, name), uid, false)._tag === "Success" ? [named(name)] : []
  }
  const place = tree.lookup(at, uid, true)
  if (place._tag === "Failure" || place.success.node.kind !== "directory") return []
  if (!allowed(place.success.node, uid, READ)) return []
  const hidden = part.startsWith(".")
  return [...place.success.node.entries.keys()]
    .filter((name) => (hidden || !name.startsWith(".")) && matches(part, name))
    .map(named)
}
