/**
 * What specifications the memory backend takes: the same as a Linux container's
 * of the size it simulates, so that a test does not pass with one that a real machine refuses.
 */
import { InvalidArgument, NotFound, Unsupported } from "../../domain/Errors.ts"
import type { Limits, SandboxSpec } from "../../domain/Sandbox.ts"

/** The backend's name in results and errors. */
export const backendName = "memory"

/** How large the simulated computer is. */
export type MachineSize = Pick<Limits, "memoryBytes" | "cpus" | "pids" | "diskBytes">

const defaultSize: MachineSize = {
  memoryBytes: 64 * 1024 ** 3,
  cpus: 16,
  pids: 4_194_304,
  diskBytes: 1024 ** 4
}

/** The least a container's runtime, agent and file system need. */
const minimum: Limits = {
  memoryBytes: 16 * 1024 ** 2,
  cpus: 0.01,
  pids: 8,
  diskBytes: 8 * 1024 ** 2,
  inodes: 64
}

/** What one inode takes of a disk; half of it may be inodes. */
const inodeBytes = 256

const order = ["memoryBytes", "cpus", "pids", "diskBytes", "inodes"] as const

/** The first thing that is wrong with a specification, or undefined. */
export const refusal = (
  spec: SandboxSpec,
  size: Partial<MachineSize>,
  images: ReadonlyArray<string>
): InvalidArgument | NotFound | Unsupported | undefined =>
  limitRefusal(spec.limits, { ...defaultSize, ...size }) ??
  networkRefusal(spec.network) ??
  imageRefusal(spec.image, images)

const limitRefusal = (limits: Limits, size: MachineSize): InvalidArgument | undefined => {
  const most: Limits = { ...size, inodes: Math.floor(limits.diskBytes / inodeBytes / 2) }
  for (const field of order) {
    const asked = limits[field]
    const reason =
      asked < minimum[field]
        ? `must be at least ${minimum[field]}, is ${asked}`
        : asked > most[field]
          ? `${field === "inodes" ? `a disk of ${limits.diskBytes} bytes has room for` : "this machine has"} ${most[field]}, asked for ${asked}`
          : undefined
    if (reason !== undefined) return new InvalidArgument({ field: `limits.${field}`, reason })
  }
  return undefined
}

const networkRefusal = (network: SandboxSpec["network"]): Unsupported | undefined =>
  network === "none"
    ? undefined
    : new Unsupported({
        backend: backendName,
        capability: network === "full" ? "network-full" : "network-allow",
        reason: "in-memory machines have no network but their own loopback"
      })

const imageRefusal = (
  image: string,
  images: ReadonlyArray<string>
): InvalidArgument | NotFound | undefined => {
  if (image === "host" || images.includes(image)) return undefined
  const directory = image.startsWith("dir:") ? image.slice(4) : undefined
  if (directory !== undefined && (!directory.startsWith("/") || directory.includes(":"))) {
    return new InvalidArgument({
      field: "image",
      reason: "must be dir: and an absolute path without a colon"
    })
  }
  return new NotFound({ kind: "image", id: image })
}
