/**
 * The keys by which somebody at a terminal leaves a program without ending it,
 * as in podman and docker: by default Ctrl-P, then Ctrl-Q.
 *
 * What is typed passes at once but for a beginning of the keys, which waits for
 * the next key to show what it was.
 */
import { Effect, Option, Stream } from "effect"

/** The bytes of the keys, one after the other; none when nothing shall detach. */
export type DetachKeys = Uint8Array

/** How the keys are written when nobody chooses. */
export const defaultDetachKeys = "ctrl-p,ctrl-q"

const controls = "@abcdefghijklmnopqrstuvwxyz[\\]^_"

const parseKey = (key: string): Option.Option<number> => {
  const control = /^ctrl-(.)$/i.exec(key)?.[1]?.toLowerCase()
  if (control !== undefined) {
    const code = controls.indexOf(control)
    return code === -1 ? Option.none() : Option.some(code)
  }
  return /^[\u0020-\u007e]$/.test(key) ? Option.some(key.charCodeAt(0)) : Option.none()
}

/** `ctrl-p,ctrl-q`, `ctrl-]`, `~,.`: keys with commas between; a control key is `ctrl-` and one of `a-z @ [ \ ] ^ _`. `none`: no keys. */
export const parseDetachKeys = (text: string): Option.Option<DetachKeys> =>
  text === "none"
    ? Option.some(new Uint8Array(0))
    : Option.map(Option.all(text.split(",").map(parseKey)), (codes) => Uint8Array.from(codes))

/** Looks for the keys in what is typed. */
export class Detector {
  readonly #keys: DetachKeys
  #matched = 0

  constructor(keys: DetachKeys) {
    this.#keys = keys
  }

  /** What of it is for the program, and whether the keys are complete; then the rest is nobody's. */
  take(typed: Uint8Array): { readonly pass: Uint8Array; readonly detached: boolean } {
    const pass: Array<number> = []
    for (const byte of typed) {
      this.#back(byte, pass)
      if (byte === this.#keys[this.#matched]) this.#matched++
      else pass.push(byte)
      if (this.#matched > 0 && this.#matched === this.#keys.byteLength) {
        return { pass: Uint8Array.from(pass), detached: true }
      }
    }
    return { pass: Uint8Array.from(pass), detached: false }
  }

  /** Lets go of as much of the beginning as does not fit with the next byte: what is left may still begin the keys. */
  #back(next: number, pass: Array<number>): void {
    while (this.#matched > 0 && next !== this.#keys[this.#matched]) {
      const held = this.#keys.subarray(0, this.#matched)
      let shift = 1
      while (shift < held.length && !held.subarray(shift).every((byte, at) => byte === held[at])) shift++
      pass.push(...held.subarray(0, shift))
      this.#matched = held.length - shift
    }
  }
}

/** What is typed, up to the keys; they do not pass, and then `detach` runs. */
export const detachable = <E, R, E2, R2>(
  typed: Stream.Stream<Uint8Array, E, R>,
  keys: DetachKeys,
  detach: Effect.Effect<unknown, E2, R2>
): Stream.Stream<Uint8Array, E | E2, R | R2> =>
  Stream.suspend(() => {
    const detector = new Detector(keys)
    return typed.pipe(
      Stream.map((bytes) => detector.take(bytes)),
      Stream.takeUntil(({ detached }) => detached),
      Stream.tap(({ detached }) => (detached ? detach : Effect.void)),
      Stream.map(({ pass }) => pass),
      Stream.filter((bytes) => bytes.byteLength > 0)
    )
  })
