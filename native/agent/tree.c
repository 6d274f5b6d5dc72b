/* Descendants. /proc/PID/task/TID/children is optional in the kernel and wrong while the tree changes; one pass over /proc/PID/stat
 * works everywhere, and because the kernel lists processes by ascending pid, those forked during the pass mostly turn up in it. */
#include "agent.h"
#include <dirent.h>
#include <signal.h>
#include <stdio.h>

enum { MAX_TASKS = 32768 };

static struct task {
	pid_t pid, parent, group;
	bool over, ours;
} tasks[MAX_TASKS]; /* pages are touched only as far as there are processes */
static u32 count;
static pid_t killed_group; /* the last one of this pass */
static bool blind; /* something could not be looked at in this pass: root in the sandbox may leave us without descriptors */

/* What stands behind the name in a stat file, beginning with the state; NULL when there is none (any more), or it cannot be read. */
static const char *stat_at(int dir, const char *path)
{
	static char text[512];
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		blind |= errno != ENOENT && errno != ESRCH;
		return NULL;
	}
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got <= 0)
		return NULL;
	text[got] = 0;
	char *end = strrchr(text, ')'); /* the name before it may hold anything */
	return end && strlen(end) >= 5 ? end + 2 : NULL;
}

static bool dead(const char *stat)
{
	return *stat == 'Z' || *stat == 'X';
}

/* A process is a zombie as soon as its first thread has ended, and its other threads may run on. Counting them would not do: those
 * that have ended are counted too as long as a tracer has not looked at them. Without memory to look it is taken for alive. */
static bool threads_run(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof path, "%d/task", pid);
	int fd = openat(proc_dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno != ENOENT && errno != ESRCH;
	DIR *threads = fdopendir(fd);
	if (!threads)
		return closing(fd, true);
	bool run = false;
	for (struct dirent *d; !run && (d = readdir(threads));) {
		snprintf(path, sizeof path, "%d/stat", (int)strtol(d->d_name, NULL, 10));
		const char *stat = stat_at(fd, path);
		run = stat && !dead(stat);
	}
	closedir(threads);
	return run;
}

static bool stat_task(struct task *t)
{
	enum { NUM_THREADS = 20 - 5 }; /* the field's number, counted from the one behind the group */
	char path[32], *next;
	snprintf(path, sizeof path, "%d/stat", t->pid);
	const char *stat = stat_at(proc_dir, path);
	if (!stat)
		return false;
	t->over = dead(stat);
	t->parent = (pid_t)strtol(stat + 2, &next, 10);
	t->group = (pid_t)strtol(next, &next, 10);
	long threads = 0;
	for (int i = 0; i < NUM_THREADS; i++)
		threads = strtol(next, &next, 10);
	if (t->over && threads > 1)
		t->over = !threads_run(t->pid);
	return true;
}

static struct task *find(pid_t pid)
{
	u32 low = 0, high = count;
	while (low < high) {
		u32 mid = (low + high) / 2;
		if (tasks[mid].pid < pid)
			low = mid + 1;
		else
			high = mid;
	}
	return low < count && tasks[low].pid == pid ? &tasks[low] : NULL;
}

/* Kills a process group as a whole, at one moment: nobody in it who is about to fork will have forked. A program begins with a
 * session of its own, so the groups of its descendants hold nothing else. */
static void kill_group(pid_t group)
{
	if (group > 1 && group != getpgrp() && group != killed_group)
		kill(-group, SIGKILL);
	killed_group = group;
}

static u32 hit(struct task *t, int sig, pid_t group)
{
	if (t->over || (group && t->group != group))
		return 0;
	if (sig == SIGKILL)
		kill_group(t->group);
	return kill(t->pid, sig) == 0 || errno == EPERM;
}

static bool ours(pid_t parent, pid_t root)
{
	struct task *p = parent == root ? NULL : find(parent);
	return parent == root || (p && p->ours);
}

/* What is below a spared process is left alone with it. */
u32 tree_signal(pid_t root, int sig, pid_t group, bool (*spared)(pid_t))
{
	static DIR *proc;
	u32 found = 0;
	count = 0;
	killed_group = 0;
	blind = false;
	if (!root) /* a supervisor that is no more; 0 is also the parent of PID 1 */
		return 0;
	if (!proc && !(proc = fdopendir(fcntl(proc_dir, F_DUPFD_CLOEXEC, 0))))
		return 1; /* as when we are blind */
	rewinddir(proc);
	for (struct dirent *d; (d = readdir(proc)) && count < MAX_TASKS;) {
		struct task t = {.pid = (pid_t)strtol(d->d_name, NULL, 10)}; /* 0: no process */
		if (!t.pid || t.pid == root || (count && tasks[count - 1].pid >= t.pid) || !stat_task(&t))
			continue;
		if (spared && spared(t.pid))
			t.parent = 0;
		t.ours = ours(t.parent, root);
		if (t.ours)
			found += hit(&t, sig, group); /* at once: every moment it lives it may fork */
		tasks[count++] = t;
	}
	/* Pids wrap around, so a child can come before its parent. */
	for (bool more = true; more;) {
		more = false;
		for (struct task *t = tasks; t < tasks + count; t++) {
			if (t->ours || !t->parent || !ours(t->parent, root))
				continue;
			t->ours = more = true;
			found += hit(t, sig, group);
		}
	}
	return found + blind;
}
