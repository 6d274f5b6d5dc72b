/* The supervisor: a small fork of the agent, parent of one program at a time and subreaper of everything that program starts, so
 * that daemons stay in the family and "none of its descendants is left" is simply ECHILD. Once that is so it waits for the next
 * program: the fork is paid for in advance.
 *
 * Requests are the SPAWN specification with the program's descriptors attached (one too long for a message comes in a memory file,
 * which is then the last descriptor), answers are struct report.
 *
 *   spec   u8 flags, u32 uid, u32 gid, u16 rows, u16 cols, u32 journal capacity, u32 n, u32 m, and as strings each ended by a NUL:
 *          id, working directory, n arguments, m entries of the environment */
#include "proc.h"
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

/* What root in a sandbox keeps, as far as the agent has it: to own and install files, to become users and to stop their
 * processes. Everybody else keeps nothing. */
#define ROOT_CAPS \
	(1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_KILL | 1u << CAP_SETGID | 1u << CAP_SETUID)

enum { CTL = 3, MAX_POINTERS = SPAWN_MAX / 4 };

static u8 message[SPAWN_MAX];
static char *pointers[MAX_POINTERS + 1];

/* Written by the child, which shares this memory until it has executed the program. */
static volatile int failed_errno;
static volatile u8 failed_stage;

static char *string(struct rd *r)
{
	size_t left = (size_t)(r->end - r->p), n = strnlen((const char *)r->p, left);
	char *s = (char *)(uintptr_t)r->p;
	r->bad |= n == left;
	r->p += r->bad ? 0 : n + 1;
	return s;
}

static char **strings(struct rd *r, u32 n, char ***room)
{
	char **first = *room;
	r->bad |= n >= pointers + MAX_POINTERS - first;
	for (u32 i = 0; i < n && !r->bad; i++)
		*(*room)++ = string(r);
	*(*room)++ = NULL;
	return first;
}

/* The strings stay where they are, in a copy of the payload that stands until the next call. A NUL inside one would make two of it
 * and leave something over at the end. */
bool spec_parse(struct spec *spec, const u8 *p, size_t n)
{
	if (n > SPAWN_MAX)
		return false;
	if (p != message)
		memcpy(message, p, n);
	struct rd r = {message, message + n, false};
	char **room = pointers;
	spec->flags = rd_u8(&r);
	spec->uid = rd_u32(&r);
	spec->gid = rd_u32(&r);
	spec->rows = rd_u16(&r);
	spec->cols = rd_u16(&r);
	spec->capacity = rd_u32(&r);
	spec->argc = rd_u32(&r);
	spec->envc = rd_u32(&r);
	spec->id = string(&r);
	spec->cwd = string(&r);
	spec->argv = strings(&r, spec->argc, &room);
	spec->env = strings(&r, spec->envc, &room);
	return !r.bad && r.p == r.end && spec->argc;
}

static void fail(u8 stage, int err)
{
	failed_stage = stage;
	failed_errno = err;
	_exit(127);
}

static void execute(struct spec *s)
{
	if (strchr(s->argv[0], '/')) {
		execve(s->argv[0], s->argv, s->env);
		fail(STAGE_EXEC, errno);
	}
	const char *path = "/usr/local/bin:/usr/bin:/bin";
	for (char **e = s->env; *e; e++)
		if (strncmp(*e, "PATH=", 5) == 0)
			path = *e + 5;
	static char file[8192];
	int err = ENOENT;
	for (const char *from = path;;) {
		size_t n = strcspn(from, ":");
		if (n + strlen(s->argv[0]) + 2 <= sizeof file) {
			memcpy(file, n ? from : ".", n ? n : 1);
			sprintf(file + (n ? n : 1), "/%s", s->argv[0]);
			execve(file, s->argv, s->env);
			if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
				fail(STAGE_EXEC, errno);
			if (errno == EACCES)
				err = EACCES; /* as execvp does: found, but not for us */
		}
		if (!from[n])
			fail(STAGE_EXEC, err);
		from += n + 1;
	}
}

/* Raw system calls: the C library's set*id would speak to threads. */
static int become(u32 uid, u32 gid)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct have[2], keep[2] = {{0}};
	if (syscall(SYS_capget, &h, have) < 0)
		return -1;
	if (syscall(SYS_setgroups, 0, NULL) < 0 && geteuid() == 0 && errno != EPERM)
		return -1;
	if (syscall(SYS_setresgid, gid, gid, gid) < 0 || syscall(SYS_setresuid, uid, uid, uid) < 0)
		return -1;
	if (uid == 0)
		keep[0].permitted = keep[0].effective = have[0].permitted & ROOT_CAPS;
	return (int)syscall(SYS_capset, &h, keep);
}

static void child(struct spec *s, const int *fds)
{
	sigset_t none;
	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (syscall(SYS_setsid) < 0)
		fail(STAGE_SETUP, errno);
	if ((s->flags & SPAWN_TTY) && ioctl(fds[0], TIOCSCTTY, 0) < 0)
		fail(STAGE_SETUP, errno);
	for (int i = 0; i < 3; i++)
		if (dup2(fds[s->flags & SPAWN_TTY ? 0 : i], i) < 0)
			fail(STAGE_SETUP, errno);
	/* The first to go when memory runs out. Best effort: without /proc there is nothing to write to. */
	int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (score >= 0 && write(score, "1000", 4) < 0)
		fail(STAGE_SETUP, errno);
	umask(022);
	if (become(s->uid, s->gid) < 0)
		fail(STAGE_SETUP, errno);
	if (syscall(SYS_close_range, 3, ~0u, 0) < 0)
		fail(STAGE_SETUP, errno);
	if (chdir(s->cwd) < 0)
		fail(STAGE_CWD, errno);
	execute(s);
}

static void report(u8 what, u8 stage, int value)
{
	struct report r = {.what = what, .stage = stage, .value = value};
	if (send(CTL, &r, sizeof r, MSG_NOSIGNAL) < 0)
		_exit(1);
}

static __attribute__((noinline)) pid_t launch(struct spec *s, const int *fds)
{
	failed_errno = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		child(s, fds);
		_exit(127);
	}
	return pid;
}

static void run(struct spec *s, int *fds, int n)
{
	pid_t pid = launch(s, fds);
	int err = errno;
	for (int i = 0; i < n; i++)
		close(fds[i]);
	if (pid > 0 && !failed_errno)
		report(REPORT_STARTED, 0, pid);
	for (int status;;) {
		pid_t gone = waitpid(-1, &status, __WALL);
		if (gone < 0 && errno == EINTR)
			continue;
		if (gone < 0)
			break;
		if (gone != pid || failed_errno)
			continue;
		/* Mostly it leaves nobody behind: then both facts travel together. */
		siginfo_t info;
		bool alone = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 && errno == ECHILD;
		report(alone ? REPORT_EXITED | REPORT_GONE : REPORT_EXITED, 0, status);
		if (alone)
			return;
	}
	if (pid < 0)
		report(REPORT_FAILED | REPORT_GONE, STAGE_SETUP, err);
	else if (failed_errno)
		report(REPORT_FAILED | REPORT_GONE, failed_stage, failed_errno);
	else
		report(REPORT_GONE, 0, 0);
}

void sup_main(int ctl)
{
	/* Nothing of the agent's descriptors may live on here: a copy of a pipe's end would keep that pipe from ending. */
	if (dup2(ctl, CTL) < 0 || syscall(SYS_close_range, CTL + 1, ~0u, 0) < 0)
		_exit(1);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		_exit(1);
	/* The agent may just have been given a better one from outside; it is not for programs. */
	if (setpriority(PRIO_PROCESS, 0, 0) < 0)
		_exit(1);
	prctl(PR_SET_NAME, "fiberbox-exec");
	for (;;) {
		union {
			struct cmsghdr h;
			u8 space[CMSG_SPACE(4 * sizeof(int))];
		} control;
		struct iovec iov = {message, SPAWN_MAX};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
		ssize_t n = recvmsg(CTL, &m, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
		if (!c || c->cmsg_type != SCM_RIGHTS)
			_exit(0);
		int fds[4], got = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)got * sizeof(int));
		if (n == 1) {
			n = pread(fds[--got], message, SPAWN_MAX, 0);
			close(fds[got]);
		}
		struct spec s;
		if (n < 0 || !spec_parse(&s, message, (size_t)n) || got != (s.flags & SPAWN_TTY ? 1 : 3))
			_exit(1);
		run(&s, fds, got);
	}
}
