import { existsSync } from "node:fs"

const directories = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]

/** Whether this machine can run containers. Under `CI=true` it must: a test that needs them fails there and is never passed over. */
export const canRunContainers =
  process.env["CI"] === "true" ||
  (process.getuid?.() === 0 && directories.some((directory) => existsSync(`${directory}/runc`)))
