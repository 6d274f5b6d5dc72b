/* How programs are ended, each with all that came from it: on demand, by a start that was taken back, by a time limit whose service
 * has died. */
#include "proc.h"
#include <signal.h>

enum { STUCK_MS = 50, KILL_EVERY = 1 };

/* ---- the end of a tree ---- */

static void kill_pass(struct proc *p)
{
	pid_t sup = p->killing && p->sup ? sup_pid(p->sup) : 0;
	if (!sup)
		return;
	if (tree_signal(sup, SIGKILL, 0, NULL))
		p->idle_passes = 0;
	else if (++p->idle_passes > STUCK_MS)
		kill(sup, SIGKILL); /* nothing left and no word of it: somebody stopped the supervisor */
	wake_at(now + KILL_EVERY);
}

/* Begins to kill all there is of a program; what there was. */
static enum met end_tree(struct proc *p, enum cause cause)
{
	if (!p->sup)
		return MET_NOTHING;
	enum met met = p->state < DRAINING ? MET_PROGRAM : MET_DESCENDANTS;
	if (met == MET_PROGRAM && p->cause == BY_ITSELF)
		p->cause = cause;
	p->killing = true;
	p->idle_passes = 0;
	kill_pass(p);
	return met;
}

struct killer {
	struct chan c;
	u64 deadline;
	enum met met;
	char id[MAX_ID + 1];
};

static bool killer_pump(struct chan *c)
{
	struct killer *k = (struct killer *)c;
	struct proc *p = proc_find(k->id);
	bool alive = pool_leaving() || (p && p->sup); /* its output may still wait for a slow reader */
	if (alive && now < k->deadline) {
		wake_at(k->deadline);
		return false;
	}
	w_frame(T_KILLED, c->id, "11", !alive, k->met);
	chan_close(c);
	return false;
}

static const struct chan_ops killer_ops = {.pump = killer_pump};

/* Killing begins whether or not there is a channel to tell of its end. */
static int kill_and_tell(struct request *q, struct proc *p, enum cause cause, u64 wait)
{
	enum met met = end_tree(p, cause);
	struct killer *k = chan_open(sizeof *k, q->channel, 0, &killer_ops);
	if (!k)
		return ANSWERED;
	strcpy(k->id, p->id);
	k->deadline = now + wait;
	k->met = met;
	return ANSWERED;
}

int proc_kill(struct request *q)
{
	return kill_and_tell(q, q->proc, BY_REQUEST, q->n[0]);
}

/* ---- starts that were taken back ---- */

/* By the hashes of their ids; 0 is a free place. Never is one forgotten: what found no place was not taken back. */
enum { CANCELLED = 1 << 15, MAX_CANCELLED = 1 << 14 };
static u64 cancelled[CANCELLED];
static u32 cancelled_count;

static u64 *place_of(const char *id)
{
	u64 hash = hash_of(id, strlen(id)) | 1;
	u32 at = (u32)(hash >> 1) % CANCELLED;
	while (cancelled[at] && cancelled[at] != hash)
		at = (at + 1) % CANCELLED;
	return cancelled + at;
}

bool proc_cancelled(const char *id)
{
	return *place_of(id);
}

int proc_cancel(struct request *q)
{
	struct proc *p = proc_find(q->id);
	if (p && p->identity == q->n[0])
		return kill_and_tell(q, p, q->n[1] == BY_LIMIT ? BY_LIMIT : BY_REQUEST, q->n[2]);
	if (!p && !proc_forgotten(q->id) && !proc_cancelled(q->id)) {
		if (cancelled_count == MAX_CANCELLED)
			return refuse(q, E_RESOURCES, MAX_CANCELLED, "too many starts were cancelled that never came");
		*place_of(q->id) = hash_of(q->id, strlen(q->id)) | 1;
		cancelled_count++;
	}
	/* Nothing of that start is there: the id may be another program's. */
	w_frame(T_KILLED, q->channel, "11", 1, MET_NOTHING);
	return ANSWERED;
}

/* ---- time limits ---- */

/* The service ends a program in time. Here the same limit is kept a second time, for a service that has died, and strikes a little
 * later and only while no service is connected. No clock tells how long the sandbox was frozen, so the time is counted in steps:
 * one that took much longer than was asked for was slept through, and does not count. */
enum { STEP_MS = 1000, FROZEN_MS = 500, LATER_MS = 1000 };

static u64 counted; /* up to when */

static u64 step(void)
{
	u64 passed = now - counted;
	counted = now;
	return passed < STEP_MS + FROZEN_MS ? passed : 0;
}

void limit_begin(struct proc *p, u32 ms)
{
	limit_tick();
	p->limited = ms > 0;
	p->left = (u64)ms + LATER_MS;
	if (p->limited)
		wake_at(now + STEP_MS);
}

int proc_limit(struct request *q)
{
	limit_begin(q->proc, (u32)q->n[0]);
	return DONE;
}

u32 limit_left(const struct proc *p)
{
	return (u32)(p->left > LATER_MS ? p->left - LATER_MS : 0);
}

void limit_tick(void)
{
	u64 passed = step();
	for (struct proc *p = procs; p; p = p->next) {
		if (!p->limited || !p->sup)
			continue;
		p->left -= passed < p->left ? passed : p->left;
		if (!p->left && !p->killing && !conn_live())
			end_tree(p, BY_LIMIT);
		wake_at(now + STEP_MS);
	}
}

void ends_tick(void)
{
	limit_tick();
	for (struct proc *p = procs; p; p = p->next)
		kill_pass(p);
}
