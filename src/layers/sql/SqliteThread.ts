/**
 * A database that is open in a thread of its own. Statements are carried out in
 * the order in which they are sent.
 */
import { Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"
import { type Answer, type DatabaseOptions, type Fault, faultOf, type Request } from "./SqliteDatabase.ts"

/** Carries out statements. */
export interface SqliteThread {
  /** Carries out a statement; fails when the thread has ended. */
  readonly run: (request: Request) => Effect.Effect<Answer, Fault>
  /** Whether it runs no more. */
  readonly hasEnded: () => boolean
}

/** How long an end waits for a statement under way, and for the database's log to be brought into it. */
const closeMillis = 5_000

/** The compiled program beside this file, or its source. */
const program = new URL(`./SqliteWorker.${import.meta.url.endsWith(".ts") ? "ts" : "js"}`, import.meta.url)

const ended: Fault = { message: "the thread of the database has ended", errcode: undefined, atPrepare: false }

/** Opens a database in a new thread, which ends with the scope. */
export const openThread = (options: DatabaseOptions): Effect.Effect<SqliteThread, Fault, Scope.Scope> =>
  Effect.flatMap(
    Effect.acquireRelease(
      Effect.sync(() => new RunningThread(options)),
      (thread) => thread.end
    ),
    (thread) => Effect.as(thread.opened, thread)
  )

class RunningThread implements SqliteThread {
  readonly #worker: Worker
  /** Who waits for an answer, in the order of what was sent. */
  readonly #waiting: Array<(answer: Effect.Effect<Answer, Fault>) => void> = []
  #opening: Effect.Effect<void, Fault> | undefined
  #tellOpened: (outcome: Effect.Effect<void, Fault>) => void = () => {}
  #hasEnded = false

  constructor(options: DatabaseOptions) {
    this.#worker = new Worker(program, {
      workerData: options,
      // Node 22 and 24 say on standard error that its SQLite is experimental. The options of this process are left out:
      // a thread is refused when there is one among them that only a process can have.
      execArgv: ["--disable-warning=ExperimentalWarning"]
    })
    this.#worker.on("message", (message: Answer | Fault | "open") => {
      if (message === "open") this.#settle(Effect.void)
      else if ("inTransaction" in message) this.#waiting.shift()?.(Effect.succeed(message))
      else this.#settle(Effect.fail(message))
    })
    this.#worker.once("error", (error) =>
      this.#fail({ ...ended, message: `${ended.message}: ${faultOf(error).message}` })
    )
    this.#worker.once("exit", () => this.#fail(ended))
  }

  readonly opened: Effect.Effect<void, Fault> = Effect.callback((resume) => {
    if (this.#opening !== undefined) return resume(this.#opening)
    this.#tellOpened = resume
  })

  hasEnded = () => this.#hasEnded

  run = (request: Request): Effect.Effect<Answer, Fault> =>
    Effect.callback((resume) => {
      if (this.#hasEnded) return resume(Effect.fail(ended))
      try {
        this.#worker.postMessage(request)
        this.#waiting.push(resume)
      } catch (cause) {
        // A parameter that cannot go from thread to thread has no value in SQLite either.
        resume(Effect.fail({ ...ended, message: `SQLite has no value for a parameter: ${String(cause)}` }))
      }
    })

  /** What is under way is finished first; a thread that takes too long is left to the end of the process. */
  readonly end: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.#hasEnded) return resume(Effect.void)
    this.#worker.once("exit", () => resume(Effect.void))
    this.#worker.postMessage("close")
  }).pipe(Effect.timeoutOption(closeMillis), Effect.andThen(Effect.sync(() => this.#worker.unref())))

  #settle(outcome: Effect.Effect<void, Fault>): void {
    this.#opening = outcome
    this.#tellOpened(outcome)
  }

  #fail(fault: Fault): void {
    this.#hasEnded = true
    this.#settle(Effect.fail(fault))
    for (const resume of this.#waiting.splice(0)) resume(Effect.fail(fault))
  }
}
