/**
 * Loaded into a program before anything else: tells what memory it has after
 * its garbage is collected, whenever it is asked by a message. JavaScript, so
 * that the stripper of types is no part of that memory; and by the inspector,
 * because compiled code that was kept does not fit a Node with other flags.
 */
import { Session } from "node:inspector"

/** Until the collector's threads have given back what they free late. */
const pauseMillis = 500

process.on("message", () => {
  const session = new Session()
  session.connect()
  session.post("HeapProfiler.collectGarbage", () => {
    setTimeout(() => {
      // Not earlier: in the answer to its own request Node waits for itself.
      session.disconnect()
      const { external, heapUsed, rss } = process.memoryUsage()
      process.send?.({ external, heapUsed, rss })
    }, pauseMillis)
  })
})
// Nobody is left to end the program, so it ends itself.
process.on("disconnect", () => process.kill(process.pid, "SIGTERM"))
// The channel alone keeps no program running.
process.channel?.unref()
