/**
 * What a fresh in-memory machine finds on its disk: the directories of a small
 * Debian, with one file per known program in a read-only /usr that all machines share.
 */
import { FileTree } from "./FileTree.ts"
import { type DeviceName, type DirectoryNode, encode, makeNodes, type Node } from "./Inode.ts"
import { magic } from "./Kernel.ts"

/** The shared, read-only part of every machine. */
export interface Image {
  readonly usr: DirectoryNode
}

const passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
const group = "root:x:0:\nuser:x:1000:\n"

const devices: ReadonlyArray<readonly [string, DeviceName]> = [
  ["null", "null"],
  ["zero", "zero"],
  ["full", "full"],
  ["random", "random"],
  ["urandom", "random"],
  ["tty", "tty"],
  ["stdin", "stdin"],
  ["stdout", "stdout"],
  ["stderr", "stderr"]
]

const put = <N extends Node>(directory: DirectoryNode, name: string, node: N): N => {
  directory.entries.set(name, node)
  node.links++
  if (node.kind === "directory" && !node.frozen) node.entry = { parent: directory, name }
  return node
}

/** Makes the shared part: /usr with a file for each program. */
export const makeImage = (programs: Iterable<string>): Image => {
  const nodes = makeNodes(1, true)
  const usr = nodes.directory(0o755, 0, 0)
  usr.links = 1
  for (const name of ["lib", "sbin", "share", "local"]) put(usr, name, nodes.directory(0o755, 0, 0))
  const bin = put(usr, "bin", nodes.directory(0o755, 0, 0))
  for (const name of programs) put(bin, name, nodes.file(0o755, 0, 0, encode(`${magic}${name}\n`)))
  return { usr }
}

/** A new disk. What the image puts on it does not count against the limits. */
export const makeDisk = (
  image: Image,
  limits: { readonly bytes: number; readonly inodes: number },
  now: () => number
): FileTree => {
  const tree = new FileTree({ now, limits })
  const { nodes, root } = tree
  const at = now()
  const directory = (parent: DirectoryNode, name: string, mode: number, uid: number) =>
    put(parent, name, nodes.directory(mode, uid, at))
  put(root, "usr", image.usr)
  for (const name of ["bin", "sbin", "lib"]) put(root, name, nodes.symlink(`usr/${name}`, 0, at))
  const dev = directory(root, "dev", 0o755, 0)
  for (const [name, device] of devices) put(dev, name, nodes.device(device, at))
  const etc = directory(root, "etc", 0o755, 0)
  put(etc, "passwd", nodes.file(0o644, 0, at, encode(passwd)))
  put(etc, "group", nodes.file(0o644, 0, at, encode(group)))
  put(etc, "hostname", nodes.file(0o644, 0, at, encode("sandbox\n")))
  directory(directory(root, "home", 0o755, 0), "user", 0o755, 1000)
  directory(root, "root", 0o700, 0)
  for (const name of ["opt", "proc", "run", "srv", "sys"]) directory(root, name, 0o755, 0)
  directory(root, "tmp", 0o1777, 0)
  const ephemeral = directory(root, "var", 0o755, 0)
  directory(ephemeral, "tmp", 0o1777, 0)
  const used = usageOf(root)
  tree.usedBytes = used.bytes
  tree.usedInodes = used.inodes
  tree.limits = { bytes: limits.bytes + used.bytes, inodes: limits.inodes + used.inodes }
  return tree
}

/** What the writable nodes below a directory take. */
const usageOf = (directory: DirectoryNode): { readonly bytes: number; readonly inodes: number } => {
  let bytes = 4096
  let inodes = 1
  for (const node of directory.entries.values()) {
    if (node.frozen) continue
    if (node.kind === "directory") {
      const below = usageOf(node)
      bytes += below.bytes
      inodes += below.inodes
    } else {
      inodes++
      if (node.kind === "file") bytes += 4096
    }
  }
  return { bytes, inodes }
}
