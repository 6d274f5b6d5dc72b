/**
 * Simulated time for whole services: programs run task by task, in one order,
 * on a clock that moves only when it is told to; one of them can be stopped
 * between two tasks for good, as `kill -9` stops a process.
 *
 * Nothing in it may wait for the real world: no promise, no timer, no socket.
 */
import { Clock, Context, Duration, Effect, type Fiber, Random, Scheduler } from "effect"

/** A program of the simulated computer: what its fibers run on. */
export interface SimulatedProcess {
  /** Clock, scheduler and random numbers of its fibers. */
  readonly context: Context.Context<never>
  readonly isDead: () => boolean
  /** Ends it between two tasks: nothing of it runs any more, no finalizer either. */
  readonly kill: () => void
}

interface Task {
  readonly process: Life
  readonly run: () => void
}

interface Sleeper {
  readonly process: Life
  readonly at: number
  readonly wake: () => void
}

interface Life {
  dead: boolean
}

/** More tasks than this without any time passing are a loop that never ends. */
const maxTasks = 500_000

/** Wall clock time at the start, in milliseconds since the epoch. */
const startMillis = Date.UTC(2030, 0, 1)

/** A computer on which nothing has happened yet. */
export class Simulation {
  #tasks: Array<Task> = []
  #sleepers: Array<Sleeper> = []
  #elapsed = 0
  #jumped = 0

  /** Milliseconds that have really passed. */
  get elapsed(): number {
    return this.#elapsed
  }

  /** What the wall clock shows, in milliseconds since the epoch. */
  get wall(): number {
    return startMillis + this.#elapsed + this.#jumped
  }

  /** Sets the wall clock forward or back; nobody who sleeps wakes sooner or later for it. */
  jump(millis: number): void {
    this.#jumped += millis
  }

  /** Sets the wall clock right. */
  setRight(): void {
    this.#jumped = 0
  }

  /** A new program, with what `base` holds besides. `seed` makes its random numbers. */
  process(seed: string | number, base: Context.Context<never> = Context.empty()): SimulatedProcess {
    const life: Life = { dead: false }
    const context = base.pipe(
      Context.add(Clock.Clock, this.#clock(life)),
      Context.add(Scheduler.Scheduler, this.#scheduler(life)),
      Context.add(Random.Random, seeded(seed))
    )
    return {
      context,
      isDead: () => life.dead,
      kill: () => {
        life.dead = true
        this.#tasks = this.#tasks.filter((task) => task.process !== life)
        this.#sleepers = this.#sleepers.filter((sleeper) => sleeper.process !== life)
      }
    }
  }

  /** Begins to run something in a program; it goes on whenever the simulation does. */
  fork<A, E>(process: SimulatedProcess, effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(process.context)(Effect.andThen(Effect.yieldNow, effect))
  }

  /** Runs at most so many tasks, and tells whether there are more. */
  step(tasks: number): boolean {
    for (let done = 0; done < tasks; done++) {
      const task = this.#tasks.shift()
      if (task === undefined) return false
      task.run()
    }
    return this.#tasks.length > 0
  }

  /** Runs all that can be run without time passing. */
  settle(): void {
    // Taken out in pieces, since taking them out one by one is slow where there are many.
    for (let done = 0; this.#tasks.length > 0; ) {
      const tasks = this.#tasks
      this.#tasks = []
      for (const task of tasks) if (!task.process.dead) task.run()
      done += tasks.length
      if (done > maxTasks) throw new Error(`${done} tasks have run and there is no end of them`)
    }
  }

  /** Lets time pass, and all happen that happens meanwhile. */
  advance(millis: number): void {
    const end = this.#elapsed + millis
    this.settle()
    while (this.#wakeNext(end)) this.settle()
    this.#elapsed = end
  }

  /** Lets time pass until `isOver`, at most so much of it; tells whether it is over. */
  advanceUntil(isOver: () => boolean, millis: number): boolean {
    const end = this.#elapsed + millis
    this.settle()
    while (!isOver() && this.#wakeNext(end)) this.settle()
    if (!isOver()) this.#elapsed = end
    return isOver()
  }

  /** Wakes whoever sleeps the shortest, unless that is later than `end`. */
  #wakeNext(end: number): boolean {
    const first = this.#sleepers[0]
    if (first === undefined || first.at > end) return false
    this.#sleepers.shift()
    this.#elapsed = Math.max(this.#elapsed, first.at)
    first.wake()
    return true
  }

  #scheduler(process: Life): Scheduler.Scheduler {
    const dispatcher: Scheduler.SchedulerDispatcher = {
      scheduleTask: (run) => {
        if (!process.dead) this.#tasks.push({ process, run })
      },
      flush: () => this.settle()
    }
    return {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield,
      makeDispatcher: () => dispatcher
    }
  }

  #clock(process: Life): Clock.Clock {
    const nanos = (millis: number) => BigInt(Math.floor(millis * 1e6))
    return {
      currentTimeMillisUnsafe: () => this.wall,
      currentTimeMillis: Effect.sync(() => this.wall),
      currentTimeNanosUnsafe: () => nanos(this.wall),
      currentTimeNanos: Effect.sync(() => nanos(this.wall)),
      monotonicTimeNanosUnsafe: () => nanos(this.#elapsed),
      monotonicTimeNanos: Effect.sync(() => nanos(this.#elapsed)),
      sleep: (duration) =>
        Effect.callback<void>((resume) => {
          const sleeper = {
            process,
            at: this.#elapsed + Math.max(0, Duration.toMillis(duration)),
            wake: () => resume(Effect.void)
          }
          this.#sleep(sleeper)
          return Effect.sync(() => {
            this.#sleepers = this.#sleepers.filter((one) => one !== sleeper)
          })
        })
    }
  }

  /** In the order in which they wake; of those that wake together, the one that slept first is the first. */
  #sleep(sleeper: Sleeper): void {
    if (sleeper.process.dead || !Number.isFinite(sleeper.at)) return
    const index = this.#sleepers.findLastIndex((other) => other.at <= sleeper.at)
    this.#sleepers.splice(index + 1, 0, sleeper)
  }
}

const seeded = (seed: string | number) => Effect.runSync(Random.withSeed(Effect.service(Random.Random), seed))
