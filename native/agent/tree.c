/* Descendants. /proc/PID/task/TID/children is optional in the kernel and wrong while the tree changes; one pass over /proc/PID/stat
 * works everywhere, and because the kernel lists processes by ascending pid, those forked during the pass mostly turn up in it. */
#include "agent.h"
#include <dirent.h>
#include <signal.h>
#include <stdio.h>

enum { MAX_TASKS = 32768 };

static struct task {
	pid_t pid, parent, group;
	bool zombie, ours;
} tasks[MAX_TASKS]; /* pages are touched only as far as there are processes */
static u32 count;

static bool stat_task(struct task *t)
{
	char path[32], text[512];
	snprintf(path, sizeof path, "%d/stat", t->pid);
	int fd = openat(proc_dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got <= 0)
		return false;
	text[got] = 0;
	char *end = strrchr(text, ')'); /* the name before it may hold anything */
	if (!end || strlen(end) < 5)
		return false;
	t->zombie = end[2] == 'Z' || end[2] == 'X';
	char *next;
	t->parent = (pid_t)strtol(end + 4, &next, 10);
	t->group = (pid_t)strtol(next, NULL, 10);
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

static u32 hit(struct task *t, int sig, pid_t group)
{
	if (t->zombie || (group && t->group != group))
		return 0;
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
	if (!root) /* a supervisor that is no more; 0 is also the parent of PID 1 */
		return 0;
	if (!proc && !(proc = fdopendir(fcntl(proc_dir, F_DUPFD_CLOEXEC, 0))))
		return 0;
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
	return found;
}
