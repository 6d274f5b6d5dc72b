/**
 * Labels on the command line: `key=value`, as often as there are labels.
 */
import { Option } from "effect"
import { Flag } from "effect/cli"
import { parsed } from "./SharedFlags.ts"

/** `key=value`; the value may hold `=` and may be empty. */
export const parseLabel = (text: string): Option.Option<readonly [key: string, value: string]> => {
  const at = text.indexOf("=")
  return at < 1 ? Option.none() : Option.some([text.slice(0, at), text.slice(at + 1)])
}

/** The option `--label`, which may be repeated. */
export const labelFlag = (description: string) =>
  parsed("label", "KEY=VALUE", "KEY=VALUE", parseLabel).pipe(
    Flag.withAlias("l"),
    Flag.withDescription(`${description}; may be repeated`),
    Flag.atLeast(0)
  )
