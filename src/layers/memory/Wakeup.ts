/**
 * Fibers that wait for a change of plain state.
 *
 * The state itself is ordinary data changed by ordinary code; this only tells
 * those who found nothing to do that looking again may be worth it. Woken fibers
 * run as tasks of the scheduler, in the order in which they began to wait, never
 * inside the code that woke them.
 */
import { Effect } from "effect"

/** Runs a task soon, after everything scheduled before it. */
export type Schedule = (task: () => void) => void

/** Tasks done in one turn of the event loop, so that an endless exchange lets others have theirs. */
const turnTasks = 1024

/**
 * Runs tasks one after the other, all that follow from each other in one turn:
 * so whoever yields once finds that everything has gone as far as it can.
 */
export const makeSchedule = (later: (task: () => void) => void): Schedule => {
  let queue: Array<() => void> = []
  let isWaiting = false
  const turn = () => {
    isWaiting = false
    for (let done = 0; queue.length > 0 && done < turnTasks; ) {
      const tasks = queue
      queue = []
      done += tasks.length
      for (const task of tasks) task()
    }
    if (queue.length > 0) wait()
  }
  const wait = () => {
    if (isWaiting) return
    isWaiting = true
    later(turn)
  }
  return (task) => {
    queue.push(task)
    wait()
  }
}

/** A change that fibers wait for. */
export class Wakeup {
  /** Counts the changes: read it before looking at the state, and wait {@link since} it. */
  version = 0
  private readonly schedule: Schedule
  private waiters: Array<(effect: Effect.Effect<void>) => void> = []

  constructor(schedule: Schedule) {
    this.schedule = schedule
  }

  /** Says that the state changed. */
  notify(): void {
    this.version++
    if (this.waiters.length === 0) return
    const waiters = this.waiters
    this.waiters = []
    this.schedule(() => {
      for (const resume of waiters) resume(Effect.void)
    })
  }

  /** Waits for a change later than the version; none is missed in between. */
  since(version: number): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.version !== version) return resume(Effect.void)
      this.waiters.push(resume)
      return Effect.sync(() => {
        const index = this.waiters.indexOf(resume)
        if (index >= 0) this.waiters.splice(index, 1)
      })
    })
  }
}

/**
 * Repeats a look at the state until it gives something other than undefined,
 * waiting for a change after every look in vain.
 */
export const waitFor = <A>(wakeup: Wakeup, look: () => A | undefined): Effect.Effect<A> =>
  Effect.suspend(() => {
    const version = wakeup.version
    const found = look()
    return found !== undefined
      ? Effect.succeed(found)
      : Effect.flatMap(wakeup.since(version), () => waitFor(wakeup, look))
  })
