/**
 * Conformance: programs in the background, their journals, their input, their signals.
 */
import { Deferred, Effect, Fiber, Schedule, Stream } from "effect"
import type { ProcessEvent } from "../../domain/Process.ts"
import { area, holds, home, lines, refused, same, unique, withSandbox } from "./Case.ts"
import { gather, outputOf, textOf, untilOutput } from "./Programs.ts"

/** Output events' bytes and cursors, put together; they must be without a gap from `from` on. */
const bytesFrom = (events: ReadonlyArray<ProcessEvent>, from: number): string => {
  const decoder = new TextDecoder()
  let cursor = from
  let text = ""
  for (const event of events) {
    if (event._tag !== "Output") continue
    same(event.cursor, cursor, "cursor")
    cursor += event.data.byteLength
    text += decoder.decode(event.data, { stream: true })
  }
  return text
}

const processes = area("processes")

const journals = processes({
  "a program in the background runs on, and its exit is told to all who wait": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.commands.start("cat; exit 5", { stdin: true })
      const waiting = yield* Effect.forkScoped(process.exit)
      yield* process.closeStdin
      same(yield* process.exit, { _tag: "Exited", code: 5 })
      same(yield* Fiber.join(waiting), { _tag: "Exited", code: 5 })
      same(yield* process.exit, { _tag: "Exited", code: 5 })
    })
  ),

  "the list says what runs and what ran": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const processId = yield* unique("p")
      const process = yield* sandbox.process.start(["sleep", "1000"], { processId })
      const listed = (yield* sandbox.process.list).filter((info) => info.processId === processId)
      same(
        listed.map(({ argv, user, pty, pid, generation, exit }) => ({
          argv,
          user,
          pty,
          pid,
          generation,
          exit
        })),
        [
          {
            argv: ["sleep", "1000"],
            user: "user",
            pty: false,
            pid: process.pid,
            generation: process.generation,
            exit: undefined
          }
        ]
      )
      yield* process.kill
      const [ended] = (yield* sandbox.process.list).filter((info) => info.processId === processId)
      same(ended?.exit, { _tag: "Signaled", signal: "SIGKILL", number: 9 })
    })
  ),

  "an attached reader gets every byte once, in order, from its cursor on": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const text = lines(400_000)
      yield* sandbox.files.write(`${home}/text`, text)
      const process = yield* sandbox.process.start(["cat", `${home}/text`])
      const first = yield* process.events().pipe(
        Stream.takeUntil((event) => event._tag === "Output" && event.cursor > 100_000),
        Stream.runCollect
      )
      const part = bytesFrom(first, 0)
      holds(part.length > 100_000, "the first reader took a part")
      const rest = yield* Stream.runCollect(process.events({ cursor: part.length }))
      same(rest[0]?._tag, "Started")
      holds(part + bytesFrom(rest, part.length) === text, "both parts are the whole")
      const all = yield* Stream.runCollect(process.events())
      holds(bytesFrom(all, 0) === text, "the journal is still whole")
      const last = all.at(-1)
      same(last?._tag === "Exited" ? last.cursor : undefined, text.length)
    })
  ),

  "several readers of one program each get all": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.process.start(["cat"], { stdin: true })
      const readers = yield* Effect.forEach([1, 2, 3], () => Effect.forkScoped(outputOf(process)))
      yield* process.write("one\n")
      yield* process.write("two\n")
      yield* process.closeStdin
      for (const reader of readers) same((yield* Fiber.join(reader)).captured.stdout, "one\ntwo\n")
    })
  ),

  "losing a reader kills nothing": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.commands.start("echo up; cat", { stdin: true })
      yield* untilOutput(process)
      const reader = yield* Effect.forkScoped(outputOf(process), { startImmediately: true })
      yield* Fiber.interrupt(reader)
      yield* process.write("alive\n")
      yield* process.closeStdin
      same(yield* textOf(process), "up\nalive\n")
    })
  ),

  "what was overwritten before it was read is marked, the rest is whole": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const text = lines(40_000)
      yield* sandbox.files.write(`${home}/text`, text)
      const process = yield* sandbox.commands.start(`cat ${home}/text`, { journalBytes: 4096 })
      // A reader that only wants the exit lets the output pass by.
      yield* process.exit
      const events = yield* Stream.runCollect(process.events())
      const gap = events.find((event) => event._tag === "Truncated")
      const to = gap?._tag === "Truncated" ? gap.to : 0
      same(gap, { _tag: "Truncated", from: 0, to })
      holds(to > 0 && text.length - to <= 4096, `at most 4096 bytes are kept, not ${text.length - to}`)
      same(bytesFrom(events, to), text.slice(to))
      const [info] = yield* sandbox.process.list
      same([info?.oldest, info?.end], [to, text.length])
    })
  ),

  "a process is found again by its id, running or ended": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const processId = yield* unique("p")
      const started = yield* sandbox.process.start(["cat"], { processId, stdin: true })
      yield* started.write("one ")
      const found = yield* sandbox.process.connect(processId)
      same([found.pid, found.generation], [started.pid, started.generation])
      yield* found.write("two")
      yield* found.closeStdin
      yield* started.exit
      same(yield* textOf(yield* sandbox.process.connect(processId)), "one two")
      const error = yield* refused(sandbox.process.connect("nobody"), "NotFound")
      same([error.kind, error.id], ["process", "nobody"])
    })
  ),

  "a bound on a reader leaves out the rest and says how much": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.commands.start("echo 0123456789")
      const { captured } = yield* outputOf(process, { maxOutputBytes: 4 })
      same([captured.stdout, captured.droppedBytes], ["0123", 7])
    })
  )
})

const control = processes({
  "input arrives in the order it was written, in pieces of any size": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.process.start(["cat"], { stdin: true })
      const output = yield* Effect.forkScoped(gather(process.events()))
      const text = lines(300_000)
      yield* process.write("")
      yield* process.write(text.slice(0, 1))
      yield* process.write(text.slice(1, 200_001))
      yield* process.write(new TextEncoder().encode(text.slice(200_001)))
      yield* process.closeStdin
      yield* process.closeStdin
      holds((yield* Fiber.join(output)).captured.stdout === text, "all bytes came back in order")
    })
  ),

  "writing to standard input that has ended is refused as such, however it ended": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const closed = yield* sandbox.process.start(["sleep", "1000"], { stdin: true })
      yield* closed.write("x")
      yield* closed.closeStdin
      const exited = yield* sandbox.process.start(["true"], { stdin: true })
      yield* exited.exit
      const without = yield* sandbox.process.start(["sleep", "1000"])
      for (const process of [closed, exited, without]) {
        const error = yield* refused(process.write("y"), "InvalidArgument")
        same([error.field, error.reason], ["stdin", "standard input has ended"])
        yield* process.closeStdin
        yield* process.kill
      }
    })
  ),

  "a signal reaches the program, and one that has ended is no error": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.process.start(["sleep", "1000"])
      yield* process.signal("SIGTERM")
      same(yield* process.exit, { _tag: "Signaled", signal: "SIGTERM", number: 15 })
      yield* process.signal("SIGTERM")
      yield* process.kill
    })
  ),

  "a program can answer a signal": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.commands.start(
        "trap 'echo got it; exit 3' USR1; echo up; while true; do sleep 0.05; done"
      )
      yield* untilOutput(process)
      yield* process.signal("SIGUSR1")
      same(yield* process.exit, { _tag: "Exited", code: 3 })
      same(yield* textOf(process), "up\ngot it\n")
    })
  ),

  "a signal reaches the whole group": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.commands.start("sleep 1000 | cat; echo not reached")
      yield* process.signal("SIGTERM")
      same(yield* process.exit, { _tag: "Signaled", signal: "SIGTERM", number: 15 })
    })
  ),

  "killing twice succeeds": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.process.start(["sleep", "1000"])
      yield* process.kill
      yield* process.kill
      same(yield* process.exit, { _tag: "Signaled", signal: "SIGKILL", number: 9 })
    })
  ),

  "a program that ended within its time limit stays so, though nobody watched it": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.process.start(["true"], { timeoutMillis: 100 })
      yield* sandbox.process.run(["sleep", "0.3"])
      const last = yield* Stream.runLast(process.events())
      const exited = last._tag === "Some" && last.value._tag === "Exited" ? last.value : undefined
      same([exited?.timedOut, exited?.status], [false, { _tag: "Exited", code: 0 }])
      const events = yield* Stream.runCollect(sandbox.events({ once: true }))
      holds(!events.some(({ body }) => body._tag === "ProcessTimedOut"), "no event says otherwise")
    })
  ),

  "a program in the background has a time limit too": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const process = yield* sandbox.process.start(["sleep", "1000"], { timeoutMillis: 50 })
      const last = yield* Stream.runLast(process.events())
      const exited = last._tag === "Some" && last.value._tag === "Exited" ? last.value : undefined
      same([exited?.timedOut, exited?.status._tag], [true, "Signaled"])
      const events = yield* Stream.runCollect(sandbox.events({ once: true }))
      holds(
        events.some(({ body }) => body._tag === "ProcessTimedOut" && body.processId === process.processId),
        "an event says so"
      )
    })
  )
})

const holding = processes(
  {
    "a reader that does not hold a program up loses bytes, is told so, and sees the end": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const count = 3_000_000
        const done = `${home}/done`
        const process = yield* sandbox.commands.start(`read go; seq ${count}; touch done`, { stdin: true })
        const begun = yield* Deferred.make<void>()
        const slowly = (event: ProcessEvent) =>
          event._tag === "Started"
            ? Deferred.succeed(begun, undefined)
            : // The program ends while nothing is taken.
              Effect.repeat(sandbox.files.exists(done), {
                schedule: Schedule.spaced(20),
                until: (isDone) => isDone
              })
        const events = Stream.runCollect(Stream.tap(process.events({ hold: false }), slowly))
        const [seen] = yield* Effect.all(
          [events, Effect.andThen(Deferred.await(begun), process.write("go\n"))],
          { concurrency: 2 }
        )
        let cursor = 0
        for (const event of seen) {
          if (event._tag === "Truncated") same(event.from, cursor, "the gap begins where the bytes end")
          if (event._tag === "Output") same(event.cursor, cursor, "cursor")
          if (event._tag === "Output") cursor += event.data.byteLength
          if (event._tag === "Truncated") cursor = event.to
        }
        holds(
          seen.some(({ _tag }) => _tag === "Truncated"),
          "a gap is told"
        )
        const last = seen.at(-1)
        same(last?._tag === "Exited" && [last.status, last.cursor], [{ _tag: "Exited", code: 0 }, cursor])
        const output = seen.findLast((event) => event._tag === "Output")
        const ending = new TextDecoder().decode(output?.data)
        holds(ending.endsWith(`${count}\n`), "the end is there")
      })
    ),

    "a command's time does not run while the sandbox is paused": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const process = yield* sandbox.commands.start("echo up; cat", { stdin: true, timeoutMillis: 1500 })
        yield* untilOutput(process)
        yield* sandbox.pause
        // What is promised is that time passes: there is nothing else to wait for.
        yield* Effect.sleep(1700)
        yield* sandbox.resume
        yield* process.closeStdin
        same(yield* process.exit, { _tag: "Exited", code: 0 })
      })
    ),

    "standard input waits while the sandbox is paused, and all of it arrives": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const paused = yield* Deferred.make<void>()
        const bytes = (text: string) => new TextEncoder().encode(text)
        const rest = Effect.as(Deferred.await(paused), bytes("two\n"))
        const reading = yield* Deferred.make<void>()
        const first = Effect.as(Deferred.succeed(reading, undefined), bytes("one\n"))
        const stdin = Stream.concat(Stream.fromEffect(first), Stream.fromEffect(rest))
        const run = yield* Effect.forkScoped(sandbox.process.run(["cat"], { stdin }))
        yield* Deferred.await(reading)
        yield* sandbox.pause
        yield* Deferred.succeed(paused, undefined)
        yield* refused(sandbox.process.run(["true"]), "InvalidState")
        yield* sandbox.resume
        same((yield* Fiber.join(run)).stdout, "one\ntwo\n")
      })
    )
  },
  ["pause"]
)

export const processCases = [...journals, ...control, ...holding]
