/**
 * The system side of {@link Model}: carries a random program's operations out
 * through `Sandboxes`, and puts the answers into the model's words.
 */
import { Arbitrary, Clock, Effect, Fiber, Scope, Stream } from "effect"
import type { SandboxError } from "../domain/Errors.ts"
import type { SandboxEvent } from "../domain/Event.ts"
import type { SandboxId } from "../domain/Ids.ts"
import type { Process } from "../services/Process.ts"
import type { Sandbox } from "../services/Sandbox.ts"
import type { Sandboxes } from "../services/Sandboxes.ts"
import { running } from "./conformance/Programs.ts"
import { Command, first, initial, type Model, predict, restartMillis, type Slot, view } from "./Model.ts"
import type * as ModelRunner from "./ModelRunner.ts"

/** What random programs need of a backend and its service besides `Sandboxes`. */
export interface World {
  /** The service that runs at the moment. */
  readonly sandboxes: Effect.Effect<Sandboxes["Service"]>
  /** Ends the machine of a sandbox as if it had died. */
  readonly die: (id: SandboxId) => Effect.Effect<void>
  /** Makes the next operation on the machine of a sandbox end in a defect. */
  readonly breakNext: (id: SandboxId) => Effect.Effect<void>
  /** Ends the service, in order or as `kill -9` would, and starts another on the same machines and records. */
  readonly restartService: (crash: boolean) => Effect.Effect<void>
  /** Lets time pass. */
  readonly wait: (millis: number) => Effect.Effect<void>
}

interface Held {
  sandbox: Sandbox
  process: Process | undefined
}

/** A world with what its program holds of it. */
interface System {
  readonly world: World
  readonly held: Map<Slot, Held>
}

/** An answer that is an error, in the model's words. */
const describe = (error: SandboxError): string => {
  switch (error._tag) {
    case "InvalidState":
      return `InvalidState ${error.status}`
    case "NotFound":
      return `NotFound ${error.kind}`
    case "Conflict":
      return `Conflict ${error.kind}`
    case "GenerationChanged":
      return `GenerationChanged ${error.expected} ${error.current}`
    case "CommandExit":
      return `CommandExit ${error.exitCode}`
    case "FileFailed":
      return `FileFailed ${error.reason}`
    default:
      return `${error._tag}: ${error.message}`
  }
}

const said = <A, R>(
  effect: Effect.Effect<A, SandboxError, R>,
  answer: (value: A) => string = () => "ok"
): Effect.Effect<string, never, R> => Effect.match(effect, { onSuccess: answer, onFailure: describe })

const path = (name: string) => `/home/user/${name}`
const settled = (info: { readonly status: string; readonly generation: number }) =>
  `${info.status} ${info.generation}`

const policy = (restarts: boolean) =>
  restarts
    ? { _tag: "Always" as const, initialMillis: restartMillis, factor: 1, maxMillis: restartMillis }
    : { _tag: "Never" as const }

const run = (system: System, command: Command) => {
  switch (command._tag) {
    case "RestartService":
      return restartService(system, command.crash)
    case "Wait":
      return wait(system, command.millis)
    case "Create":
      return create(system, command)
    default: {
      const held = system.held.get(command.slot)
      return held === undefined ? Effect.succeed("nothing") : operate(system, held, command)
    }
  }
}

const create = Effect.fnUntraced(function* (
  { world, held }: System,
  { slot, detached, restarts }: Extract<Command, { readonly _tag: "Create" }>
) {
  const sandboxes = yield* world.sandboxes
  const options = { name: slot, restartPolicy: policy(restarts) }
  // The scope is the program's that the service dies with: nobody closes it.
  const made = detached
    ? sandboxes.createDetached(options)
    : Effect.flatMap(Scope.make(), (scope) => Scope.provide(sandboxes.create(options), scope))
  return yield* said(
    Effect.tap(made, (sandbox) => Effect.sync(() => held.set(slot, { sandbox, process: undefined }))).pipe(
      Effect.flatMap((sandbox) => sandbox.info)
    ),
    settled
  )
})

const operate = (
  { world }: System,
  held: Held,
  command: Exclude<Command, { readonly _tag: "RestartService" | "Wait" | "Create" }>
) => {
  const { sandbox } = held
  const output = (text: string) => said(sandbox.commands.run(text), (result) => result.stdout)
  switch (command._tag) {
    case "Change":
      return change(sandbox, command.command)
    case "Echo":
      return output(`printf %s ${command.text}`)
    case "Exit":
      return output(`exit ${command.code}`)
    case "Append":
      return output(`printf %s ${command.text} >> ${path(command.path)}`)
    case "Write":
      return said(sandbox.files.write(path(command.path), command.text))
    case "Read":
      return said(sandbox.files.readText(path(command.path)), (text) => text)
    case "Spawn":
      return said(
        Effect.map(sandbox.process.start(["sleep", "100000"], { processId: "sleeper" }), (process) => {
          held.process = process
        })
      )
    case "KillProcess":
      return held.process === undefined ? Effect.succeed("nothing") : said(held.process.kill)
    case "Look":
      return said(sandbox.process.list, (list) => {
        const sleeper = list.find((info) => info.processId === "sleeper")
        return sleeper === undefined ? "none" : sleeper.exit === undefined ? "running" : "ended"
      })
    case "Interrupt":
      return said(interrupt(sandbox), (answer) => answer)
    case "Die":
      return die(world, sandbox)
    case "Defect":
      return breakOnce(world, sandbox)
  }
}

const change = (sandbox: Sandbox, command: Extract<Command, { readonly _tag: "Change" }>["command"]) => {
  switch (command) {
    case "kill":
      return said(sandbox.kill)
    case "stop":
      return said(sandbox.stop({ graceMillis: 1000 }), settled)
    default:
      return said(sandbox[command], settled)
  }
}

const interrupt = Effect.fnUntraced(function* (sandbox: Sandbox) {
  const fiber = yield* running(sandbox, "(setsid sleep 100000 &); echo up; sleep 100000")
  yield* Fiber.interrupt(fiber)
  const list = yield* sandbox.process.list
  const left = list.filter((info) => info.exit === undefined && info.processId !== "sleeper")
  return left.length === 0 ? "interrupted, nothing left" : `left ${left.map((info) => info.argv.join(" "))}`
}, Effect.scoped)

const die = Effect.fnUntraced(function* (world: World, sandbox: Sandbox) {
  const before = yield* Effect.orDie(sandbox.info)
  if (before.status !== "running" && before.status !== "paused") return "nothing"
  const restarts = before.spec.restartPolicy._tag === "Always"
  const last = (yield* history(sandbox)).length
  yield* world.die(sandbox.id)
  // Not before the service knows of it, and has decided what to do.
  yield* until(sandbox, last, ({ body }) =>
    restarts ? body._tag === "RestartScheduled" : body._tag === "StatusChanged" && body.to === "failed"
  )
  return "ok"
})

const breakOnce = Effect.fnUntraced(function* (world: World, sandbox: Sandbox) {
  const info = yield* Effect.orDie(sandbox.info)
  if (info.status === "running") yield* world.breakNext(sandbox.id)
  return yield* said(sandbox.files.stat("/")).pipe(Effect.catchDefect(() => Effect.succeed("defect")))
})

const restartService = Effect.fnUntraced(function* ({ world, held }: System, crash: boolean) {
  const before = yield* Effect.forEach(held.values(), ({ sandbox }) => history(sandbox))
  yield* world.restartService(crash)
  const sandboxes = yield* world.sandboxes
  for (const [index, one] of [...held.values()].entries()) {
    const info = yield* Effect.orDie(sandboxes.get(one.sandbox.id))
    one.sandbox = yield* Effect.orDie(sandboxes.connect(one.sandbox.id))
    one.process = undefined
    const last = before[index]?.length ?? 0
    const restarts = info.status === "failed" && info.spec.restartPolicy._tag === "Always"
    if (restarts) yield* until(one.sandbox, last, ({ body }) => body._tag === "RestartScheduled")
    if (info.status === "running" || info.status === "paused") {
      yield* until(one.sandbox, last, ({ body }) => body._tag === "Adopted")
    }
  }
  return "ok"
})

const wait = Effect.fnUntraced(function* ({ world, held }: System, millis: number) {
  yield* world.wait(millis)
  const now = yield* Clock.currentTimeMillis
  for (const { sandbox } of held.values()) {
    const events = yield* history(sandbox)
    const decisive = events.findLast(
      ({ body }) => body._tag === "RestartScheduled" || body._tag === "StatusChanged"
    )
    if (decisive?.body._tag === "RestartScheduled" && decisive.at + decisive.body.delayMillis <= now) {
      yield* until(
        sandbox,
        decisive.sequence,
        ({ body }) => body._tag === "StatusChanged" && (body.to === "running" || body.to === "failed")
      )
    }
  }
  return "ok"
})

/** What has happened so far. */
const history = (sandbox: Sandbox) => Effect.orDie(Stream.runCollect(sandbox.events({ once: true })))

/** Waits for an event after the one of this number. */
const until = (sandbox: Sandbox, after: number, isIt: (event: SandboxEvent) => boolean) =>
  Effect.orDie(Stream.runDrain(Stream.takeUntil(sandbox.events({ after }), isIt)))

const look = ({ world, held }: System) =>
  Effect.gen(function* () {
    const sandboxes = yield* world.sandboxes
    const status = (slot: Slot) => {
      const one = held.get(slot)
      return one === undefined ? Effect.succeed("nothing") : said(sandboxes.get(one.sandbox.id), settled)
    }
    return [yield* status("a"), yield* status("b")]
  })

/** What is left out of random programs. */
export interface SpecOptions {
  /**
   * Whether machines that died are started again after a while. Only where time
   * passes by nothing but `World.wait`, as on a test clock. Default: yes.
   */
  readonly restarts?: boolean | undefined
}

/** The model and a world, as the model runner wants them. `make` gives a fresh world for every program. */
export const spec = <E, R>(
  make: Effect.Effect<World, E, R>,
  { restarts = true }: SpecOptions = {}
): ModelRunner.Spec<Command, Model, System, string, E, R> => {
  const command = Arbitrary.schema(Command)
  const untimed = command.pipe(
    Arbitrary.filter((one) => one._tag !== "Wait"),
    Arbitrary.map((one) => (one._tag === "Create" ? { ...one, restarts: false } : one))
  )
  return {
    command: restarts ? command : untimed,
    initial: initial(restarts),
    predict,
    make: Effect.gen(function* () {
      const system = { world: yield* make, held: new Map() }
      yield* run(system, first(restarts))
      return system
    }),
    run,
    view: { ofModel: view, ofSystem: look }
  }
}
