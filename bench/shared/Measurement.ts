/**
 * What a measurement gives back: rows of raw samples. Statistics are made from
 * them later, so that the raw figures are what is kept.
 */
import { type Effect, Schema } from "effect"

/** What a figure is hoped to be, and on which side of it. */
export const Aim = Schema.Struct({
  side: Schema.Literals(["at most", "at least"]),
  value: Schema.Finite
})
export type Aim = typeof Aim.Type

/** One thing measured: every sample that was taken, in order, none left out. */
export const Row = Schema.Struct({
  name: Schema.String,
  unit: Schema.Literals(["ms", "µs", "MB/s", "/s", "kB", "times"]),
  samples: Schema.Array(Schema.Finite),
  /** For the median. */
  aim: Schema.optionalKey(Aim)
})
export type Row = typeof Row.Type

/** How measurements are asked for. */
export interface Settings {
  /** A directory for everything that is made; removed by whoever made it. */
  readonly directory: string
  /** How often to measure where that is cheap; each measurement knows its own default. */
  readonly runs: number | undefined
}

/** One measurement, which a process of its own makes. */
export interface Measurement {
  readonly title: string
  /** What is measured and how, as far as the figures cannot be read without it. */
  readonly about: string
  readonly measure: (settings: Settings) => Effect.Effect<ReadonlyArray<Row>, unknown>
}

/** A row whose samples are kept to a ten-thousandth of their unit. */
export const row = (name: string, unit: Row["unit"], samples: ReadonlyArray<number>, aim?: Aim): Row => ({
  name,
  unit,
  samples: samples.map((sample) => Math.round(sample * 1e4) / 1e4),
  ...(aim !== undefined && { aim })
})

export const atMost = (value: number): Aim => ({ side: "at most", value })
export const atLeast = (value: number): Aim => ({ side: "at least", value })
