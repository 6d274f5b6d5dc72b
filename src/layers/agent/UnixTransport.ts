/**
 * Agents behind unix sockets.
 */
import { createConnection } from "node:net"
import { Effect } from "effect"
import { HoldsProcess } from "../../services/HoldsProcess.ts"
import { AgentLost, type Connect, type Transport } from "./AgentSession.ts"

/**
 * Where every read of every connection lands, to be copied out at once: reads
 * come one after the other, and a buffer of its own would cost each idle sandbox 256 KiB.
 */
const landing = Buffer.allocUnsafeSlow(256 * 1024)

/** Connects to the unix socket at a path; the connection is destroyed when the scope closes. */
export const unixSocket =
  (path: string): Connect =>
  (events) =>
    Effect.flatMap(HoldsProcess, (holds) =>
      Effect.acquireRelease(
        Effect.callback<Transport & { readonly destroy: () => void }, AgentLost>((resume) => {
          let reason = "the connection was closed"
          const socket = createConnection({
            path,
            onread: {
              buffer: landing,
              callback: (length) => {
                events.onData(new Uint8Array(landing.subarray(0, length)))
                return true
              }
            }
          })
          socket.on("error", (error) => {
            reason = error.message
            resume(Effect.fail(new AgentLost({ reason })))
          })
          socket.on("close", () => events.onClose(reason))
          if (!holds) socket.unref()
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
    )
