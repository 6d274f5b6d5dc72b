/**
 * How a service refuses a request before it becomes a call: an HTTP status, and
 * the error of the contract as JSON.
 */
import { Option, Schema } from "effect"
import {
  Authentication,
  Connection,
  InvalidArgument,
  PolicyDenied,
  ResourceExhausted
} from "../../domain/Errors.ts"
import { maxRequestBytes } from "../SandboxRpcs.ts"
import { Lost, type Refused } from "./Lost.ts"

/** The errors a service refuses with. */
export const Refusal = Schema.Union([Authentication, InvalidArgument, PolicyDenied, ResourceExhausted])
export type Refusal = typeof Refusal.Type

/** The status of each. */
export const statusOf = (refusal: Refusal): number => {
  switch (refusal._tag) {
    case "Authentication":
      return 401
    case "PolicyDenied":
      return 403
    case "InvalidArgument":
      return 413
    case "ResourceExhausted":
      return 429
  }
}

/** The most bytes of a refusal that are read. */
export const maxRefusalBytes = 16 * 1024

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.toCodecJson(Refusal)))

/** What a refusing answer means: the service's own words if they are understood. */
export const refusalOf = (status: number, body: string): Lost | Refused =>
  Option.getOrElse(decode(body), () => unexplained(status))

const unexplained = (status: number): Lost | Refused => {
  if (status === 401) return new Authentication({ reason: "the service does not accept the token" })
  if (status === 403) return new PolicyDenied({ policy: "service", reason: "the service refuses the caller" })
  if (status === 413) return tooLarge
  if (status === 429) return new ResourceExhausted({ resource: "service", reason: "the service is busy" })
  const reason = `the service answered with status ${status}`
  return status >= 500
    ? new Lost({ reason, outcome: status === 503 ? "not-started" : "unknown" })
    : new Connection({ reason: `${reason}: is it one of fiberbox?`, outcome: "not-started" })
}

/** What a request is told that no service takes. */
export const tooLarge = new InvalidArgument({
  field: "request",
  reason: `has more than ${maxRequestBytes} bytes; pass large input by a file or standard input`
})
