/**
 * What a program on a terminal has switched on and not off again: the other
 * screen, a hidden cursor, reports of the mouse, colours. Whoever leaves such a
 * program, or sees it die, puts the terminal back.
 *
 * Known from the program's output: DEC private modes, `ESC [ ? n h` and
 * `ESC [ ? n l`, and colours, `ESC [ n m` (ECMA-48; XTerm Control Sequences).
 */

/** Modes that a terminal begins with on: lines that wrap, a cursor to be seen. */
const onAtFirst: ReadonlySet<number> = new Set([7, 25])

const sequence = /\u001b\[(?:\?([\d;]+)([hl])|([\d;]*)m)/g
const unfinished = /\u001b(?:\[[?\d;]{0,64})?$/

/** Watches the output of one program. */
export class ScreenModes {
  /** What differs from a terminal's beginning, in the order of its change. */
  readonly #changed = new Set<number>()
  #coloured = false
  #rest = ""

  /** Takes note of output. */
  see(data: Uint8Array): void {
    if (this.#rest === "" && !data.includes(0x1b)) return
    const text = this.#rest + Buffer.from(data).toString("latin1")
    for (const [, modes, to, colours] of text.matchAll(sequence)) {
      if (colours !== undefined) this.#coloured = !/^0*$/.test(colours)
      for (const mode of modes?.split(";") ?? []) this.#set(Number(mode), to === "h")
    }
    this.#rest = unfinished.exec(text)?.[0] ?? ""
  }

  #set(mode: number, on: boolean): void {
    this.#changed.delete(mode)
    if (on !== onAtFirst.has(mode)) this.#changed.add(mode)
  }

  /** What undoes it all; nothing when everything is as at first. */
  undo(): string {
    const modes = [...this.#changed].reverse()
    return `${modes.map((mode) => `\u001b[?${mode}${onAtFirst.has(mode) ? "h" : "l"}`).join("")}${this.#coloured ? "\u001b[0m" : ""}`
  }
}
