/**
 * Programs in a sandbox: what to run, what comes out of them, how they ended.
 *
 * A process writes to a journal: its standard output and error as byte entries
 * in one order. A cursor counts bytes over both from the process's start, so
 * a reader that was cut off goes on where it was.
 */
import { Schema } from "effect"
import { IsolationLevel } from "./Capability.ts"
import { Generation, LeaseId, ProcessId, ReaderId } from "./Ids.ts"
import { Env, Millis, Timestamp, User } from "./Sandbox.ts"
import { isUtf8 } from "./Text.ts"

/** A byte position in a journal. */
export const Cursor = Schema.Natural
export type Cursor = typeof Cursor.Type

/** The size of a terminal, in character cells. */
export const PtySize = Schema.Struct({
  rows: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 })),
  cols: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))
})
export type PtySize = typeof PtySize.Type

const Argument = Schema.String.check(
  Schema.isPattern(/^[^\0]*$/, { message: "an argument has no NUL" }),
  isUtf8
)

/** Bytes of arguments and environment, each with its NUL, that every backend takes. Linux has a limit of its own for all, and more room. */
export const maxArgumentBytes = 1024 * 1024
/** How many of them; each also takes a pointer. */
export const maxArguments = 65_536
/** How many names the environment of a program may have: making a record of them costs the service far more than a list. */
export const maxEnvNames = 8192
/** Bytes of one of them, without its NUL: Linux's MAX_ARG_STRLEN (execve(2)). */
export const maxStringBytes = 128 * 1024 - 1
/** Bytes of a path and of one name in it (PATH_MAX, NAME_MAX; path_resolution(7)). */
export const maxPathBytes = 4095
export const maxNameBytes = 255

const encoder = new TextEncoder()

/** An absolute path inside a sandbox, without NUL. */
export const SandboxPath = Schema.String.check(
  Schema.isPattern(/^\/[^\0]*$/, { message: "a path in a sandbox begins with / and has no NUL" }),
  Schema.makeFilter(
    (path) =>
      3 * path.length <= maxPathBytes ||
      encoder.encode(path).byteLength <= maxPathBytes ||
      `a path has at most ${maxPathBytes} bytes: use a shorter one`
  ),
  isUtf8
)
export type SandboxPath = typeof SandboxPath.Type

/** A program to run. */
export const ProcessSpec = Schema.Struct({
  processId: ProcessId,
  /** The program, found by PATH, and its arguments. */
  argv: Schema.NonEmptyArray(Argument),
  /** Added to the sandbox's environment. */
  env: Schema.optional(Env),
  /** Default: the user's home. */
  cwd: Schema.optional(SandboxPath),
  /** Default: `user`. */
  user: Schema.optional(User),
  /** Run on a terminal of this size; output is then all `stdout`. */
  pty: Schema.optional(PtySize),
  /** Whether standard input is open for writing; otherwise it is empty. */
  stdin: Schema.optional(Schema.Boolean),
  /**
   * The process and all its descendants, also those it leaves behind, are ended so long after the start was accepted; time
   * paused does not count.
   */
  timeoutMillis: Schema.optional(Millis),
  /** A lease with which the process and all its descendants end; what it leaves behind when it exits by itself is not held. */
  lease: Schema.optional(LeaseId),
  /** Journal capacity in bytes; default 1 MiB, at most 16 MiB. */
  journalBytes: Schema.optional(
    Schema.Int.check(Schema.isBetween({ minimum: 4096, maximum: 16 * 1024 * 1024 }))
  )
})
export type ProcessSpec = typeof ProcessSpec.Type

/** Whether two decoded specs are the same request. */
export const isSameSpec = (a: ProcessSpec, b: ProcessSpec): boolean => JSON.stringify(a) === JSON.stringify(b)

/** The argv that runs a command line through the sandbox's login shell. */
export const shellArgv = (command: string): [string, ...Array<string>] => ["/bin/sh", "-lc", command]

/** How a process ended: by its own exit code, or by a signal's name such as `SIGKILL`. */
export const ExitStatus = Schema.Union([
  Schema.TaggedStruct("Exited", { code: Schema.Natural }),
  Schema.TaggedStruct("Signaled", { signal: Schema.String, number: Schema.Natural })
])
export type ExitStatus = typeof ExitStatus.Type

/** The shell's number for an exit status: the code, or 128 plus the signal's number. */
export const exitCodeOf = (status: ExitStatus): number =>
  status._tag === "Exited" ? status.code : 128 + status.number

/**
 * Which bytes a bound on a process's output leaves: the beginning and the end of
 * each stream, only the beginnings, or only the ends. One stream never takes the share of the other.
 */
export const Keep = Schema.Literals(["both", "head", "tail"])
export type Keep = typeof Keep.Type

/** The most bytes that `tail` keeps. */
export const maxTailBytes = 4 * 1024 * 1024

const readerFields = {
  /** The most bytes of output that are passed; what is left out is told in `Truncated` events. */
  maxOutputBytes: Schema.optional(Schema.Natural),
  /**
   * What is kept of more output than that. What may yet be left out is passed when the process has ended. Left out: the
   * first bytes, of both streams in their order, as they come.
   */
  keep: Schema.optional(Keep)
}

const isKeepable = Schema.makeFilter(
  ({
    keep,
    maxOutputBytes = 0
  }: {
    readonly keep?: Keep | undefined
    readonly maxOutputBytes?: number | undefined
  }) =>
    keep !== "tail" ||
    maxOutputBytes <= maxTailBytes || { path: ["maxOutputBytes"], issue: `with tail at most ${maxTailBytes}` }
)

const attachFields = {
  /** Where to begin; default 0, the oldest byte kept. */
  cursor: Schema.optional(Cursor),
  ...readerFields,
  /** Detach a reader that takes nothing for this long while output waits; default 60,000. */
  idleMillis: Schema.optional(Millis),
  /**
   * Names the reader. When its connection is cut, a service holds the output and the program for a while, and the
   * reader of the same name that attaches then, at the byte where the other was, misses nothing.
   */
  reader: Schema.optional(ReaderId)
}

/** How the events of a program are read that is being started: it waits for this reader. */
export const ReadOptions = Schema.Struct(attachFields).check(isKeepable)
export type ReadOptions = typeof ReadOptions.Type

/** What a journal is read with. */
export const AttachOptions = Schema.Struct({
  ...attachFields,
  /**
   * Whether the program waits for this reader when its journal is full; default: it does. Otherwise the reader loses bytes,
   * which `Truncated` events tell. A reader with a token of scope `read` never holds a program up, whatever this says.
   */
  hold: Schema.optional(Schema.Boolean)
}).check(isKeepable)
export type AttachOptions = typeof AttachOptions.Type

/** How the events of a program are read from its start, by a reader that is named. */
export const ExecOptions = Schema.Struct({
  ...readerFields,
  idleMillis: attachFields.idleMillis,
  reader: ReaderId
}).check(isKeepable)
export type ExecOptions = typeof ExecOptions.Type

/** What a reader of a process receives, in order. */
export const ProcessEvent = Schema.Union([
  /** The first event: the process exists, in this incarnation of the machine, under this isolation. */
  Schema.TaggedStruct("Started", {
    pid: Schema.Natural,
    startedAt: Timestamp,
    generation: Generation,
    isolation: IsolationLevel
  }),
  /** Output: `cursor` is the position of its first byte. */
  Schema.TaggedStruct("Output", {
    stream: Schema.Literals(["stdout", "stderr"]),
    cursor: Cursor,
    at: Timestamp,
    data: Schema.Uint8Array
  }),
  /**
   * Bytes `from` (inclusive) to `to` (exclusive) are not passed: overwritten before they were read, or over the reader's
   * bound. How many of them are of which stream is told where it is known: a journal does not know of what it has lost.
   */
  Schema.TaggedStruct("Truncated", {
    from: Cursor,
    to: Cursor,
    stdout: Schema.optional(Schema.Natural),
    stderr: Schema.optional(Schema.Natural)
  }),
  /**
   * The last event: the process ended and its output is complete. That is all that it wrote, and what descendants added
   * in at most a second and a MiB; they may live on, and what they write then is in no journal.
   */
  Schema.TaggedStruct("Exited", {
    status: ExitStatus,
    cursor: Cursor,
    at: Timestamp,
    timedOut: Schema.Boolean,
    /** There when it was ended because its client did not renew its lease for so many milliseconds. */
    lapsedMillis: Schema.optional(Schema.Number)
  })
])
export type ProcessEvent = typeof ProcessEvent.Type

/**
 * How many terminals a sandbox may have open at one time. A Linux host has 3,072 for all of its containers: at this number a hundred
 * sandboxes that take all they can leave some to the others.
 */
export const maxTerminals = 32

/** A process as it stands. */
export const ProcessInfo = Schema.Struct({
  processId: ProcessId,
  /** The incarnation of the machine it runs in. */
  generation: Generation,
  pid: Schema.Natural,
  argv: Schema.Array(Schema.String),
  user: User,
  pty: Schema.Boolean,
  startedAt: Timestamp,
  /** Absent while it runs. */
  exit: Schema.optional(ExitStatus),
  /** The oldest byte the journal still holds, and the end of it. */
  oldest: Cursor,
  end: Cursor
})
export type ProcessInfo = typeof ProcessInfo.Type

/** Signals a caller may send. */
export const Signal = Schema.Literals([
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGKILL",
  "SIGUSR1",
  "SIGUSR2",
  "SIGTERM",
  "SIGCONT",
  "SIGSTOP",
  "SIGTSTP",
  "SIGWINCH"
])
export type Signal = typeof Signal.Type

/** Linux's numbers for them (signal(7)). */
export const signalNumbers: { readonly [S in Signal]: number } = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGTSTP: 20,
  SIGWINCH: 28
}
