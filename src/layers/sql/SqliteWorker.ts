/**
 * A thread that has one database open and carries out one statement after the
 * other, so that a slow disk, or another process that holds the database, makes
 * only those wait who ask for something in it. Begun by `SqliteThread.ts`.
 */
import { parentPort, workerData } from "node:worker_threads"
import { type DatabaseOptions, faultOf, type Request, SqliteDatabase } from "./SqliteDatabase.ts"

const begin = (port: NonNullable<typeof parentPort>, options: DatabaseOptions) => {
  try {
    const database = new SqliteDatabase(options)
    port.on("message", (request: Request | "close") => {
      if (request === "close") {
        database.close()
        port.close()
      } else {
        port.postMessage(database.run(request))
      }
    })
    port.postMessage("open")
  } catch (cause) {
    port.postMessage(faultOf(cause))
    port.close()
  }
}

if (parentPort !== null) begin(parentPort, workerData)
