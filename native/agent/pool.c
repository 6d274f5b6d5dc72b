/* The supervisors: one for every program, and one in waiting. Their reports become the life of a process in proc.c. */
#include "proc.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { MAX_IDLE = 1, LONG_SPEC = 64 * 1024, AGAIN_MS = 1, LOOKS = 2 };

struct sup {
	struct sup *next;
	struct source s; /* closed once it is told to end */
	struct proc *p;  /* NULL: idle */
	pid_t pid;       /* 0 once it has been reaped */
};

static struct sup *sups;
/* How many looks in a row must find nothing, since a supervisor ended: what one that was killed looked after is the agent's now, and
 * goes. One look misses a process whose pid wrapped around behind it and whose parent ended before it came there. */
static u32 orphans;

pid_t sup_pid(const struct sup *s)
{
	return s->pid;
}

static bool idle(const struct sup *s)
{
	return !s->p && s->s.fd >= 0 && s->pid;
}

bool pool_leaving(void)
{
	bool leaving = false;
	for (struct sup *s = sups; s; s = s->next)
		leaving |= s->s.fd < 0 && s->pid;
	return leaving;
}

static void released(struct sup *s)
{
	u32 count = 0;
	s->p = NULL;
	for (struct sup *o = sups; o; o = o->next)
		count += idle(o);
	if (count > MAX_IDLE)
		source_close(&s->s); /* which ends it; the record goes when it is reaped */
}

static void read_reports(struct sup *s)
{
	struct report r;
	while (s->s.fd >= 0 && recv(s->s.fd, &r, sizeof r, 0) == (ssize_t)sizeof r) {
		struct proc *p = s->p;
		if (!p)
			continue;
		if (r.what & REPORT_GONE)
			released(s);
		proc_report(p, &r);
	}
}

static void on_report(struct source *s, u32 events)
{
	read_reports(s->owner);
	if (events & (EPOLLHUP | EPOLLERR))
		source_want(s, 0); /* dead: the reaper takes it from here */
}

static struct sup *new_sup(void)
{
	int pair[2];
	struct sup *s = calloc(1, sizeof *s);
	if (!s || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		free(s);
		return NULL;
	}
	s->pid = fork();
	if (s->pid == 0)
		sup_main(pair[1]);
	closing(pair[1], 0);
	if (s->pid < 0 || fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
		closing(pair[0], 0);
		free(s);
		return NULL;
	}
	if (!source_open(&s->s, s, pair[0], EPOLLIN, on_report)) {
		free(s);
		return NULL;
	}
	s->next = sups;
	sups = s;
	return s;
}

static bool send_fds(int to, struct str message, const int *fds, size_t count)
{
	union {
		struct cmsghdr h;
		u8 space[CMSG_SPACE(4 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)message.p, message.n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c)
		return false;
	*c = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)message.n;
}

static bool hand_over(struct sup *s, struct str spec, const int *fds, int count)
{
	int all[4];
	if (spec.n <= LONG_SPEC)
		return send_fds(s->s.fd, spec, fds, (size_t)count);
	memcpy(all, fds, (size_t)count * sizeof(int));
	int file = all[count] = memfd_create("spec", MFD_CLOEXEC);
	struct str hint = {(const u8 *)"", 1};
	return closing(file, file >= 0 && write(file, spec.p, spec.n) == (ssize_t)spec.n && send_fds(s->s.fd, hint, all, (size_t)count + 1));
}

/* An idle supervisor that does not take the work (root in the sandbox may have stopped it) is ended, not waited for. */
bool pool_start(struct proc *p, struct str spec, const int *fds, int count)
{
	struct sup *s = sups;
	while (s && !(idle(s) && hand_over(s, spec, fds, count))) {
		if (idle(s)) {
			kill(s->pid, SIGKILL);
			source_close(&s->s);
		}
		s = s->next;
	}
	if (!s && (s = new_sup()) && !hand_over(s, spec, fds, count)) {
		int err = errno;
		source_close(&s->s);
		errno = err;
		return false;
	}
	if (!s)
		return false;
	s->p = p;
	p->sup = s;
	return true;
}

/* One waits from the beginning, so that the first program is not slower than the next, and nothing is left over after the last. */
void pool_init(void)
{
	(void)new_sup(); /* a failure is told by the first spawn, which tries again */
}

/* ---- the end of supervisors ---- */

void pool_reap(void)
{
	pid_t pid;
	int status;
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
		for (struct sup *s = sups; s; s = s->next) {
			if (s->pid != pid)
				continue;
			read_reports(s);
			source_close(&s->s);
			s->pid = 0;
			if (s->p)
				proc_orphaned(s->p);
			orphans = s->p ? LOOKS : orphans ? orphans : 1;
			wake_at(now);
		}
}

static bool is_supervisor(pid_t pid)
{
	struct sup *s = sups;
	while (s && s->pid != pid)
		s = s->next;
	return s;
}

/* Everything below the agent that is not below a supervisor lost its own to a SIGKILL, and goes the same way. */
void pool_tick(void)
{
	if (!orphans)
		return;
	orphans = tree_signal(getpid(), SIGKILL, 0, is_supervisor) ? LOOKS : orphans - 1;
	if (orphans)
		return wake_at(now + AGAIN_MS);
	for (struct sup *s = sups, *next; s; s = next) {
		next = s->next;
		if (s->pid)
			continue;
		if (s->p)
			proc_report(s->p, &(struct report){.what = REPORT_GONE});
		UNLINK(sups, s);
		bury(s);
	}
}
