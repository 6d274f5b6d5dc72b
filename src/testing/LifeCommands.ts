/**
 * What random programs of a sandbox's life under faults are made of: calls, and
 * what goes wrong before, between and in the middle of them.
 */
import { Schema } from "effect"
import { ExpiryAction } from "../domain/Sandbox.ts"

/** The names under which sandboxes are created. */
export const Slot = Schema.Literals(["a", "b"])
export type Slot = typeof Slot.Type
const Path = Schema.Literals(["f", "g"])
export type Path = typeof Path.Type
const Text = Schema.Literals(["x", "yy"])

/** Limits count in units of the world that they are tried in. */
const Units = Schema.Literals([1, 3])
const Ttl = Schema.Struct({ units: Units, action: ExpiryAction })

/** Creates a sandbox that nobody holds, in a slot that is free; in one that is taken it shall be refused. */
const Create = Schema.TaggedStruct("Create", {
  slot: Slot,
  restarts: Schema.Boolean,
  ttl: Schema.NullOr(Ttl)
})
const Change = Schema.TaggedStruct("Change", {
  slot: Slot,
  command: Schema.Literals(["start", "stop", "restart", "pause", "resume", "kill"])
})
const SetTtl = Schema.TaggedStruct("SetTtl", { slot: Slot, ttl: Schema.NullOr(Ttl) })
const Write = Schema.TaggedStruct("Write", { slot: Slot, path: Path, text: Text })
const Read = Schema.TaggedStruct("Read", { slot: Slot, path: Path })
/** How a program lives: alone, with a child beside it, or leaving behind a child that outlives it. */
const Shape = Schema.Literals(["alone", "pair", "leaves a child"])
export type Shape = typeof Shape.Type
/** Starts a program that never ends by itself. */
const Start = Schema.TaggedStruct("Start", { slot: Slot, shape: Shape, limit: Schema.NullOr(Units) })
/** Runs a program that never ends by itself until its limit ends it. */
const RunLong = Schema.TaggedStruct("RunLong", { slot: Slot, shape: Schema.Literals(["alone", "pair"]) })
/** Runs a program that answers at once. */
const Echo = Schema.TaggedStruct("Echo", { slot: Slot, text: Text })
/** Ends the program that was started last. */
const KillProgram = Schema.TaggedStruct("KillProgram", { slot: Slot })
/** Uses up the disk's bytes or its files. */
const Fill = Schema.TaggedStruct("Fill", { slot: Slot, what: Schema.Literals(["bytes", "files"]) })

/** Something that is asked of the service. */
export const Call = Schema.Union([
  Create,
  Create,
  Change,
  Change,
  Change,
  Change,
  SetTtl,
  Write,
  Write,
  Read,
  Start,
  Start,
  RunLong,
  Echo,
  KillProgram,
  Fill
])
export type Call = typeof Call.Type

/** The service is killed, and another takes over. */
const ServiceKilled = Schema.TaggedStruct("ServiceKilled", {})
/** The service ends in order, and another takes over. */
const ServiceEnded = Schema.TaggedStruct("ServiceEnded", {})
/** A machine ends by itself. */
const MachineDies = Schema.TaggedStruct("MachineDies", { slot: Slot })
/** The way to a machine is cut; the next call may take it again. */
const WayCut = Schema.TaggedStruct("WayCut", { slot: Slot })
/** The agent in a machine stands still until `Heal`. */
const AgentHangs = Schema.TaggedStruct("AgentHangs", { slot: Slot })
/** What makes and ends machines fails or stands still: the next time that it is used in this way, or whatever of it runs now. */
const HelperFails = Schema.TaggedStruct("HelperFails", {
  slot: Slot,
  how: Schema.Literals(["dies", "hangs", "loses its answer"]),
  at: Schema.Literals(["provision", "adopt", "remove", "terminate", "pause", "resume"])
})
/** The next writes of the store fail; `null`: all until `Heal`. */
const StoreFails = Schema.TaggedStruct("StoreFails", {
  writes: Schema.NullOr(Schema.Literals([1, 2])),
  skip: Schema.Literals([0, 1])
})
/** The disk that holds the store and all sandboxes has no room left until `Heal`. */
const DiskFull = Schema.TaggedStruct("DiskFull", {})
/** The wall clock is set an hour forward or a day back; no more time passes for it. */
const ClockJumps = Schema.TaggedStruct("ClockJumps", { to: Schema.Literals(["an hour on", "a day back"]) })

/** Something that goes wrong. */
export const Fault = Schema.Union([
  ServiceKilled,
  ServiceKilled,
  ServiceEnded,
  MachineDies,
  WayCut,
  AgentHangs,
  HelperFails,
  HelperFails,
  StoreFails,
  StoreFails,
  DiskFull,
  ClockJumps
])
export type Fault = typeof Fault.Type

/** How far a call has come: in the world's own small steps, some dozens for a whole call. */
const Moment = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 }))

/** A call in the middle of which something goes wrong. */
const During = Schema.TaggedStruct("During", { call: Call, fault: Fault, moment: Moment })
/** A call that its caller gives up in the middle. */
const GivenUp = Schema.TaggedStruct("GivenUp", {
  call: Schema.Union([Create, Start, RunLong]),
  moment: Moment
})
/** What stands still goes on, and the store and the clock are right again. */
const Heal = Schema.TaggedStruct("Heal", {})
const Wait = Schema.TaggedStruct("Wait", { units: Units })
/** The end of every program: all is healed, all limits pass, all files are read, all sandboxes are killed. */
const End = Schema.TaggedStruct("End", {})

/** One step of a program, as they are drawn. */
export const Step = Schema.Union([Call, Call, Call, Call, Fault, Fault, During, During, GivenUp, Heal, Wait])

/** One step of a program. */
export const Command = Schema.Union([Step, End])
export type Command = typeof Command.Type
export type Of<Tag extends Command["_tag"]> = Extract<Command, { readonly _tag: Tag }>

/** The slot that something is about; undefined where it is about all. */
export const slotOf = (about: Call | Fault): Slot | undefined => ("slot" in about ? about.slot : undefined)
