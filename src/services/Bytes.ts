/**
 * Bytes in pieces.
 */

/** The pieces as one; a single piece is not copied. */
export const concat = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => {
  const [only] = pieces
  if (only !== undefined && pieces.length === 1) return only
  const whole = new Uint8Array(pieces.reduce((size, piece) => size + piece.byteLength, 0))
  let offset = 0
  for (const piece of pieces) {
    whole.set(piece, offset)
    offset += piece.byteLength
  }
  return whole
}

/** How many bytes at the end belong to a UTF-8 character whose rest is missing. */
export const partialEnd = (bytes: Uint8Array): number => {
  const end = bytes.byteLength
  for (let back = 1; back <= Math.min(3, end); back++) {
    const byte = bytes[end - back] ?? 0
    if ((byte & 0b1100_0000) === 0b1000_0000) continue
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
    return length > back ? back : 0
  }
  return 0
}

/** How many bytes at the beginning belong to a UTF-8 character whose first byte is missing. */
export const partialStart = (bytes: Uint8Array): number => {
  let size = 0
  while (size < 3 && ((bytes[size] ?? 0) & 0b1100_0000) === 0b1000_0000) size++
  return size
}

/** Bytes as printable ASCII: what is none, and a backslash, as `\xNN`. */
export const escaped = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) =>
    byte >= 0x20 && byte < 0x7f && byte !== 0x5c
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, "0")}`
  ).join("")
