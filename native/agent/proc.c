/* The life of a process: what its supervisor reports, its output read into the journal, its tree ended on demand. */
#include "proc.h"
#include <signal.h>
#include <sys/wait.h>

enum { CHUNK = 64 * 1024, STUCK_MS = 50, KILL_EVERY = 1 };

/* How long output may be silent after the program's exit while somebody else holds the pipe, and the most that is waited for. */
enum { QUIET_MS = 100, DRAIN_MS = 1000 };

struct proc *procs;

struct proc *proc_find(const char *id)
{
	for (struct proc *p = procs; p; p = p->next)
		if (strcmp(p->id, id) == 0)
			return p;
	return NULL;
}

static bool silent(const struct proc *p)
{
	return p->out.fd < 0 && p->err.fd < 0;
}

bool proc_finished(const struct proc *p)
{
	return p->state == EXITED && !p->sup && !p->readers && silent(p);
}

/* Those that were forgotten, by the hashes of their ids, in rows from which the oldest drops out. */
enum { ROWS = 4096, ROW = 4 };
static u64 forgotten[ROWS][ROW];

static void remember(const char *id)
{
	u64 hash = hash_of(id, strlen(id)), *row = forgotten[hash % ROWS];
	memmove(row + 1, row, (ROW - 1) * sizeof *row);
	row[0] = hash;
}

bool proc_forgotten(const char *id)
{
	u64 hash = hash_of(id, strlen(id)), *row = forgotten[hash % ROWS];
	for (int i = 0; i < ROW; i++)
		if (row[i] == hash)
			return true;
	return false;
}

static void forget(struct proc *p)
{
	UNLINK(procs, p);
	journal_free(&p->j);
	bury(p);
}

bool proc_evict(void)
{
	struct proc *oldest = NULL;
	for (struct proc *p = procs; p; p = p->next)
		if (proc_finished(p) && (!oldest || p->exited <= oldest->exited))
			oldest = p;
	if (oldest) {
		remember(oldest->id);
		forget(oldest);
	}
	return oldest;
}

/* ---- output ---- */

/* All it wrote is in the journal, or what is silent for so long counts as that. Who is attached may be slow: then silence is not
 * the program's. */
static void maybe_exited(struct proc *p)
{
	if (p->state == DRAINING && (silent(p) || (!p->paused && (now >= p->drain_at || now >= p->drain_end)))) {
		p->state = EXITED;
		stdin_done(p);
	}
	if (p->state == DRAINING && !p->paused)
		wake_at(p->drain_at < p->drain_end ? p->drain_at : p->drain_end);
	if (p->state == EXITED && silent(p))
		journal_trim(&p->j);
}

static void set_drain(struct proc *p)
{
	p->drain_at = now + QUIET_MS;
	p->drain_end = now + DRAIN_MS;
}

/* The slowest reader holds the program up. */
static void pause_output(struct proc *p)
{
	p->paused = true;
	source_want(&p->out, 0);
	source_want(&p->err, 0);
}

void proc_resume(struct proc *p)
{
	if (!p->paused)
		return;
	p->paused = false;
	source_want(&p->out, EPOLLIN);
	source_want(&p->err, EPOLLIN);
	set_drain(p);
	wake_at(p->drain_at);
}

/* One read; false when there is nothing more for now. */
static bool read_output(struct proc *p, struct source *s)
{
	static u8 chunk[CHUNK];
	if (s->fd < 0 || p->paused)
		return false;
	u64 needed = attach_needs(p), room = needed == UINT64_MAX ? CHUNK : journal_room(&p->j, needed);
	if (needed < p->j.head && room < 4096 && room < p->j.cap / 4) {
		pause_output(p);
		return false;
	}
	ssize_t n = read(s->fd, chunk, room < CHUNK ? room : CHUNK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) { /* the end, which a terminal calls EIO */
		source_close(s);
		return false;
	}
	journal_append(&p->j, s == &p->err ? 2 : 1, chunk, (u32)n);
	p->drain_at = now + QUIET_MS;
	return true;
}

void on_output(struct source *s, u32 events)
{
	(void)events;
	struct proc *p = s->owner;
	read_output(p, s);
	maybe_exited(p);
}

/* ---- what its supervisor reports ---- */

static void main_gone(struct proc *p, int status)
{
	p->state = DRAINING;
	p->status = status;
	p->exited = wall;
	set_drain(p);
	/* What it wrote is in the pipes already: in the usual case the exit is known in this very batch. */
	for (int i = 0; i < 64 && (read_output(p, &p->out) | read_output(p, &p->err)); i++)
		;
	maybe_exited(p);
}

void proc_failed(struct proc *p, u8 stage, int err)
{
	if (stage == STAGE_EXEC && (err == ENOTDIR || err == ELOOP || err == ENAMETOOLONG))
		err = ENOENT;
	attach_failed(p, stage == STAGE_CWD ? E_BAD_CWD : E_ERRNO, err);
	source_close(&p->out);
	source_close(&p->err);
	stdin_done(p);
	forget(p);
}

void proc_report(struct proc *p, const struct report *r)
{
	if (r->what & REPORT_GONE) {
		p->sup = NULL;
		p->killing = false;
	}
	if (r->what & REPORT_STARTED) {
		p->state = RUNNING;
		p->pid = r->value;
	}
	if (r->what & REPORT_EXITED)
		main_gone(p, r->value);
	if (r->what & REPORT_FAILED)
		proc_failed(p, r->stage, r->value);
}

void proc_orphaned(struct proc *p)
{
	/* Perhaps its program had not started yet; it is gone now in any case. */
	if (p->state == STARTING || p->state == RUNNING)
		main_gone(p, SIGKILL);
}

/* ---- the end of trees ---- */

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

struct killer {
	struct chan c;
	u64 deadline;
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
	w_frame(T_KILLED, c->id, "1", !alive);
	chan_close(c);
	return false;
}

static const struct chan_ops killer_ops = {.pump = killer_pump};

int proc_kill(struct request *q)
{
	struct proc *p = q->proc;
	struct killer *k = chan_open(sizeof *k, q->channel, 0, &killer_ops);
	if (!k)
		return ANSWERED;
	strcpy(k->id, p->id);
	k->deadline = now + q->n[0];
	p->killing = p->sup != NULL;
	p->idle_passes = 0;
	kill_pass(p);
	return ANSWERED;
}

void proc_tick(void)
{
	pool_tick();
	for (struct proc *p = procs; p; p = p->next) {
		kill_pass(p);
		maybe_exited(p);
	}
}

/* The agent is about to end. As PID 1 it takes everything with it; elsewhere it has to do so by hand. */
void proc_kill_all(void)
{
	for (int i = 0; i < 100 && tree_signal(getpid(), SIGKILL, 0, NULL); i++) {
		while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
			;
		usleep(1000);
	}
}
