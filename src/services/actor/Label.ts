/**
 * What a machine remembers of a process for its actor: whose lease it ends
 * with, also after the service was restarted. A sandbox may forge it, and only
 * harms itself.
 */
import { Option, Schema } from "effect"
import { LeaseId } from "../../domain/Ids.ts"
import type { ProcessSpec } from "../../domain/Process.ts"

const Label = Schema.fromJsonString(Schema.Struct({ lease: Schema.optionalKey(LeaseId) }))
export type Label = typeof Label.Type

const encode = Schema.encodeSync(Label)
const decode = Schema.decodeUnknownOption(Label)

/** The label of a process; undefined when there is nothing to remember. */
export const labelOf = ({ lease }: ProcessSpec): string | undefined =>
  lease === undefined ? undefined : encode({ lease })

/** What a label says; nothing when it is none of ours. */
export const readLabel = (label: string | undefined): Label => Option.getOrElse(decode(label), () => ({}))
