/* The life of a process: started through a supervisor, its output read into the journal, its tree ended on demand. */
#include "proc.h"
#include <signal.h>
#include <sys/wait.h>

enum { MAX_KEPT = 256, CHUNK = 64 * 1024, STUCK_MS = 50, KILL_EVERY = 1 };

struct proc *procs;
static struct proc *dead_procs; /* freed after the batch, whose events may still name them */
static u32 running, kept;
static u8 scratch[CHUNK];

struct proc *proc_find(const char *id)
{
	for (struct proc *p = procs; p; p = p->next)
		if (strcmp(p->id, id) == 0)
			return p;
	return NULL;
}

struct proc *proc_named(u32 channel, struct rd *r)
{
	char id[MAX_ID + 1];
	struct proc *p = rd_text(r, id, sizeof id) ? proc_find(id) : NULL;
	if (r->bad)
		w_error(channel, E_INVALID, 0, 0, "malformed request");
	else if (!p)
		w_error(channel, E_NO_PROCESS, ESRCH, 0, "no such process");
	return p;
}

u32 proc_running(void)
{
	return running;
}

void proc_meters(u32 *r, u32 *k)
{
	*r = running;
	*k = kept;
}

static bool finished(const struct proc *p)
{
	return p->state == EXITED && !p->sup && !p->readers && p->out.fd < 0 && p->err.fd < 0 && p->in.fd < 0;
}

static void forget(struct proc *p)
{
	for (struct proc **at = &procs; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	journal_free(&p->j);
	free(p->stdin_buf);
	p->next = dead_procs;
	dead_procs = p;
}

void proc_sweep(void)
{
	for (struct proc *p; (p = dead_procs);) {
		dead_procs = p->next;
		free(p);
	}
	pool_sweep();
}

bool proc_evict(void)
{
	struct proc *oldest = NULL;
	for (struct proc *p = procs; p; p = p->next)
		if (finished(p) && (!oldest || p->exited <= oldest->exited))
			oldest = p;
	if (!oldest)
		return false;
	forget(oldest);
	kept--;
	return true;
}

/* ---- output ---- */

static void exited(struct proc *p)
{
	p->state = EXITED;
	stdin_done(p);
	running--;
	kept++;
	if (p->out.fd < 0 && p->err.fd < 0)
		journal_trim(&p->j);
	pump_again = true;
	if (kept > MAX_KEPT)
		wake_at(now);
}

static void maybe_exited(struct proc *p)
{
	if (p->state != DRAINING)
		return;
	if (p->out.fd < 0 && p->err.fd < 0)
		return exited(p);
	if (p->paused)
		return; /* somebody attached is slow: silence is not the program's */
	if (now >= p->drain_at || now >= p->drain_end)
		return exited(p);
	wake_at(p->drain_at < p->drain_end ? p->drain_at : p->drain_end);
}

void proc_resume(struct proc *p)
{
	p->paused = false;
	source_want(&p->out, EPOLLIN);
	source_want(&p->err, EPOLLIN);
	p->drain_at = now + p->drain;
	p->drain_end = now + DRAIN_MAX;
	wake_at(p->drain_at);
}

/* One read; false when there is nothing more for now. */
static bool read_output(struct proc *p, struct source *s)
{
	if (s->fd < 0 || p->paused)
		return false;
	u64 needed = attach_needs(p), room = sizeof scratch;
	if (needed != UINT64_MAX) {
		room = journal_room(&p->j, needed);
		if (room < 4096 && room < p->j.max / 4) { /* the slowest reader holds the program up */
			p->paused = true;
			source_want(&p->out, 0);
			source_want(&p->err, 0);
			return false;
		}
		if (room > sizeof scratch)
			room = sizeof scratch;
	}
	ssize_t n = read(s->fd, scratch, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) { /* the end, which a terminal calls EIO */
		source_close(s);
		if (p->state == EXITED && p->out.fd < 0 && p->err.fd < 0)
			journal_trim(&p->j);
		return false;
	}
	journal_append(&p->j, s == &p->err ? 2 : 1, scratch, (u32)n);
	p->drain_at = now + p->drain;
	return true;
}

static void on_out(struct source *s, u32 events)
{
	(void)events;
	struct proc *p = (struct proc *)((u8 *)s - offsetof(struct proc, out));
	read_output(p, s);
	maybe_exited(p);
}

static void on_err(struct source *s, u32 events)
{
	(void)events;
	struct proc *p = (struct proc *)((u8 *)s - offsetof(struct proc, err));
	read_output(p, s);
	maybe_exited(p);
}

static void on_in(struct source *s, u32 events)
{
	struct proc *p = (struct proc *)((u8 *)s - offsetof(struct proc, in));
	if (events & EPOLLERR)
		stdin_done(p); /* nobody reads any more */
	else
		stdin_flush(p);
}

/* ---- its life ---- */

void proc_enter(struct proc *p)
{
	p->next = procs;
	procs = p;
	running++;
}

/* ours: output, error output, input; -1 where it has none. */
void proc_wire(struct proc *p, const int ours[3])
{
	if (ours[0] >= 0)
		source_open(&p->out, ours[0], EPOLLIN, on_out);
	if (ours[1] >= 0)
		source_open(&p->err, ours[1], EPOLLIN, on_err);
	if (ours[2] >= 0 && source_open(&p->in, ours[2], EPOLLOUT, on_in))
		source_want(&p->in, 0);
}

void proc_started(struct proc *p, pid_t pid)
{
	p->state = RUNNING;
	p->pid = pid;
	pump_again = true;
}

void proc_tree_gone(struct proc *p)
{
	p->sup = NULL;
	p->killing = false;
	pump_again = true;
}

void proc_main_gone(struct proc *p, int status)
{
	p->state = DRAINING;
	p->status = status;
	p->exited = wall;
	p->drain_at = now + p->drain;
	p->drain_end = now + DRAIN_MAX;
	/* What it wrote is in the pipes already: in the usual case the exit is known in this very batch. */
	for (int i = 0; i < 64 && (read_output(p, &p->out) | read_output(p, &p->err)); i++)
		;
	maybe_exited(p);
}

void proc_failed(struct proc *p, u8 stage, int err)
{
	u16 code = code_of(err);
	const char *message = strerror(err);
	if (stage == STAGE_CWD)
		code = E_BAD_CWD;
	else if (stage == STAGE_EXEC && (err == ENOTDIR || err == ELOOP || err == ENAMETOOLONG))
		code = E_NOT_FOUND;
	attach_failed(p, code, err, message);
	source_close(&p->out);
	source_close(&p->err);
	stdin_done(p);
	running--;
	forget(p);
}

/* ---- the end of trees ---- */

static void kill_pass(struct proc *p)
{
	if (!p->killing || !p->sup || !p->sup->pid)
		return;
	if (tree_signal(p->sup->pid, SIGKILL, 0, NULL, 0))
		p->idle_passes = 0;
	else if (++p->idle_passes > STUCK_MS)
		kill(p->sup->pid, SIGKILL); /* nothing left and no word of it: somebody stopped the supervisor */
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
	w_begin(T_KILLED, c->id);
	w_int(!alive, 1);
	w_end();
	chan_close(c);
	return false;
}

static const struct chan_ops killer_ops = {.pump = killer_pump};

void proc_kill(u32 channel, struct rd *r)
{
	struct proc *p = proc_named(channel, r);
	if (!p)
		return;
	u32 wait = rd_u32(r);
	if (r->bad)
		return w_error(channel, E_INVALID, 0, 0, "malformed request");
	struct killer *k = chan_open(sizeof *k, channel, 0, &killer_ops);
	if (!k)
		return;
	strcpy(k->id, p->id);
	k->deadline = now + wait;
	p->killing = p->sup != NULL;
	p->idle_passes = 0;
	kill_pass(p);
}

void proc_tick(void)
{
	pool_tick();
	for (struct proc *p = procs; p; p = p->next) {
		kill_pass(p);
		maybe_exited(p);
	}
	while (kept > MAX_KEPT && proc_evict())
		;
}

/* The agent is about to end. As PID 1 it takes everything with it; elsewhere it has to do so by hand. */
void proc_kill_all(void)
{
	for (int i = 0; i < 100 && tree_signal(getpid(), SIGKILL, 0, NULL, 0); i++) {
		while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
			;
		usleep(1000);
	}
}
