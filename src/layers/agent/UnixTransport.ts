/**
 * Agents behind unix sockets.
 */
import { createConnection } from "node:net"
import { Effect } from "effect"
import { HoldsProcess } from "../../services/HoldsProcess.ts"
import { AgentLost, type Connect, type Transport } from "./AgentSession.ts"

/** How much one read takes at most. */
const readBytes = 256 * 1024

/**
 * What is larger is passed on without copying, in a buffer of its own. A small
 * answer must not keep a large buffer, nor cost one: allocating outside the
 * heap makes the collector mark all of it, again and again.
 */
const copiedBytes = 32 * 1024

/** Connects to the unix socket at a path; the connection is destroyed when the scope closes. */
export const unixSocket =
  (path: string): Connect =>
  (events) =>
    Effect.flatMap(HoldsProcess, (holds) =>
      Effect.acquireRelease(
        Effect.callback<Transport & { readonly destroy: () => void }, AgentLost>((resume) => {
          let reason = "the connection was closed"
          let room = Buffer.allocUnsafeSlow(readBytes)
          const socket = createConnection({
            path,
            onread: {
              buffer: () => room,
              callback: (length) => {
                const read = room.subarray(0, length)
                if (length <= copiedBytes) events.onData(new Uint8Array(read))
                else {
                  room = Buffer.allocUnsafeSlow(readBytes)
                  events.onData(read)
                }
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
