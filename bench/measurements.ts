/** Everything there is to measure, in the order in which it is told. Each is loaded by the process that makes it. */
import type { Measurement } from "./shared/Measurement.ts"

type Load = () => Promise<{ readonly measurement: Measurement }>

export const measurements = {
  create: () => import("./measure/create.ts"),
  exec: () => import("./measure/exec.ts"),
  throughput: () => import("./measure/throughput.ts"),
  memory: () => import("./measure/memory.ts"),
  interrupt: () => import("./measure/interrupt.ts"),
  cli: () => import("./measure/cli.ts"),
  burst: () => import("./measure/burst.ts"),
  overhead: () => import("./measure/overhead.ts"),
  served: () => import("./measure/served.ts"),
  restart: () => import("./measure/restart.ts"),
  "service-memory": () => import("./measure/service-memory.ts"),
  growth: () => import("./measure/growth.ts")
} satisfies { readonly [id: string]: Load }

export type MeasurementId = keyof typeof measurements

export const isMeasurementId = (id: string): id is MeasurementId => Object.hasOwn(measurements, id)
