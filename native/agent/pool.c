/* The supervisors: one for every program, and one in waiting. Their reports become the life of a process in proc.c. */
#include "proc.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { MAX_IDLE = 1, LONG_SPEC = 64 * 1024, AGAIN_MS = 1 };

static struct sup *sups, *dead; /* dead: freed after the batch, whose events may still name them */
static u32 leaving;             /* told to end and not yet reaped */
static bool orphans;            /* a supervisor was killed: what it looked after is the agent's now, and goes */

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
	if (r.kind != R_STARTED && r.kind != R_EXITED) {
		proc_tree_gone(p);
		released(s);
	}
	if (r.kind == R_STARTED)
		proc_started(p, r.value);
	else if (r.kind == R_FAILED)
		proc_failed(p, r.stage, r.value);
	else if (r.kind != R_GONE)
		proc_main_gone(p, r.value);
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
struct sup *pool_start(const u8 *spec, size_t n, const int *fds, int count)
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
void pool_init(void)
{
	(void)new_sup(); /* a failure is told by the first spawn, which tries again */
}

/* ---- the end of supervisors ---- */

static void sup_gone(struct sup *s)
{
	while (read_report(s))
		;
	leaving -= s->s.fd < 0;
	source_close(&s->s);
	s->pid = 0;
	/* Killed from inside by root. Perhaps its program had not started yet; it is gone now in any case. */
	if (s->p && (s->p->state == STARTING || s->p->state == RUNNING))
		proc_main_gone(s->p, SIGKILL);
	orphans = true;
	wake_at(now);
}

void pool_reap(void)
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
void pool_tick(void)
{
	static pid_t alive[2 * MAX_RUNNING];
	u32 n = 0;
	if (!orphans)
		return;
	for (struct sup *s = sups; s; s = s->next) {
		if (n == 2 * MAX_RUNNING)
			return wake_at(now + AGAIN_MS);
		if (s->pid)
			alive[n++] = s->pid;
	}
	if (tree_signal(getpid(), SIGKILL, 0, alive, n))
		return wake_at(now + AGAIN_MS);
	orphans = false;
	for (struct sup **at = &sups; *at;) {
		struct sup *s = *at;
		if (s->pid) {
			at = &s->next;
			continue;
		}
		if (s->p)
			proc_tree_gone(s->p);
		*at = s->next;
		s->next = dead;
		dead = s;
	}
}

u32 pool_leaving(void)
{
	return leaving;
}

void pool_sweep(void)
{
	for (struct sup *s; (s = dead);) {
		dead = s->next;
		free(s);
	}
}
