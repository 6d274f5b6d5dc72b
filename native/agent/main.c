/* fiberbox-agent: the resident of a sandbox. It owns the loop, the clock and the set-up; see proto.h for what it speaks.
 *
 *   --listen-fd N    serve the inherited unix listening socket N
 *   --no-pid1        be a subreaper instead of insisting on being PID 1
 *   --lease MS       end when no host has been connected for MS (a HELLO overrides it); 0 = never
 *   --budget BYTES   memory for all journals together
 *
 * Everything that carries bytes sits behind struct source: a serial port would be one more source that is promoted at its HELLO. */
#include "agent.h"
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

enum { BATCH = 64, FD_RESERVE = 32 };

struct config config = {.pid1 = true, .budget = 32u << 20};
u64 now, wall, epoch;
int proc_dir = -1, null_fd = -1;
u32 own_uid, own_gid;

static int ep = -1;
static u64 alarm_at = UINT64_MAX;
static bool busy; /* there was more to do than one round did */
static struct source signals = {.fd = -1};
static rlim_t fd_limit = 1024;

static struct grave {
	struct grave *next;
} *graves;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void clocks(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (u64)t.tv_sec * 1000 + (u64)t.tv_nsec / 1000000;
	clock_gettime(CLOCK_REALTIME, &t);
	wall = (u64)t.tv_sec * 1000 + (u64)t.tv_nsec / 1000000;
}

void wake_at(u64 when)
{
	if (when < alarm_at)
		alarm_at = when;
}

bool source_open(struct source *s, void *owner, int fd, u32 events, void (*fn)(struct source *, u32))
{
	struct epoll_event e = {.events = events, .data.ptr = s};
	*s = (struct source){.fd = fd, .events = events, .fn = fn, .owner = owner};
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) == 0)
		return true;
	s->fd = closing(fd, -1);
	return false;
}

void source_want(struct source *s, u32 events)
{
	if (s->fd < 0 || s->events == events)
		return;
	struct epoll_event e = {.events = events, .data.ptr = s};
	/* A hangup is reported even to those who want nothing and would spin the loop: such a source leaves the set. */
	int op = !events ? EPOLL_CTL_DEL : !s->events ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	if (epoll_ctl(ep, op, s->fd, &e) == 0)
		s->events = events;
	else
		wake_at(now + 10);
}

void source_close(struct source *s)
{
	if (s->fd < 0)
		return;
	/* Closing alone would not do: a duplicate, here or in a supervisor that is just starting, keeps it in the set. */
	source_want(s, 0);
	close(s->fd);
	s->fd = -1;
}

int closing(int fd, int result)
{
	int err = errno;
	if (fd >= 0)
		close(fd);
	errno = err;
	return result;
}

int keep_fd(int fd)
{
	if (fd < 0 || (rlim_t)fd + FD_RESERVE < fd_limit)
		return fd;
	close(fd);
	errno = EMFILE;
	return -1;
}

void bury(void *p)
{
	struct grave *g = p;
	g->next = graves;
	graves = g;
}

static void on_signal(struct source *s, u32 events)
{
	(void)events;
	struct signalfd_siginfo info;
	while (read(s->fd, &info, sizeof info) == (ssize_t)sizeof info) {
		if (info.ssi_signo == SIGCHLD)
			continue;
		proc_kill_all();
		exit(0);
	}
	pool_reap();
}

static int patience(int most)
{
	u64 wait = busy || alarm_at <= now ? 0 : alarm_at == UINT64_MAX ? INT_MAX : alarm_at - now;
	if (most >= 0 && wait > (u64)most)
		wait = (u64)most;
	return wait >= INT_MAX ? -1 : (int)wait;
}

void loop_once(int max_wait)
{
	struct epoll_event batch[BATCH];
	clocks();
	int n = epoll_wait(ep, batch, BATCH, patience(max_wait));
	if (n < 0 && errno != EINTR)
		die("fiberbox-agent: epoll_wait");
	clocks();
	for (int i = 0; i < n; i++) {
		struct source *s = batch[i].data.ptr;
		if (s->fd >= 0)
			s->fn(s, batch[i].events);
	}
	if (now >= alarm_at) {
		alarm_at = UINT64_MAX;
		conn_tick();
		proc_tick();
		upload_tick();
		watch_tick();
	}
	busy = conn_run();
	sweep();
	for (struct grave *g; (g = graves);) {
		graves = g->next;
		free(g);
	}
}

void loop_init(void)
{
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	umask(0);

	if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("fiberbox-agent: prctl");
	if (!config.pid1 && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die("fiberbox-agent: subreaper");
	own_uid = geteuid();
	own_gid = getegid();
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		fd_limit = files.rlim_cur;

	if (getrandom(&epoch, sizeof epoch, 0) != (ssize_t)sizeof epoch)
		die("fiberbox-agent: getrandom");
	epoch += !epoch; /* 0 stands for any */
	clocks();
	ep = epoll_create1(EPOLL_CLOEXEC);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	proc_dir = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (ep < 0 || fd < 0 || !source_open(&signals, NULL, fd, EPOLLIN, on_signal))
		die("fiberbox-agent: epoll");
}

#ifndef FUZZ
/* Only the standard three and the listening socket come along, and none of them reaches user code. */
static void keep_only(int fd)
{
	if (fd > 3 && syscall(SYS_close_range, 3, fd - 1, 0) < 0)
		die("fiberbox-agent: close_range");
	if (syscall(SYS_close_range, fd + 1, ~0u, 0) < 0)
		die("fiberbox-agent: close_range");
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		die("fiberbox-agent: --listen-fd");
}

static void usage(void)
{
	fprintf(stderr, "fiberbox-agent --listen-fd N [--no-pid1] [--lease MS] [--budget BYTES]\n");
	exit(2);
}

static u64 number(const char *text)
{
	char *end = NULL;
	errno = 0;
	u64 v = text ? strtoull(text, &end, 10) : 0;
	if (errno || !end || *end || end == text)
		usage();
	return v;
}

int main(int argc, char **argv)
{
	int fd = -1;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--no-pid1") == 0)
			config.pid1 = false;
		else if (strcmp(argv[i], "--listen-fd") == 0)
			fd = (int)number(argv[++i]);
		else if (strcmp(argv[i], "--lease") == 0)
			config.lease = (u32)number(argv[++i]);
		else if (strcmp(argv[i], "--budget") == 0)
			config.budget = number(argv[++i]);
		else
			usage();
	}
	if (fd < 3)
		usage();
	if (config.pid1 && getpid() != 1) {
		fprintf(stderr, "fiberbox-agent: not PID 1 (say --no-pid1)\n");
		return 2;
	}
	keep_only(fd);
	loop_init();
	/* The launcher's descriptors are let go: holding its stderr would keep the launcher's reader waiting. */
	for (int i = 0; null_fd >= 0 && i < 3; i++)
		dup2(null_fd, i);
	conn_listen(fd);
	pool_init();
	for (;;)
		loop_once(-1);
}
#endif
