/**
 * Every message between host and agent. `native/agent/proto.h` is the other
 * half and says how channels and credit work.
 */
import { bool, i64, message, name, rest, strings, text, token, u8, u16, u32, u64 } from "./Message.ts"

/** What both sides must agree on. */
export const protocolVersion = 4

/** Channels from here on are opened by the agent. */
export const firstAgentChannel = 0x8000_0000

/** Bytes of {@link Data} the agent takes on a duplex channel before it grants more. */
export const duplexWindowBytes = 256 * 1024

/** "Keep what is there, or the default": the mode of a file that is written. */
export const defaultMode = 0xffff_ffff

/** "To the end" as a length to read. */
export const toTheEnd = Number.MAX_SAFE_INTEGER

// Both ways.
export const Credit = message("Credit", 2, { bytes: u32 })
export const Close = message("Close", 3, {})
export const Data = message("Data", 4, { data: rest })
export const Eof = message("Eof", 5, {})

// Host to agent.
const user = { uid: u32, gid: u32 }

/** `epoch` 0000000000000000 greets any incarnation; `leaseMillis` 0 lets the agent wait for ever. */
export const HostHello = message("HostHello", 1, {
  version: u16,
  epoch: token,
  nonce: token,
  leaseMillis: u32
})
export const Ping = message("Ping", 16, {})

/** Bits of {@link Spawn}'s flags. */
export const spawnFlags = { tty: 1, stdin: 2 } as const
export const Spawn = message("Spawn", 17, {
  credit: u32,
  identity: u32,
  /** 0 is none. */
  limitMillis: u32,
  label: text,
  flags: u8,
  ...user,
  rows: u16,
  cols: u16,
  journalBytes: u32,
  argc: u32,
  envc: u32,
  /** The process id, the working directory, `argc` arguments and `envc` entries `KEY=value`. */
  strings
})
export const Attach = message("Attach", 18, { processId: text, cursor: u64, credit: u32, holds: bool })

/** Whom {@link SendSignal} reaches. */
export const signalScopes = { process: 0, group: 1, tree: 2 } as const
export type SignalScope = keyof typeof signalScopes
export const SendSignal = message("SendSignal", 19, { processId: text, signal: u8, scope: u8 })
export const Kill = message("Kill", 20, { processId: text, waitMillis: u32 })
export const Stdin = message("Stdin", 21, { processId: text, offset: u64, data: rest })
export const StdinClose = message("StdinClose", 22, { processId: text })
export const Resize = message("Resize", 23, { processId: text, rows: u16, cols: u16 })
export const Processes = message("Processes", 24, {})

/** Why a program was ended. */
export const endCauses = { request: 1, limit: 2 } as const
export const Cancel = message("Cancel", 25, { processId: text, identity: u32, cause: u8, waitMillis: u32 })
export const Limit = message("Limit", 26, { processId: text, leftMillis: u32 })
export const Stat = message("Stat", 32, { ...user, path: text })
export const Read = message("Read", 33, { ...user, offset: u64, length: u64, credit: u32, path: text })

/** A whole small file; parents are made. */
export const Write = message("Write", 34, { ...user, mode: u32, path: text, data: rest })
export const Upload = message("Upload", 35, {
  ...user,
  mode: u32,
  uploadId: text,
  path: text,
  offset: u64,
  data: rest
})
export const Commit = message("Commit", 36, { uploadId: text, size: u64 })
export const Abort = message("Abort", 37, { uploadId: text })
export const List = message("List", 38, { ...user, depth: u16, limit: u32, path: text })
export const MakeDir = message("MakeDir", 39, { ...user, mode: u32, parents: bool, path: text })
export const Rename = message("Rename", 40, { ...user, replace: bool, from: text, to: text })
export const Remove = message("Remove", 41, { ...user, recursive: bool, path: text })
export const Chmod = message("Chmod", 42, { ...user, mode: u32, path: text })
/** `nanos` are added to the milliseconds. */
export const Times = message("Times", 43, { ...user, modifiedAt: i64, nanos: u32, path: text })
export const Link = message("Link", 44, { ...user, from: text, to: text })
export const Watch = message("Watch", 48, { ...user, recursive: bool, credit: u32, path: text })

/** `family` is 4 or 6, the version of the Internet Protocol whose loopback address is meant. */
export const Dial = message("Dial", 49, { credit: u32, family: u8, port: u16 })
export const Listen = message("Listen", 50, { credit: u32, port: u16 })

/** In {@link Process}: it has no limit. */
export const noLimit = 0xffff_ffff

// Agent to host.
const stat = {
  type: u8,
  mode: u32,
  size: u64,
  uid: u32,
  gid: u32,
  modifiedAt: i64,
  nanos: u32,
  links: u32,
  inode: token,
  target: name
}

export const AgentHello = message("AgentHello", 1, {
  version: u16,
  epoch: token,
  nonce: token
})
export const Ok = message("Ok", 64, {})
export const Failed = message("Failed", 65, { code: u16, errno: u32, detail: u64, message: text })
export const End = message("End", 66, { truncated: bool })
export const Spawned = message("Spawned", 67, {
  pid: u32,
  startedAt: u64,
  existed: bool,
  /** As in {@link Process}. */
  supervisor: u32
})
export const Output = message("Output", 68, { cursor: u64, stream: u8, at: u64, data: rest })
export const Truncated = message("Truncated", 69, { from: u64, to: u64 })
export const Exit = message("Exit", 70, {
  signalled: bool,
  value: u8,
  cursor: u64,
  at: u64,
  timedOut: bool,
  treeAlive: bool
})
export const Killed = message("Killed", 71, { treeGone: bool, met: u8 })

/** What {@link Killed} has met, by number. */
export const met = ["nothing", "descendants", "program"] as const
export const Offset = message("Offset", 72, { offset: u64 })
export const Process = message("Process", 73, {
  processId: text,
  pid: u32,
  uid: u32,
  flags: u8,
  startedAt: u64,
  exited: bool,
  signalled: bool,
  value: u8,
  exitedAt: u64,
  oldest: u64,
  end: u64,
  treeAlive: bool,
  identity: u32,
  /** Of its limit; {@link noLimit} when it has none. */
  leftMillis: u32,
  /** The process that all of its tree is below, as the sandbox numbers it; 0 when nothing of it is alive. */
  supervisor: u32,
  label: text,
  /** As much as the agent keeps. */
  argv: strings
})
export const Stated = message("Stated", 74, stat)
export const Entry = message("Entry", 75, { path: name, ...stat })
export const Event = message("Event", 76, { kind: u8, directory: bool, path: text, before: text })
export const Ended = message("Ended", 77, { how: u8 })
export const Accepted = message("Accepted", 78, { channel: u32 })
export const Listening = message("Listening", 79, { port: u16 })
export const Connected = message("Connected", 80, {})

/** What the host says. */
export const requests = [
  HostHello,
  Credit,
  Close,
  Data,
  Eof,
  Ping,
  Spawn,
  Attach,
  SendSignal,
  Kill,
  Stdin,
  StdinClose,
  Resize,
  Processes,
  Cancel,
  Limit,
  Stat,
  Read,
  Write,
  Upload,
  Commit,
  Abort,
  List,
  MakeDir,
  Rename,
  Remove,
  Chmod,
  Times,
  Link,
  Watch,
  Dial,
  Listen
] as const

/** What the agent says. */
export const replies = [
  AgentHello,
  Credit,
  Close,
  Data,
  Eof,
  Ok,
  Failed,
  End,
  Spawned,
  Output,
  Truncated,
  Exit,
  Killed,
  Offset,
  Process,
  Stated,
  Entry,
  Event,
  Ended,
  Accepted,
  Listening,
  Connected
] as const

/** A message from the agent. */
export type Reply = Exclude<ReturnType<(typeof replies)[number]["decode"]>, undefined>

/** A message from the agent, by its tag. */
export type ReplyOf<Tag extends Reply["_tag"]> = Extract<Reply, { readonly _tag: Tag }>

const decoders: Array<((payload: Buffer) => Reply | undefined) | undefined> = []
for (const reply of replies) decoders[reply.type] = reply.decode

/** Decodes what the agent sent; `undefined` when it is nothing an agent may say. */
export const decodeReply = (type: number, payload: Buffer): Reply | undefined => decoders[type]?.(payload)

/** The agent's reasons for refusing, by their number on the wire; for the first, the error number says. */
export const failureCodes = [
  "unknown",
  "invalid",
  "not-found",
  "permission",
  "not-directory",
  "is-directory",
  "exists",
  "symlink-loop",
  "not-empty",
  "no-space",
  "name-too-long",
  "not-regular",
  "busy",
  "io",
  "resources",
  "conflict",
  "bad-cwd",
  "not-executable",
  "gap",
  "closed",
  "refused",
  "unsupported",
  "cross-device",
  "read-only",
  "stale-epoch",
  "version",
  "no-process",
  "too-long",
  "no-upload",
  "no-terminal"
] as const
export type FailureCode = (typeof failureCodes)[number]

/** What the error numbers of Linux that requests can end with mean; all others are "io". */
const errnoCodes: ReadonlyMap<number, FailureCode> = new Map([
  [1, "permission"], // EPERM
  [2, "not-found"], // ENOENT
  [7, "too-long"], // E2BIG
  [8, "not-executable"], // ENOEXEC
  [11, "resources"], // EAGAIN
  [12, "resources"], // ENOMEM
  [13, "permission"], // EACCES
  [16, "busy"], // EBUSY
  [17, "exists"], // EEXIST
  [18, "cross-device"], // EXDEV
  [20, "not-directory"], // ENOTDIR
  [21, "is-directory"], // EISDIR
  [22, "invalid"], // EINVAL
  [23, "resources"], // ENFILE
  [24, "resources"], // EMFILE
  [26, "busy"], // ETXTBSY
  [28, "no-space"], // ENOSPC
  [30, "read-only"], // EROFS
  [3, "closed"], // ESRCH
  [6, "not-regular"], // ENXIO
  [32, "closed"], // EPIPE
  [36, "name-too-long"], // ENAMETOOLONG
  [39, "not-empty"], // ENOTEMPTY
  [40, "symlink-loop"], // ELOOP
  [98, "busy"], // EADDRINUSE
  [104, "closed"], // ECONNRESET
  [111, "refused"], // ECONNREFUSED
  [122, "no-space"] // EDQUOT
])

/** Why the agent refused. */
export const failureCode = (reply: { readonly code: number; readonly errno: number }): FailureCode =>
  reply.code === 0 ? (errnoCodes.get(reply.errno) ?? "io") : (failureCodes[reply.code] ?? "unknown")

/** Kinds of {@link Stated} and {@link Entry}, by number. */
export const fileTypes = ["device", "file", "directory", "symlink", "fifo", "socket", "device"] as const

/** Kinds of {@link Event}, by number. */
export const eventKinds = { created: 1, modified: 2, removed: 3, renamed: 4, overflow: 5 } as const

/** How a watch ended, by the number in {@link Ended}. */
export const watchEnds = ["removed", "removed", "moved", "replaced", "unmounted"] as const
