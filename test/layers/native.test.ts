/**
 * The native programs as they are compiled.
 */
import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"

const position = { programs: 0x20, entrySize: 0x36, entries: 0x38 }
const segment = { dynamic: 2, stack: 0x6474e551, relro: 0x6474e552 }
const dynamic = { flags: 30, bindNow: 8 }
const executable = 1

/** What elf(5) says of a program: its type, its segments, and the flags of its dynamic section. */
const elfOf = (path: URL) => {
  const file = readFileSync(path)
  const at = Number(file.readBigUInt64LE(position.programs))
  const segments = Array.from({ length: file.readUInt16LE(position.entries) }, (_, n) => {
    const entry = at + n * file.readUInt16LE(position.entrySize)
    return {
      type: file.readUInt32LE(entry),
      flags: file.readUInt32LE(entry + 4),
      offset: Number(file.readBigUInt64LE(entry + 8)),
      size: Number(file.readBigUInt64LE(entry + 32))
    }
  })
  const find = (type: number) => segments.find((one) => one.type === type)
  const { offset = 0, size = 0 } = find(segment.dynamic) ?? {}
  const entries = Array.from({ length: size / 16 }, (_, n) => ({
    tag: Number(file.readBigUInt64LE(offset + 16 * n)),
    value: Number(file.readBigUInt64LE(offset + 16 * n + 8))
  }))
  return {
    isPositionIndependent: file.readUInt16LE(16) === 3,
    hasReadOnlyRelocations: find(segment.relro) !== undefined,
    bindsNow: entries.some(({ tag, value }) => tag === dynamic.flags && (value & dynamic.bindNow) !== 0),
    hasExecutableStack: ((find(segment.stack)?.flags ?? executable) & executable) !== 0,
    needsLibraries: entries.some(({ tag }) => tag === 1),
    checksItsStack: file.includes("__stack_chk_fail") || file.includes("stack smashing detected")
  }
}

describe("a native program", () => {
  for (const name of ["fiberbox-agent", "fiberbox-host"]) {
    it(`is hardened, and runs in any image: ${name}`, () => {
      assert.deepStrictEqual(elfOf(new URL(`../../native/build/${name}`, import.meta.url)), {
        isPositionIndependent: true,
        hasReadOnlyRelocations: true,
        bindsNow: true,
        hasExecutableStack: false,
        needsLibraries: false,
        checksItsStack: true
      })
    })
  }
})
