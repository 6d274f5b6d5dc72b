/* The life of a process: what its supervisor reports, and its output read into the journal. */
#include "proc.h"
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

enum { CHUNK = 64 * 1024 };

/* What was in the pipes when the program exited is read in any case. Of what its descendants write after that, only so much and for
 * so long, whatever readers do, and less when they are silent; the rest is passed over, slowly, so that they neither break nor spin. */
enum { QUIET_MS = 100, DRAIN_MS = 1000, DRAIN_BYTES = 1 << 20, PASS_OVER_MS = 20 };

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

/* Its output is complete. Who is attached may be slow: then silence is not the program's. */
static bool drained(const struct proc *p)
{
	if (silent(p))
		return true;
	if (p->owed[0] || p->owed[1])
		return false;
	return now >= p->drain_end || p->drain_left == 0 || (!p->paused && now >= p->drain_at);
}

static void maybe_exited(struct proc *p)
{
	if (p->state == DRAINING && drained(p)) {
		p->state = EXITED;
		p->paused = false;
		source_want(&p->out, EPOLLIN);
		source_want(&p->err, EPOLLIN);
		stdin_done(p);
	}
	if (p->state == DRAINING && !p->owed[0] && !p->owed[1])
		wake_at(p->paused || p->drain_end < p->drain_at ? p->drain_end : p->drain_at);
	if (p->state == EXITED && silent(p))
		journal_trim(&p->j);
}

/* What is there to be read is the program's, however little of it fits now. */
static u32 waiting(const struct source *s)
{
	int n = 0;
	return s->fd >= 0 && ioctl(s->fd, FIONREAD, &n) == 0 && n > 0 ? (u32)n : 0;
}

static void begin_drain(struct proc *p)
{
	p->drain_at = now + QUIET_MS;
	p->drain_end = now + DRAIN_MS;
	p->drain_left = DRAIN_BYTES;
	p->owed[0] = waiting(&p->out);
	p->owed[1] = waiting(&p->err);
}

static void drained_by(struct proc *p, u32 *owed, u32 n)
{
	u32 due = n < *owed ? n : *owed, more = n - due;
	*owed -= due;
	p->drain_left -= more < p->drain_left ? more : p->drain_left;
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
	p->drain_at = now + QUIET_MS; /* its end stays where it is */
	wake_at(p->drain_at);
}

/* Descendants of a program that has ended may go on writing: nobody will read it. */
static void pass_over(struct source *s)
{
	static u8 chunk[CHUNK];
	struct proc *p = s->owner;
	ssize_t n = read(s->fd, chunk, sizeof chunk);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		return source_close(s);
	source_want(s, 0);
	p->pass_at = now + PASS_OVER_MS;
	wake_at(p->pass_at);
}

static void pass_on(struct proc *p)
{
	if (p->state != EXITED || !p->pass_at)
		return;
	if (now < p->pass_at)
		return wake_at(p->pass_at);
	p->pass_at = 0;
	source_want(&p->out, EPOLLIN);
	source_want(&p->err, EPOLLIN);
}

/* One read; false when there is nothing more for now. */
static bool read_output(struct proc *p, struct source *s)
{
	static u8 chunk[CHUNK];
	if (s->fd < 0 || p->paused)
		return false;
	u32 *owed = p->owed + (s == &p->err);
	u64 needed = attach_needs(p), room = needed == UINT64_MAX ? CHUNK : journal_room(&p->j, needed);
	if (needed < p->j.head && room < 4096 && room < p->j.cap / 4) {
		pause_output(p);
		return false;
	}
	ssize_t n = read(s->fd, chunk, room < CHUNK ? room : CHUNK);
	if (n < 0 && errno == EINTR)
		return false;
	if (n <= 0) {
		*owed = 0; /* somebody in the sandbox may have read it */
		if (n == 0 || errno != EAGAIN) /* the end, which a terminal calls EIO */
			source_close(s);
		return false;
	}
	journal_append(&p->j, s == &p->err ? 2 : 1, chunk, (u32)n);
	if (p->state == DRAINING)
		drained_by(p, owed, (u32)n);
	p->drain_at = now + QUIET_MS;
	return true;
}

void on_output(struct source *s, u32 events)
{
	(void)events;
	struct proc *p = s->owner;
	if (p->state == EXITED)
		pass_over(s);
	else
		read_output(p, s);
	maybe_exited(p);
}

/* ---- what its supervisor reports ---- */

static void main_gone(struct proc *p, int status)
{
	p->state = DRAINING;
	p->status = status;
	p->exited = wall;
	begin_drain(p);
	/* What it wrote is in the pipes already: in the usual case the exit is known in this very batch. */
	for (int i = 0; i < 64 && p->drain_left && (read_output(p, &p->out) | read_output(p, &p->err)); i++)
		;
	maybe_exited(p);
}

void proc_failed(struct proc *p, u8 stage, int err)
{
	if (stage == STAGE_EXEC && (err == ENOTDIR || err == ELOOP || err == ENAMETOOLONG))
		err = ENOENT;
	bool no_terminal = stage == STAGE_TERMINAL && err == ENOSPC;
	attach_failed(p, stage == STAGE_CWD ? E_BAD_CWD : no_terminal ? E_NO_TERMINAL : E_ERRNO, err);
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

/* ---- all of them ---- */

void proc_tick(void)
{
	pool_tick();
	ends_tick();
	for (struct proc *p = procs; p; p = p->next) {
		maybe_exited(p);
		pass_on(p);
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
