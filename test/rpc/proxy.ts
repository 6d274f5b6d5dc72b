/**
 * A TCP proxy for tests that cuts the connections that go through it.
 */
import { connect, createServer, type Socket } from "node:net"
import { Effect } from "effect"

/** A running proxy. */
export interface Proxy {
  readonly url: string
  /** Cuts all connections now. */
  readonly cut: Effect.Effect<void>
  /** Cuts a connection whenever so many more bytes have come from the server; 0 never does. */
  readonly cutEvery: (bytes: number) => Effect.Effect<void>
  /** Refuses connections, or lets them in again. */
  readonly refuse: (refused: boolean) => Effect.Effect<void>
  /** How many connections were made, and how many were cut. */
  readonly counts: () => { readonly made: number; readonly cut: number }
  /** Bytes that came from the server. */
  readonly received: () => number
}

/** Puts a proxy before the server at `url`; it ends with the scope. */
export const makeProxy = Effect.fnUntraced(function* (url: string) {
  const target = new URL(url)
  const pairs = new Set<readonly [Socket, Socket]>()
  let every = 0
  let refused = false
  let made = 0
  let cut = 0
  let received = 0

  const end = (pair: readonly [Socket, Socket]) => {
    if (!pairs.delete(pair)) return
    cut++
    for (const socket of pair) socket.resetAndDestroy()
  }
  const cutAll = () => {
    for (const pair of [...pairs]) end(pair)
  }

  const server = createServer((inner) => {
    if (refused) return inner.destroy()
    made++
    const outer = connect(Number(target.port), target.hostname)
    const pair = [inner, outer] as const
    pairs.add(pair)
    let passed = 0
    for (const socket of pair) {
      socket.on("error", () => {})
      socket.on("close", () => {
        pairs.delete(pair)
        for (const other of pair) other.destroy()
      })
    }
    inner.pipe(outer)
    outer.on("data", (data: Buffer) => {
      passed += data.length
      received += data.length
      if (every > 0 && passed >= every) return end(pair)
      if (inner.write(data)) return
      outer.pause()
      inner.once("drain", () => outer.resume())
    })
    return undefined
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.callback<void>((resume) => {
        cutAll()
        server.close(() => resume(Effect.void))
      })
  )
  const address = server.address()
  if (address === null || typeof address === "string") return yield* Effect.die("no port")
  const proxy: Proxy = {
    url: `http://127.0.0.1:${address.port}`,
    cut: Effect.sync(cutAll),
    cutEvery: (bytes) =>
      Effect.sync(() => {
        every = bytes
      }),
    refuse: (value) =>
      Effect.sync(() => {
        refused = value
        if (value) cutAll()
      }),
    counts: () => ({ made, cut }),
    received: () => received
  }
  return proxy
})
