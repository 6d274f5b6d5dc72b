/* The life of a process: started through a supervisor, its output read into the journal, its tree ended on demand. */
#include "proc.h"
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>

enum { MAX_RUNNING = 1024, MAX_KEPT = 256, MAX_IDLE = 1, CHUNK = 64 * 1024, STUCK_MS = 50, LONG_SPEC = 64 * 1024, KILL_EVERY = 1 };

struct proc *procs;
static struct sup *sups;
static struct proc *dead_procs; /* freed after the batch, whose events may still name them */
static struct sup *dead_sups;
static u32 running, kept, leaving; /* leaving: supervisors told to end and not yet reaped */
static bool orphans; /* a supervisor was killed: what it looked after is the agent's now, and goes */
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
	for (struct sup *s; (s = dead_sups);) {
		dead_sups = s->next;
		free(s);
	}
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

/* ---- supervisors ---- */

static void main_gone(struct proc *p, int status)
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

static void failed(struct proc *p, u8 stage, int err)
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

static void free_sup(struct sup *s)
{
	leaving += s->s.fd >= 0;
	source_close(&s->s); /* which ends it; the record goes when it is reaped */
	s->p = NULL;
}

static void released(struct sup *s)
{
	u32 idle = 0;
	s->p = NULL;
	for (struct sup *o = sups; o; o = o->next)
		idle += !o->p && o->s.fd >= 0;
	if (idle > MAX_IDLE)
		free_sup(s);
}

static bool read_report(struct sup *s)
{
	struct report r;
	if (s->s.fd < 0 || recv(s->s.fd, &r, sizeof r, 0) != (ssize_t)sizeof r)
		return false;
	struct proc *p = s->p;
	if (!p)
		return true;
	if (r.kind == R_STARTED) {
		p->state = RUNNING;
		p->pid = r.value;
		pump_again = true;
	} else if (r.kind == R_EXITED) {
		main_gone(p, r.value);
	} else {
		p->sup = NULL;
		p->killing = false;
		released(s);
		pump_again = true;
		if (r.kind == R_ENDED)
			main_gone(p, r.value);
		else if (r.kind == R_FAILED)
			failed(p, r.stage, r.value);
	}
	return true;
}

static void on_report(struct source *s, u32 events)
{
	struct sup *sup = (struct sup *)s;
	while (read_report(sup))
		;
	if ((events & (EPOLLHUP | EPOLLERR)) && s->fd >= 0)
		source_want(s, 0); /* dead: the reaper takes it from here */
}

static struct sup *new_sup(void)
{
	int pair[2];
	struct sup *s = calloc(1, sizeof *s);
	if (!s || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		free(s);
		return NULL;
	}
	s->pid = fork();
	if (s->pid == 0) {
		int flags = fcntl(pair[1], F_GETFL);
		if (flags < 0 || fcntl(pair[1], F_SETFL, flags & ~O_NONBLOCK) < 0)
			_exit(1);
		sup_main(pair[1]);
	}
	int err = errno;
	close(pair[1]);
	if (s->pid < 0 || !source_open(&s->s, pair[0], EPOLLIN, on_report)) {
		if (s->pid < 0)
			close(pair[0]);
		free(s);
		errno = err;
		return NULL;
	}
	s->next = sups;
	sups = s;
	return s;
}

static bool send_fds(int to, const void *p, size_t n, const int *fds, size_t count)
{
	union {
		struct cmsghdr h;
		u8 space[CMSG_SPACE(4 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	*c = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

static bool hand_over(struct sup *s, const u8 *spec, size_t n, const int *fds, int count)
{
	int all[4];
	if (n <= LONG_SPEC)
		return send_fds(s->s.fd, spec, n, fds, (size_t)count);
	memcpy(all, fds, (size_t)count * sizeof(int));
	all[count] = memfd_create("spec", MFD_CLOEXEC);
	bool done = all[count] >= 0 && write(all[count], spec, n) == (ssize_t)n && send_fds(s->s.fd, "", 1, all, (size_t)count + 1);
	int err = errno;
	if (all[count] >= 0)
		close(all[count]);
	errno = err;
	return done;
}

/* An idle supervisor that does not take the work (root in the sandbox may have stopped it) is ended, not waited for. */
static struct sup *start(const u8 *spec, size_t n, const int *fds, int count)
{
	for (struct sup *s = sups; s; s = s->next) {
		if (s->p || s->s.fd < 0 || s->pid == 0)
			continue;
		if (hand_over(s, spec, n, fds, count))
			return s;
		kill(s->pid, SIGKILL);
		free_sup(s);
	}
	struct sup *s = new_sup();
	if (!s || hand_over(s, spec, n, fds, count))
		return s;
	int err = errno;
	free_sup(s);
	errno = err;
	return NULL;
}

/* One waits from the beginning, so that the first program is not slower than the next, and nothing is left over after the last. */
void proc_init(void)
{
	(void)new_sup(); /* a failure is told by the first spawn, which tries again */
}

/* ---- spawn ---- */

static int open_tty(const struct spec *s, int *master)
{
	int unlocked = 0;
	struct winsize size = {.ws_row = s->rows, .ws_col = s->cols};
	bool user = as_user(s->uid, s->gid); /* a terminal belongs to whoever opens it */
	*master = user ? keep_fd(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)) : -1;
	int err = user ? errno : EPERM;
	as_agent();
	errno = err;
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlocked) < 0 || ioctl(*master, TIOCSWINSZ, &size) < 0)
		return -1;
	return ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* ours: out, err, in; theirs: in, out, err (or the terminal alone). Returns how many are theirs, -1 with errno. */
static int open_io(const struct spec *s, int ours[3], int theirs[3])
{
	int pair[2];
	if (s->flags & SPAWN_TTY) {
		theirs[0] = open_tty(s, &ours[0]);
		ours[2] = theirs[0] < 0 ? -1 : keep_fd(fcntl(ours[0], F_DUPFD_CLOEXEC, 0));
		return ours[2] < 0 ? -1 : 1;
	}
	for (int i = 0; i < 2; i++) {
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -1;
		theirs[i + 1] = pair[1];
		if ((ours[i] = keep_fd(pair[0])) < 0 || fcntl(ours[i], F_SETFL, O_NONBLOCK) < 0)
			return -1;
	}
	if (!(s->flags & SPAWN_STDIN))
		return (theirs[0] = fcntl(null_fd, F_DUPFD_CLOEXEC, 0)) < 0 ? -1 : 3;
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	theirs[0] = pair[0];
	ours[2] = keep_fd(pair[1]);
	return ours[2] < 0 || fcntl(ours[2], F_SETFL, O_NONBLOCK) < 0 ? -1 : 3;
}

static bool launch(struct proc *p, const struct spec *spec, const u8 *raw, size_t n)
{
	int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
	int count = open_io(spec, ours, theirs);
	struct sup *s = count < 0 ? NULL : start(raw, n, theirs, count);
	int err = errno;
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	if (!s) {
		for (int i = 0; i < 3; i++)
			if (ours[i] >= 0)
				close(ours[i]);
		errno = err;
		return false;
	}
	p->sup = s;
	s->p = p;
	if (ours[0] >= 0)
		source_open(&p->out, ours[0], EPOLLIN, on_out);
	if (ours[1] >= 0)
		source_open(&p->err, ours[1], EPOLLIN, on_err);
	if (ours[2] >= 0 && source_open(&p->in, ours[2], EPOLLOUT, on_in))
		source_want(&p->in, 0);
	return true;
}

static bool valid(const struct spec *s)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = strlen(s->id);
	if (!n || n > MAX_ID || strspn(s->id, alphabet) != n || s->cwd[0] != '/' || (s->flags & ~(SPAWN_TTY | SPAWN_STDIN)))
		return false;
	for (u32 i = 0; i < s->envc; i++) {
		char *eq = strchr(s->env[i], '=');
		if (!eq || eq == s->env[i])
			return false;
	}
	return s->uid != UINT32_MAX && s->gid != UINT32_MAX && (own_uid == 0 || s->uid == own_uid);
}

static void remember(struct proc *p, const struct spec *s)
{
	strcpy(p->id, s->id);
	for (u32 i = 0; i < s->argc && p->argv_len + 4 < ARGV_KEPT; i++, p->argc++) {
		u32 n = (u32)strlen(s->argv[i]), room = ARGV_KEPT - p->argv_len - 4;
		n = n < room ? n : room;
		memcpy(p->argv + p->argv_len, &n, 4);
		memcpy(p->argv + p->argv_len + 4, s->argv[i], n);
		p->argv_len += 4 + n;
	}
	p->uid = s->uid;
	p->flags = s->flags;
	p->drain = s->drain < 10000 ? s->drain : 10000;
	u32 wanted = s->capacity ? s->capacity : 1 << 20;
	p->j.max = wanted < 4096 ? 4096 : wanted > 16u << 20 ? 16u << 20 : wanted;
	p->started = wall;
}

void proc_spawn(u32 channel, struct rd *r)
{
	bool attach = rd_u8(r);
	u32 credit = rd_u32(r);
	const u8 *raw = r->p;
	size_t n = (size_t)(r->end - r->p);
	struct spec spec;
	if (r->bad || !spec_parse(&spec, raw, n) || !valid(&spec))
		return w_error(channel, E_INVALID, 0, 0, "malformed process specification");
	u64 hash = 14695981039346656037u;
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ raw[i]) * 1099511628211u;
	struct proc *p = proc_find(spec.id);
	if (p && p->hash != hash)
		return w_error(channel, E_CONFLICT, 0, 0, "this process id names another process");
	if (p) {
		attach_open(channel, credit, p, 0, attach, true, true);
		return;
	}
	if (running >= MAX_RUNNING || !(p = calloc(1, sizeof *p)))
		return w_error(channel, E_RESOURCES, EAGAIN, 0, "too many processes");
	p->out.fd = p->err.fd = p->in.fd = -1;
	p->hash = hash;
	remember(p, &spec);
	if (!attach_open(channel, credit, p, 0, attach, true, false)) {
		free(p);
		return;
	}
	p->next = procs;
	procs = p;
	running++;
	if (!launch(p, &spec, raw, n))
		failed(p, STAGE_SETUP, errno);
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
	bool alive = leaving || (p && p->sup); /* its output may still wait for a slow reader */
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

static void sup_gone(struct sup *s)
{
	while (read_report(s))
		;
	leaving -= s->s.fd < 0;
	source_close(&s->s);
	s->pid = 0;
	/* Killed from inside by root. Perhaps its program had not started yet; it is gone now in any case. */
	if (s->p && (s->p->state == STARTING || s->p->state == RUNNING))
		main_gone(s->p, SIGKILL);
	orphans = true;
	wake_at(now);
}

void proc_reap(void)
{
	pid_t pid;
	int status;
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		for (struct sup *s = sups; s; s = s->next)
			if (s->pid == pid) {
				sup_gone(s);
				break;
			}
}

/* Everything below the agent that is not below a supervisor lost its own to a SIGKILL, and goes the same way. */
static void sweep_orphans(void)
{
	static pid_t alive[MAX_RUNNING + MAX_IDLE + 64];
	u32 n = 0;
	for (struct sup *s = sups; s && n < sizeof alive / sizeof *alive; s = s->next)
		if (s->pid)
			alive[n++] = s->pid;
	if (tree_signal(getpid(), SIGKILL, 0, alive, n))
		return wake_at(now + KILL_EVERY);
	orphans = false;
	for (struct sup **at = &sups; *at;) {
		struct sup *s = *at;
		if (s->pid) {
			at = &s->next;
			continue;
		}
		if (s->p) {
			s->p->sup = NULL;
			s->p->killing = false;
			pump_again = true;
		}
		*at = s->next;
		s->next = dead_sups;
		dead_sups = s;
	}
}

void proc_tick(void)
{
	if (orphans)
		sweep_orphans();
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
