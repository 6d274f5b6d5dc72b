/**
 * Random programs against a model: a small, typed runner for stateful systems.
 *
 * A system under test is driven by commands, which are plain data. A pure model
 * predicts what each command answers; the runner makes random programs of
 * commands, runs each against a fresh system, and compares. A program that
 * diverges is made shorter, command by command, as long as it still diverges,
 * and its replay token runs exactly that program again.
 *
 * ```ts
 * const counter: ModelRunner.Spec<"add" | "read", number, Ref.Ref<number>, number | undefined> = {
 *   command: Arbitrary.schema(Schema.Literals(["add", "read"])),
 *   initial: 0,
 *   predict: (count, command) =>
 *     command === "add" ? { model: count + 1, outcome: undefined } : { model: count, outcome: count },
 *   make: Ref.make(0),
 *   run: (ref, command) =>
 *     command === "add" ? Ref.update(ref, (n) => n + 1) : Ref.get(ref)
 * }
 * const result = yield* ModelRunner.check(counter, { runs: 1000 })
 * ```
 */

import { isDeepStrictEqual } from "node:util"
import { Arbitrary, Cause, Clock, Context, Effect, Exit, Fiber, Formatter, Schema, type Scope } from "effect"

/** What a model says of one command: how it leaves the model, and what it must answer. */
export interface Prediction<Model, Outcome> {
  readonly model: Model
  /** Compared deeply with the system's answer. */
  readonly outcome: Outcome
}

/**
 * A system and its model. `Command` is data: what is generated, printed and
 * shrunk. `System` is whatever `run` needs to reach the system under test.
 */
export interface Spec<Command, Model, System, Outcome, E = never, R = never> {
  /** One command. Programs are arrays of them, so every command must be possible in every state. */
  readonly command: Arbitrary.Arbitrary<Command>
  /** A command that every program ends with, besides; it is given when all others went as predicted. */
  readonly last?: Command | undefined
  readonly initial: Model
  /** Pure: what the command does to the model, and what it answers. */
  readonly predict: (model: Model, command: Command) => Prediction<Model, Outcome>
  /** A fresh system for one program; its scope closes at the program's end. */
  readonly make: Effect.Effect<System, E, R | Scope.Scope>
  /** Gives the command to the system. Expected failures are part of `Outcome`; a typed error here is a divergence too. */
  readonly run: (system: System, command: Command) => Effect.Effect<Outcome, E, R | Scope.Scope>
  /** What can be seen of the whole after every command, told by the model and asked of the system. */
  readonly view?: {
    readonly ofModel: (model: Model) => unknown
    readonly ofSystem: (system: System) => Effect.Effect<unknown, E, R | Scope.Scope>
  }
}

/** Where a system went another way than its model. */
export class Divergence extends Schema.TaggedError<Divergence>("fiberbox/testing/ModelRunner/Divergence")(
  "Divergence",
  {
    /** The command it happened at, counted from 1; 0 when the system could not be made. */
    step: Schema.Natural,
    command: Schema.String,
    expected: Schema.String,
    actual: Schema.String
  }
) {
  override get message(): string {
    return `step ${this.step}, ${this.command}: expected ${this.expected}, got ${this.actual}`
  }
}

/** How programs are made. */
export interface Options {
  /** How many programs; default 100. */
  readonly runs?: number | undefined
  /** The fewest commands of one program; default 0. Programs are short at first and grow with the runs. */
  readonly minCommands?: number | undefined
  /** The most commands of one program; default 30. */
  readonly maxCommands?: number | undefined
  /** The same seed makes the same programs. */
  readonly seed?: string | number | undefined
  /** A token of an earlier failure: only that program is run. */
  readonly replay?: Arbitrary.Replay | undefined
  /** How many smaller programs are tried after a failure; default 1000. */
  readonly maxShrinks?: number | undefined
  /** Real milliseconds without an answer after which a system counts as stuck; default 10,000. */
  readonly stuckMillis?: number | undefined
}

/** What came of a check: all programs passed, or one diverged, with its shortest form and replay token. */
export type Result<Command> = Arbitrary.CheckResult<ReadonlyArray<Command>, Divergence>

const show = (value: unknown): string => Formatter.format(value)

/** How far a program has come. */
interface Progress {
  /** Commands begun. */
  step: number
  at: string
  /** Changes whenever something has happened. */
  ticks: number
}

/** The program itself: fails where the system diverges from the model. */
const steps = Effect.fnUntraced(function* <Command, Model, System, Outcome, E, R>(
  spec: Spec<Command, Model, System, Outcome, E, R>,
  program: ReadonlyArray<Command>,
  progress: Progress
): Effect.fn.Return<void, Divergence, R | Scope.Scope> {
  /** A system's answer; its failures and defects are divergences. */
  const answer = Effect.fnUntraced(function* <A>(effect: Effect.Effect<A, E, R | Scope.Scope>) {
    const exit = yield* Effect.exit(effect)
    progress.ticks++
    if (Exit.isSuccess(exit)) return exit.value
    if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
    return yield* diverged(progress, "an answer", Cause.pretty(exit.cause))
  })
  const agree = (actual: unknown, expected: unknown) =>
    isDeepStrictEqual(actual, expected)
      ? Effect.void
      : Effect.fail(diverged(progress, show(expected), show(actual)))

  const system = yield* answer(spec.make)
  let model = spec.initial
  for (const command of spec.last === undefined ? program : [...program, spec.last]) {
    progress.step++
    progress.at = show(command)
    const prediction = spec.predict(model, command)
    yield* agree(yield* answer(spec.run(system, command)), prediction.outcome)
    model = prediction.model
    if (spec.view === undefined) continue
    yield* agree(yield* answer(spec.view.ofSystem(system)), spec.view.ofModel(model))
  }
  progress.at = "letting the system go"
}, Effect.scoped)

/** Time that passes by itself, also where a test clock is in place. */
const pass = (millis: number) => Effect.provideService(Effect.sleep(millis), Clock.Clock, liveClock)
const liveClock = Context.get(Context.empty(), Clock.Clock)

/**
 * Runs one program against a fresh system; fails where it diverges from the
 * model. A system that has not answered for `stuckMillis` of real time diverges too.
 */
export const runProgram = Effect.fnUntraced(function* <Command, Model, System, Outcome, E, R>(
  spec: Spec<Command, Model, System, Outcome, E, R>,
  program: ReadonlyArray<Command>,
  stuckMillis: number = defaultStuckMillis
): Effect.fn.Return<void, Divergence, Exclude<R, Scope.Scope>> {
  const progress = { step: 0, at: "making the system", ticks: 0 }
  // Detached, since what is stuck may not be interruptible: nobody shall wait for it.
  const running = yield* Effect.forkDetach(steps(spec, program, progress))
  const watch = Effect.gen(function* () {
    for (let seen = -1; progress.ticks !== seen; ) {
      seen = progress.ticks
      yield* pass(stuckMillis)
    }
    return yield* diverged(progress, "an answer", `none for ${stuckMillis} ms`)
  })
  return yield* Effect.ensuring(
    Effect.raceFirst(Fiber.join(running), watch),
    Effect.sync(() => running.interruptUnsafe())
  )
})

const defaultStuckMillis = 10_000

const diverged = ({ step, at }: Progress, expected: string, actual: string) =>
  new Divergence({ step, command: at, expected, actual })

/** Runs random programs until one diverges from the model, and makes that one as short as it can. */
export const check = <Command, Model, System, Outcome, E, R>(
  spec: Spec<Command, Model, System, Outcome, E, R>,
  options: Options = {}
): Effect.Effect<Result<Command>, never, Exclude<R, Scope.Scope>> => {
  const { minCommands = 0, maxCommands = 30 } = options
  return Arbitrary.checkEffect(
    Arbitrary.array(spec.command, { minLength: minCommands, maxLength: maxCommands }),
    (program) => Effect.as(runProgram(spec, program, options.stuckMillis), true),
    {
      runs: options.runs,
      seed: options.seed,
      replay: options.replay,
      maxShrinks: options.maxShrinks ?? 1000,
      // Programs grow with the runs: half of them may be as long as they come.
      size: 2 * maxCommands
    }
  )
}

/** Says what a check found, with the program and its replay token; undefined when all agreed. */
export const report = <Command>(result: Result<Command>, replayVariable?: string): string | undefined => {
  if (result._tag !== "Falsified") return Arbitrary.formatCheckFailure(result)
  const steps = result.shrunkInput.map((command, index) => `  ${index + 1}. ${show(command)}`)
  const { failure } = result
  const token = JSON.stringify(result.replay)
  return [
    `after ${result.runs} programs one diverged from the model; shortened by ${result.shrinks} steps:`,
    ...steps,
    failure._tag === "PropertyError" ? failure.error.message : "it returned false",
    `to run it again: ${replayVariable === undefined ? `replay ${token}` : `${replayVariable}='${result.replay}'`}`
  ].join("\n")
}
