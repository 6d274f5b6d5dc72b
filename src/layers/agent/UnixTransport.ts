/**
 * Agents behind unix sockets.
 */
import { createConnection } from "node:net"
import { Effect } from "effect"
import { AgentLost, type Connect, type Transport } from "./AgentSession.ts"

/** How much one read takes at most. */
const readBytes = 256 * 1024

/** Connects to the unix socket at a path; the connection is destroyed when the scope closes. */
export const unixSocket =
  (path: string): Connect =>
  (events) =>
    Effect.acquireRelease(
      Effect.callback<Transport & { readonly destroy: () => void }, AgentLost>((resume) => {
        let reason = "the connection was closed"
        const socket = createConnection({
          path,
          onread: {
            // A buffer of its own for every read: what is read is passed on without copying.
            buffer: () => Buffer.allocUnsafeSlow(readBytes),
            callback: (length, bytes) => {
              events.onData(bytes.subarray(0, length))
              return true
            }
          }
        })
        socket.on("error", (error) => {
          reason = error.message
          resume(Effect.fail(new AgentLost({ reason })))
        })
        socket.on("close", () => events.onClose(reason))
        socket.on("connect", () =>
          resume(
            Effect.succeed({
              write: (bytes) => {
                socket.write(bytes)
              },
              destroy: () => socket.destroy()
            })
          )
        )
        return Effect.sync(() => socket.destroy())
      }),
      (transport) => Effect.sync(() => transport.destroy())
    )
