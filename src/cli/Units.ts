/**
 * The small notations of the command line: sizes, durations, networks,
 * environment settings. Each parser gives what the contract takes, or nothing
 * when the text is none.
 */
import { Option } from "effect"
import type { Network } from "../domain/Sandbox.ts"

const factors: Readonly<Record<string, number>> = {
  "": 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4
}

/**
 * A size in bytes: `1048576`, `512m`, `1.5g`, `2GiB`. The units k, m, g, t are
 * powers of 1024, in either case, with or without `b` or `ib` behind them.
 */
export const parseSize = (text: string): Option.Option<number> => {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/i.exec(text)
  if (match === null) return Option.none()
  const [, amount = "", unit = ""] = match
  const exact = Number(amount) * (factors[unit.toLowerCase()] ?? Number.NaN)
  // A tenth of a gigabyte is no whole number of bytes; half a byte is a mistake.
  const bytes = unit === "" ? exact : Math.round(exact)
  return Number.isSafeInteger(bytes) && bytes > 0 ? Option.some(bytes) : Option.none()
}

const millis: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** A duration in milliseconds: `30s`, `1h30m`, `250ms`; a bare number is in seconds. */
export const parseDuration = (text: string): Option.Option<number> => {
  if (/^\d+(\.\d+)?$/.test(text)) return positive(Number(text) * 1000)
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return Option.none()
  let total = 0
  for (const [, amount, unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (millis[unit] ?? Number.NaN)
  }
  return positive(total)
}

const positive = (value: number): Option.Option<number> =>
  Number.isFinite(value) && value > 0 ? Option.some(value) : Option.none()

/** A number greater than 0 that may have a fraction: `2`, `0.5`. */
export const parsePositive = (text: string): Option.Option<number> =>
  /^\d+(\.\d+)?$/.test(text) ? positive(Number(text)) : Option.none()

/** A whole number greater than 0. */
export const parseCount = (text: string): Option.Option<number> =>
  Option.filter(parsePositive(text), Number.isSafeInteger)

const domain = /^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/i

/** `none`, `full`, or `allow:example.org,pypi.org`. */
export const parseNetwork = (text: string): Option.Option<Network> => {
  if (text === "none" || text === "full") return Option.some(text)
  if (!text.startsWith("allow:")) return Option.none()
  const allow = text.slice("allow:".length).split(",")
  return allow.every((name) => domain.test(name)) ? Option.some({ allow }) : Option.none()
}

/** An environment setting: `NAME=value`, or `NAME` for the value it has in `here`. */
export const parseEnv =
  (here: Readonly<Record<string, string | undefined>>) =>
  (text: string): Option.Option<readonly [name: string, value: string]> => {
    const at = text.indexOf("=")
    if (at > 0) return Option.some([text.slice(0, at), text.slice(at + 1)])
    const value = at === -1 ? here[text] : undefined
    return value === undefined ? Option.none() : Option.some([text, value])
  }
