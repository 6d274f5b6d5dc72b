/**
 * What a machine remembers of a process for its actor: enough to go on holding
 * the process to its lease and time limit after the service was restarted.
 * A sandbox may forge it, and only harms itself.
 */
import { Option, Schema } from "effect"
import { LeaseId } from "../../domain/Ids.ts"
import type { ProcessSpec } from "../../domain/Process.ts"
import { Millis } from "../../domain/Sandbox.ts"

const Label = Schema.fromJsonString(
  Schema.Struct({ lease: Schema.optionalKey(LeaseId), timeoutMillis: Schema.optionalKey(Millis) })
)
export type Label = typeof Label.Type

const encode = Schema.encodeSync(Label)
const decode = Schema.decodeUnknownOption(Label)

/** The label of a process; undefined when there is nothing to remember. */
export const labelOf = ({ lease, timeoutMillis }: ProcessSpec): string | undefined =>
  lease === undefined && timeoutMillis === undefined
    ? undefined
    : encode({
        ...(lease === undefined ? {} : { lease }),
        ...(timeoutMillis === undefined ? {} : { timeoutMillis })
      })

/** What a label says; nothing when it is none of ours. */
export const readLabel = (label: string | undefined): Label => Option.getOrElse(decode(label), () => ({}))
