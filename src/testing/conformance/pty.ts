/**
 * Conformance: programs on a terminal.
 */
import { Effect, Stream } from "effect"
import { maxTerminals } from "../../domain/Process.ts"
import type { Pty } from "../../services/Process.ts"
import { area, holds, refused, same, withSandbox } from "./Case.ts"

const size = { rows: 24, cols: 80 }

/** What a terminal shows until the text appears. */
const until = (pty: Pty, text: string) => {
  const decoder = new TextDecoder()
  return pty.output.pipe(
    Stream.scan(
      () => "",
      (shown: string, bytes) => shown + decoder.decode(bytes, { stream: true })
    ),
    Stream.takeUntil((shown) => shown.includes(text)),
    Stream.runLast,
    Effect.map((last) => (last._tag === "Some" ? last.value : ""))
  )
}

export const ptyCases = area("pty")(
  {
    "a terminal echoes what is typed and turns new lines": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const pty = yield* sandbox.pty.open({ size, argv: ["cat"] })
        yield* pty.write("ab\n")
        const shown = yield* until(pty, "ab\r\nab\r\n")
        same(shown, "ab\r\nab\r\n")
        yield* pty.write("\u0004")
        same(yield* pty.exit, { _tag: "Exited", code: 0 })
      })
    ),

    "a shell on a terminal runs what is typed, and its exit code comes back": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const pty = yield* sandbox.pty.open({ size })
        yield* pty.write("echo $((40 + 2))\n")
        holds((yield* until(pty, "42")).includes("42"), "the shell answered")
        yield* pty.write("exit 3\n")
        same(yield* pty.exit, { _tag: "Exited", code: 3 })
      })
    ),

    "the interrupt key ends the program in front": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const pty = yield* sandbox.pty.open({ size, argv: ["sh", "-c", "echo up; exec sleep 1000"] })
        yield* until(pty, "up")
        yield* pty.write("\u0003")
        same(yield* pty.exit, { _tag: "Signaled", signal: "SIGINT", number: 2 })
      })
    ),

    "programs see the terminal's size, and its change": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const pty = yield* sandbox.pty.open({
          size: { rows: 7, cols: 31 },
          argv: ["sh", "-c", "stty size; read line; stty size"]
        })
        yield* until(pty, "7 31")
        yield* pty.resize({ rows: 9, cols: 41 })
        yield* pty.write("\n")
        holds((yield* until(pty, "9 41")).includes("9 41"), "the new size is seen")
        same(yield* pty.exit, { _tag: "Exited", code: 0 })
      })
    ),

    "a sandbox has 32 terminals at one time; another is refused by their name and may be tried again":
      withSandbox(
        Effect.fnUntraced(function* (sandbox) {
          const open = sandbox.pty.open({ size, argv: ["cat"] })
          const first = yield* open
          yield* Effect.replicateEffect(open, maxTerminals - 1)
          const error = yield* refused(open, "ResourceExhausted")
          same([error.resource, error.isRetryable, error.outcome], ["terminals", true, "not-started"])
          yield* first.kill
          yield* (yield* open).kill
        })
      ),

    "only a terminal has a size, and only a sensible one": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const none = sandbox.pty.open({ size: { rows: 0, cols: 80 }, argv: ["cat"] })
        same((yield* refused(none, "InvalidArgument")).field, "size.rows")
        const pty = yield* sandbox.pty.open({ size, argv: ["cat"] })
        yield* refused(pty.resize({ rows: 1, cols: 100_000 }), "InvalidArgument")
        const [info] = yield* sandbox.process.list
        same(info?.pty, true)
        yield* pty.kill
      })
    )
  },
  ["pty"]
)
