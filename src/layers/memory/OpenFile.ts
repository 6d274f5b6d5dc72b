/**
 * What a process's descriptors stand for: pipes, files, devices, terminals and
 * the journal. All are tried without waiting; who finds nothing to read or no
 * room waits for the file's wakeup.
 */
import type { FileFailure } from "../../domain/Errors.ts"
import type { FileTree } from "./FileTree.ts"
import { type DeviceName, type Entry, type FileNode, READ, WRITE } from "./Inode.ts"
import { Journal, type OutputStream } from "./Journal.ts"
import { type Schedule, Wakeup } from "./Wakeup.ts"

/** How a write that took nothing went wrong: nobody reads any more, or the file system refused. */
export type WriteFailure = "broken-pipe" | "bad-descriptor" | FileFailure

/** Something a descriptor can refer to; `refs` counts descriptors over all processes. */
export interface OpenFile {
  /** Changes when a read that found nothing may find something. */
  readonly readable: Wakeup
  /** Changes when a write that found no room may find some. */
  readonly writable: Wakeup
  /** Whether it is a terminal. */
  readonly terminal: boolean
  refs: number
  /** The next bytes, at most `max`; empty at the end, undefined when there are none yet. */
  readonly read: (max: number) => Uint8Array | undefined
  /** Takes what fits and returns how many bytes that was: 0 when there is no room now. */
  readonly write: (data: Uint8Array) => number | WriteFailure
  /** The last descriptor was closed. */
  readonly close: () => void
}

const nothing = new Uint8Array(0)

/** Room of a pipe (pipe(7)). */
const pipeBytes = 64 * 1024

/** A bounded queue of bytes between writers and a reader. */
export class Pipe {
  readonly wakeup: Wakeup
  readonly capacity: number
  private chunks: Array<Uint8Array> = []
  private first = 0
  size = 0
  /** Nobody will write any more. */
  ended = false
  /** Nobody will read any more. */
  broken = false

  constructor(schedule: Schedule, capacity = pipeBytes) {
    this.wakeup = new Wakeup(schedule)
    this.capacity = capacity
  }

  /** The next bytes; empty at the end, undefined when there are none yet. */
  read(max: number): Uint8Array | undefined {
    const chunk = this.chunks[this.first]
    if (chunk === undefined) return this.ended ? nothing : undefined
    const taken = chunk.length > max ? chunk.subarray(0, max) : chunk
    if (taken.length < chunk.length) this.chunks[this.first] = chunk.subarray(max)
    else this.first++
    if (this.first === this.chunks.length) {
      this.chunks = []
      this.first = 0
    }
    this.size -= taken.length
    this.wakeup.notify()
    return taken
  }

  /** Takes what fits, by copy. */
  write(data: Uint8Array): number | "broken-pipe" {
    if (this.broken || this.ended) return "broken-pipe"
    const count = Math.min(data.length, this.capacity - this.size)
    if (count <= 0) return 0
    this.chunks.push(data.slice(0, count))
    this.size += count
    this.wakeup.notify()
    return count
  }

  end(): void {
    this.ended = true
    this.wakeup.notify()
  }

  break(): void {
    this.broken = true
    this.chunks = []
    this.first = 0
    this.size = 0
    this.wakeup.notify()
  }
}

/** The two descriptors of a pipe. */
export const pipeEnds = (pipe: Pipe): { readonly reader: OpenFile; readonly writer: OpenFile } => ({
  reader: {
    readable: pipe.wakeup,
    writable: pipe.wakeup,
    terminal: false,
    refs: 0,
    read: (max) => pipe.read(max),
    write: () => "bad-descriptor",
    close: () => pipe.break()
  },
  writer: {
    readable: pipe.wakeup,
    writable: pipe.wakeup,
    terminal: false,
    refs: 0,
    read: () => nothing,
    write: (data) => pipe.write(data),
    close: () => pipe.end()
  }
})

/**
 * A named pipe while somebody has it open. Unlike Linux, opening does not wait
 * for the other side: a writer fills the pipe, a reader waits for the first writer.
 */
export class Fifo {
  readonly pipe: Pipe
  private readers = 0
  private writers = 0

  constructor(schedule: Schedule) {
    this.pipe = new Pipe(schedule)
  }

  open(reads: boolean, writes: boolean): OpenFile {
    if (reads) this.readers++
    if (writes) {
      this.writers++
      this.pipe.ended = false
    }
    if (reads) this.pipe.broken = false
    const { reader, writer } = pipeEnds(this.pipe)
    return {
      ...reader,
      read: reads ? reader.read : writer.read,
      write: writes ? writer.write : reader.write,
      close: () => {
        if (reads && --this.readers === 0 && this.writers > 0) this.pipe.break()
        if (writes && --this.writers === 0) this.pipe.end()
      }
    }
  }
}

/** A journal that several descriptors write to, with those who wait for it. */
export class Output {
  readonly journal: Journal
  readonly wakeup: Wakeup
  private readonly now: () => number
  /** Called after every write, and when the last descriptor is closed. */
  onWrite: () => void = () => {}
  onClosed: () => void = () => {}
  /** Descriptors' files not yet closed. */
  private openStreams = 0
  private isComplete = false

  constructor(capacity: number, schedule: Schedule, now: () => number) {
    this.journal = new Journal(capacity)
    this.wakeup = new Wakeup(schedule)
    this.now = now
  }

  /** Whether some process can still write. */
  get open(): boolean {
    return this.openStreams > 0
  }

  /** Nothing is added any more: what is written from now on is passed over. */
  complete(): void {
    this.isComplete = true
    this.wakeup.notify()
  }

  /** Takes what fits. */
  write(stream: OutputStream, data: Uint8Array): number {
    if (this.isComplete) return data.length
    const count = this.journal.write(stream, this.now(), data)
    if (count > 0) {
      this.wakeup.notify()
      this.onWrite()
    }
    return count
  }

  /** A file that writes to one of its streams. */
  file(stream: OutputStream): OpenFile {
    this.openStreams++
    return {
      readable: this.wakeup,
      writable: this.wakeup,
      terminal: false,
      refs: 0,
      read: () => nothing,
      write: (data) => this.write(stream, data),
      close: () => {
        this.openStreams--
        if (this.openStreams === 0) this.onClosed()
      }
    }
  }
}

/** How a regular file is opened. */
export interface OpenMode {
  readonly read: boolean
  readonly write: boolean
  readonly append: boolean
}

/** An open regular file with its position, which all descriptors that stem from one opening share. */
export const openRegular = (
  tree: FileTree,
  at: Entry,
  node: FileNode,
  mode: OpenMode,
  wakeup: Wakeup
): OpenFile => {
  let position = 0
  const entry: Entry = { parent: at.parent, name: at.name }
  node.opens++
  node.openAs.add(entry)
  return {
    readable: wakeup,
    writable: wakeup,
    terminal: false,
    refs: 0,
    read: (max) => {
      if (!mode.read || position >= node.size) return nothing
      const data = node.data.slice(position, Math.min(node.size, position + max))
      position += data.length
      return data
    },
    write: (data) => {
      if (!mode.write) return "bad-descriptor"
      if (data.length === 0) return 0
      const from = mode.append ? node.size : position
      const count = tree.writeAt(node, from, data)
      if (count === 0) return "no-space"
      position = from + count
      tree.changed({ kind: "modified", at: entry, node })
      return count
    },
    close: () => {
      node.openAs.delete(entry)
      tree.closeFile(node)
    }
  }
}

/** An open device. */
export const openDevice = (device: DeviceName, random: () => number, wakeup: Wakeup): OpenFile => ({
  readable: wakeup,
  writable: wakeup,
  terminal: false,
  refs: 0,
  read: (max) => {
    if (device === "zero" || device === "full") return new Uint8Array(max)
    if (device === "random") return Uint8Array.from({ length: max }, () => Math.floor(random() * 256))
    return nothing
  },
  write: (data) => (device === "full" ? "no-space" : data.length),
  close: () => {}
})

/** The permission bits an opening needs. */
export const bitsOf = (mode: OpenMode): number => (mode.read ? READ : 0) | (mode.write ? WRITE : 0)
