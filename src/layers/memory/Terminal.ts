/**
 * A terminal's line discipline, as far as programs and people notice it: echo,
 * line editing, end of file, and the keys that send signals (termios(3)).
 */
import type { PtySize, Signal } from "../../domain/Process.ts"
import { encode } from "./Inode.ts"
import { type OpenFile, type Output, Pipe } from "./OpenFile.ts"
import type { Schedule } from "./Wakeup.ts"

const keys: ReadonlyMap<number, Signal> = new Map([
  [0x03, "SIGINT"],
  [0x1c, "SIGQUIT"],
  [0x1a, "SIGTSTP"]
])
const endOfFile = 0x04
const erase = 0x7f
const backspace = 0x08
const eraseLine = 0x15
const carriageReturn = 0x0d
const newline = 0x0a

/** The most bytes of one line (N_TTY_BUF_SIZE). */
const lineBytes = 4095

const nothing = new Uint8Array(0)

/** One terminal: what is typed goes through it to the readers, what is written through it to the journal. */
export class Terminal {
  size: PtySize
  echo = true
  canonical = true
  private readonly input: Pipe
  private readonly output: Output
  private line: Array<number> = []
  /** Ends of file that readers have yet to see, each after the bytes queued before it. */
  private ends = 0
  /** Called with the signal of a key. */
  onSignal: (signal: Signal) => void = () => {}

  constructor(size: PtySize, output: Output, schedule: Schedule) {
    this.size = size
    this.output = output
    this.input = new Pipe(schedule)
  }

  /** Changes when something can be read, or room was made. */
  get wakeup() {
    return this.input.wakeup
  }

  /** What somebody types; returns how many bytes were taken. */
  type(data: Uint8Array): number {
    let taken = 0
    for (const byte of data) {
      if (this.input.size + this.line.length >= this.input.capacity) break
      this.key(byte)
      taken++
    }
    return taken
  }

  private key(byte: number): void {
    const signal = this.canonical ? keys.get(byte) : undefined
    if (signal !== undefined) {
      this.line = []
      this.show(`^${String.fromCharCode(byte + 64)}`)
      this.onSignal(signal)
      return
    }
    if (!this.canonical) {
      this.show(String.fromCharCode(byte))
      this.input.write(Uint8Array.of(byte))
      return
    }
    if (byte === endOfFile) {
      if (this.line.length === 0) this.ends++
      this.flush()
      return
    }
    if (byte === erase || byte === backspace) {
      if (this.line.pop() !== undefined) this.show("\b \b")
      return
    }
    if (byte === eraseLine) {
      this.show("\b \b".repeat(this.line.length))
      this.line = []
      return
    }
    const typed = byte === carriageReturn ? newline : byte
    if (this.line.length >= lineBytes && typed !== newline) return
    this.line.push(typed)
    if (this.echo) this.put(Uint8Array.of(typed))
    if (typed === newline) this.flush()
  }

  private show(text: string): void {
    if (this.echo) this.put(encode(text))
  }

  private flush(): void {
    if (this.line.length > 0) this.input.write(Uint8Array.from(this.line))
    this.line = []
    this.input.wakeup.notify()
  }

  /** Writes to the screen: a new line also returns the carriage. Returns how many of the given bytes were taken. */
  put(data: Uint8Array): number {
    if (!data.includes(newline)) return this.output.write("stdout", data)
    // Half a pair would be counted wrongly, so a write that may not fit whole goes byte by byte.
    const cooked = cook(data)
    if (this.output.journal.room() >= cooked.length) {
      this.output.write("stdout", cooked)
      return data.length
    }
    let taken = 0
    for (const byte of data) {
      const bytes = byte === newline ? Uint8Array.of(carriageReturn, newline) : Uint8Array.of(byte)
      if (this.output.journal.room() < bytes.length) break
      this.output.write("stdout", bytes)
      taken++
    }
    return taken
  }

  private read(max: number): Uint8Array | undefined {
    const data = this.input.read(max)
    if (data !== undefined && data.length > 0) return data
    if (this.ends > 0) {
      this.ends--
      return nothing
    }
    return data
  }

  /** Nobody will type any more. */
  hangUp(): void {
    this.input.end()
  }

  /** The file that all three standard descriptors of a program on it refer to. */
  file(): OpenFile {
    const screen = this.output.file("stdout")
    return {
      readable: this.input.wakeup,
      writable: this.output.wakeup,
      terminal: true,
      refs: 0,
      read: (max) => this.read(max),
      write: (data) => this.put(data),
      close: screen.close
    }
  }
}

const cook = (data: Uint8Array): Uint8Array => {
  const cooked: Array<number> = []
  for (const byte of data) {
    if (byte === newline) cooked.push(carriageReturn)
    cooked.push(byte)
  }
  return Uint8Array.from(cooked)
}
