/**
 * How a service writes its log: to standard error, in words for people at a
 * terminal, as logfmt or JSON for programs.
 */
import { Layer, Logger } from "effect"

/** `pretty` for a terminal, `logfmt` (key=value) or `json` for whatever collects logs, `none` for no log. */
export type LogFormat = "pretty" | "logfmt" | "json" | "none"

/** The log in this form; without one `pretty` at a terminal and else `logfmt`. It replaces all other loggers. */
export const layer = (format?: LogFormat): Layer.Layer<never> => {
  const chosen = format ?? (process.stderr.isTTY ? "pretty" : "logfmt")
  return Layer.merge(Logger.layer(loggers[chosen]), Layer.succeed(Logger.LogToStderr, true))
}

const loggers: { readonly [F in LogFormat]: ReadonlyArray<Logger.Logger<unknown, void>> } = {
  pretty: [Logger.consolePretty()],
  logfmt: [Logger.withConsoleError(Logger.formatLogFmt)],
  json: [Logger.withConsoleError(Logger.formatJson)],
  none: []
}
