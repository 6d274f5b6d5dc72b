/**
 * What a sandbox is, as a pure model: which programs of operations lead where,
 * and what each operation answers. Small on purpose: two named sandboxes, two
 * files, one program in the background; every operation may be asked in every state.
 *
 * Times are milliseconds of the model's own clock, which moves only by `Wait`.
 */
import { Schema } from "effect"
import { decide, type Command as LifeCommand } from "../domain/Status.ts"

/** The names under which sandboxes are created. */
const Slot = Schema.Literals(["a", "b"])
export type Slot = typeof Slot.Type
const Path = Schema.Literals(["f", "g"])
const Text = Schema.Literals(["x", "yy"])

const Create = Schema.TaggedStruct("Create", {
  slot: Slot,
  detached: Schema.Boolean,
  restarts: Schema.Boolean
})
const Change = Schema.TaggedStruct("Change", {
  slot: Slot,
  command: Schema.Literals(["start", "stop", "restart", "pause", "resume", "kill"])
})
const Echo = Schema.TaggedStruct("Echo", { slot: Slot, text: Text })
const Exit = Schema.TaggedStruct("Exit", { slot: Slot, code: Schema.Literals([0, 3]) })
const Append = Schema.TaggedStruct("Append", { slot: Slot, path: Path, text: Text })
const Write = Schema.TaggedStruct("Write", { slot: Slot, path: Path, text: Text })
const Read = Schema.TaggedStruct("Read", { slot: Slot, path: Path })
/** Starts the background program, or finds it. */
const Spawn = Schema.TaggedStruct("Spawn", { slot: Slot })
/** Kills it by the handle that `Spawn` gave. */
const KillProcess = Schema.TaggedStruct("KillProcess", { slot: Slot })
/** Looks whether it runs. */
const Look = Schema.TaggedStruct("Look", { slot: Slot })
/** Runs something long and interrupts it. */
const Interrupt = Schema.TaggedStruct("Interrupt", { slot: Slot })
/** The machine ends by itself. */
const Die = Schema.TaggedStruct("Die", { slot: Slot })
/** A handler of the service dies with a defect. */
const Defect = Schema.TaggedStruct("Defect", { slot: Slot })
/** The service ends, in order or killed, and another takes over machines and records. */
const RestartService = Schema.TaggedStruct("RestartService", { crash: Schema.Boolean })
const Wait = Schema.TaggedStruct("Wait", { millis: Schema.Literals([50, 100]) })

/**
 * One operation of a random program. Some kinds are named several times: that
 * is how often they are chosen, and changes of status are what matters most.
 */
export const Command = Schema.Union([
  Change,
  Change,
  Change,
  Change,
  Change,
  Change,
  Create,
  Create,
  Write,
  Write,
  Write,
  Read,
  Read,
  Read,
  Append,
  Spawn,
  Spawn,
  KillProcess,
  Look,
  Look,
  Echo,
  Exit,
  Interrupt,
  Die,
  Die,
  Defect,
  RestartService,
  Wait,
  Wait
])
export type Command = typeof Command.Type

/** The wait before the restart policy starts a machine again. */
export const restartMillis = 100

type Settled = "running" | "paused" | "stopped" | "failed" | "killed"

/** A sandbox as the model sees it. */
export interface Box {
  readonly status: Settled
  readonly generation: number
  readonly detached: boolean
  readonly restarts: boolean
  readonly files: { readonly [path: string]: string }
  /** The background program of the present machine. */
  readonly process: "none" | "running" | "ended"
  /** The incarnation that the handle on the background program is for. */
  readonly handle: number | undefined
  /** When the restart policy starts a machine again. */
  readonly restartAt: number | undefined
}

/** All that the model knows. */
export interface Model {
  readonly now: number
  readonly boxes: { readonly [S in Slot]: Box | undefined }
}

/** A sandbox that was just created. */
const created = (detached: boolean, restarts: boolean): Box => ({
  status: "running",
  generation: 1,
  detached,
  restarts,
  files: {},
  process: "none",
  handle: undefined,
  restartAt: undefined
})

/** Where every program begins: one sandbox runs, so that even short programs meet something. */
export const initial = (restarts: boolean): Model => ({
  now: 0,
  boxes: { a: created(true, restarts), b: undefined }
})
/** The operation that leads there. */
export const first = (restarts: boolean): Command => ({ _tag: "Create", slot: "a", detached: true, restarts })

/** What can be seen of every sandbox from outside: status and generation. */
export const view = (model: Model): ReadonlyArray<string> =>
  Object.values(model.boxes).map((box) => (box === undefined ? "nothing" : `${box.status} ${box.generation}`))

interface Step {
  readonly model: Model
  readonly outcome: string
}

/** What an operation does to the model, and what it answers, in the words of {@link describeError}. */
export const predict = (model: Model, command: Command): Step => {
  switch (command._tag) {
    case "RestartService":
      return { model: mapBoxes(model, (box) => restartService(model, box)), outcome: "ok" }
    case "Wait":
      return { model: wait(model, command.millis), outcome: "ok" }
    case "Create":
      return create(model, command)
    default: {
      const box = model.boxes[command.slot]
      if (box === undefined) return { model, outcome: "nothing" }
      const [after, outcome] = operate(model, box, command)
      return { model: put(model, command.slot, after), outcome }
    }
  }
}

type Operation = Exclude<Command, { readonly _tag: "RestartService" | "Wait" | "Create" }>

const operate = (model: Model, box: Box, command: Operation): readonly [Box, string] => {
  if (command._tag === "Change") return change(box, command.command)
  // A machine that is not there cannot end.
  if (command._tag === "Die")
    return box.status === "running" || box.status === "paused" ? die(model, box) : [box, "nothing"]
  if (command._tag === "KillProcess" && box.handle === undefined) return [box, "nothing"]
  if (box.status === "killed") return [box, "NotFound sandbox"]
  if (command._tag === "KillProcess" && box.handle !== box.generation) {
    return [box, `GenerationChanged ${box.handle} ${box.generation}`]
  }
  return box.status === "running" ? inMachine(box, command) : [box, `InvalidState ${box.status}`]
}

/** What is done inside a running machine. */
const inMachine = (
  box: Box,
  command: Exclude<Operation, { readonly _tag: "Change" | "Die" }>
): readonly [Box, string] => {
  switch (command._tag) {
    case "Echo":
      return [box, command.text]
    case "Exit":
      return [box, command.code === 0 ? "" : `CommandExit ${command.code}`]
    case "Append":
      return [withFile(box, command.path, (box.files[command.path] ?? "") + command.text), ""]
    case "Write":
      return [withFile(box, command.path, command.text), "ok"]
    case "Read":
      return [box, box.files[command.path] ?? "FileFailed not-found"]
    case "Spawn":
      // The same process id with the same content is the same process, also when it has ended.
      return [
        { ...box, process: box.process === "none" ? "running" : box.process, handle: box.generation },
        "ok"
      ]
    case "KillProcess":
      return [{ ...box, process: "ended" }, "ok"]
    case "Look":
      return [box, box.process]
    case "Interrupt":
      return [box, "interrupted, nothing left"]
    case "Defect":
      return [box, "defect"]
  }
}

const create = (model: Model, command: Extract<Command, { readonly _tag: "Create" }>): Step => {
  const { slot, detached, restarts } = command
  const old = model.boxes[slot]
  if (old !== undefined && old.status !== "killed") return { model, outcome: "Conflict name" }
  const box = created(detached, restarts)
  return { model: put(model, slot, box), outcome: "running 1" }
}

const change = (box: Box, command: LifeCommand): readonly [Box, string] => {
  if (box.status === "killed") return [box, command === "kill" ? "ok" : "NotFound sandbox"]
  const meaning = decide(command, box.status)
  if (meaning === "refused") return [box, `InvalidState ${box.status}`]
  const after = meaning === "done" ? box : changed(box, command)
  return [after, command === "kill" ? "ok" : `${after.status} ${after.generation}`]
}

const changed = (box: Box, command: LifeCommand): Box => {
  const isNewMachine = command === "start" || command === "restart"
  const keepsMachine = command === "pause" || command === "resume"
  return {
    ...box,
    status: settledTarget[command],
    generation: box.generation + (isNewMachine ? 1 : 0),
    process: keepsMachine ? box.process : "none",
    restartAt: undefined
  }
}

const settledTarget: { readonly [C in LifeCommand]: Settled } = {
  start: "running",
  stop: "stopped",
  restart: "running",
  pause: "paused",
  resume: "running",
  kill: "killed"
}

const die = (model: Model, box: Box): readonly [Box, string] => [
  {
    ...box,
    status: "failed",
    process: "none",
    restartAt: box.restarts ? model.now + restartMillis : undefined
  },
  "ok"
]

const restartService = (model: Model, box: Box): Box => {
  // Scoped sandboxes end with the program that created them.
  if (!box.detached && box.status !== "killed")
    return { ...box, status: "killed", process: "none", handle: undefined }
  const waits = box.status === "failed" && box.restarts
  return { ...box, handle: undefined, restartAt: waits ? model.now + restartMillis : undefined }
}

const wait = (model: Model, millis: number): Model => {
  const now = model.now + millis
  return {
    ...mapBoxes(model, (box) =>
      box.status === "failed" && box.restartAt !== undefined && box.restartAt <= now
        ? { ...box, status: "running", generation: box.generation + 1, restartAt: undefined }
        : box
    ),
    now
  }
}

const withFile = (box: Box, path: string, content: string): Box => ({
  ...box,
  files: { ...box.files, [path]: content }
})

const put = (model: Model, slot: Slot, box: Box): Model => ({
  ...model,
  boxes: { ...model.boxes, [slot]: box }
})

const mapBoxes = (model: Model, f: (box: Box) => Box): Model => ({
  ...model,
  boxes: {
    a: model.boxes.a && f(model.boxes.a),
    b: model.boxes.b && f(model.boxes.b)
  }
})
