import { assert, describe, it } from "@effect/vitest"
import { Option, Schema } from "effect"
import {
  parseCount,
  parseDuration,
  parseEnv,
  parseNetwork,
  parsePositive,
  parseSize
} from "../../src/cli/Units.ts"

const cases = <A>(
  parse: (text: string) => Option.Option<A>,
  good: ReadonlyArray<readonly [string, A]>,
  bad: ReadonlyArray<string>
) => {
  for (const [text, value] of good) {
    it(`takes ${text}`, () => assert.deepStrictEqual(Option.getOrUndefined(parse(text)), value))
  }
  for (const text of bad) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.isTrue(Option.isNone(parse(text))))
  }
}

describe("a size", () => {
  cases(
    parseSize,
    [
      ["1", 1],
      ["1048576", 1024 ** 2],
      ["64k", 64 * 1024],
      ["512m", 512 * 1024 ** 2],
      ["512M", 512 * 1024 ** 2],
      ["1g", 1024 ** 3],
      ["1.5g", 1.5 * 1024 ** 3],
      ["1.6g", 1_717_986_918],
      ["2GiB", 2 * 1024 ** 3],
      ["2gb", 2 * 1024 ** 3],
      ["1t", 1024 ** 4],
      ["100b", 100]
    ],
    ["", "0", "0m", "-1", "m", "1x", "1 g", "1e3", "0.3", "1.m", ".5g", "99999999t", "１g", "1g\n"]
  )
})

describe("a duration", () => {
  cases(
    parseDuration,
    [
      ["30s", 30_000],
      ["5m", 300_000],
      ["1h30m", 5_400_000],
      ["250ms", 250],
      ["1.5s", 1500],
      ["2d", 172_800_000],
      ["10", 10_000]
    ],
    ["", "0", "0s", "-5s", "5 m", "s", "5x", "1m30", "1e3s", "5s\n"]
  )
})

describe("a number of processors", () => {
  cases(
    parsePositive,
    [
      ["1", 1],
      ["0.5", 0.5]
    ],
    ["", "0", "-1", "1e3", "NaN", "Infinity", "one"]
  )
})

describe("a count", () => {
  cases(parseCount, [["256", 256]], ["", "0", "1.5", "-3", "99999999999999999999"])
})

describe("a network", () => {
  cases(
    parseNetwork,
    [
      ["none", "none"],
      ["full", "full"],
      ["allow:example.org", { allow: ["example.org"] }],
      ["allow:*.example.org,pypi.org", { allow: ["*.example.org", "pypi.org"] }]
    ],
    ["", "ful", "example.org", "allow:", "allow:a,,b", "allow:-a.org", "allow:a b"]
  )
})

describe("an environment setting", () => {
  cases(
    parseEnv({ HERE: "value", EMPTY: "" }),
    [
      ["A=b", ["A", "b"]],
      ["A=", ["A", ""]],
      ["A=b=c", ["A", "b=c"]],
      ["HERE", ["HERE", "value"]],
      ["EMPTY", ["EMPTY", ""]]
    ],
    ["", "=", "=b", "ABSENT"]
  )

  it.prop("keeps name and value whole", [Schema.String, Schema.String], ([name, value]) => {
    const key = name.replaceAll("=", "") || "K"
    assert.deepStrictEqual(Option.getOrUndefined(parseEnv({})(`${key}=${value}`)), [key, value])
  })
})
