/* Descendants. /proc/PID/task/TID/children is optional in the kernel and wrong while the tree changes; one pass over /proc/PID/stat
 * works everywhere, and because the kernel lists processes by ascending pid, those forked during the pass mostly turn up in it. */
#include "agent.h"
#include <signal.h>
#include <sys/syscall.h>

enum { MAX_TASKS = 32768 };

static struct task {
	pid_t pid, parent, group;
	bool zombie, ours;
} tasks[MAX_TASKS]; /* pages are touched only as far as there are processes */
static u32 count;

static pid_t number(const char *s)
{
	pid_t v = 0;
	while (*s >= '0' && *s <= '9' && v < 100000000)
		v = v * 10 + (*s++ - '0');
	return *s ? 0 : v;
}

static bool stat_task(const char *name, struct task *t)
{
	char path[32], text[512];
	size_t n = strlen(name);
	if (n > 16)
		return false;
	memcpy(path, name, n);
	memcpy(path + n, "/stat", 6);
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
	return sig == 0 || kill(t->pid, sig) == 0 || errno == EPERM;
}

static bool ours(pid_t parent, pid_t root)
{
	struct task *p = parent == root ? NULL : find(parent);
	return parent == root || (p && p->ours);
}

u32 tree_signal(pid_t root, int sig, pid_t group, const pid_t *skip, u32 skips)
{
	char buf[4096] __attribute__((aligned(8)));
	u32 found = 0;
	count = 0;
	if (proc_dir < 0 || lseek(proc_dir, 0, SEEK_SET) < 0)
		return 0;
	for (;;) {
		long n = syscall(SYS_getdents64, proc_dir, buf, sizeof buf);
		if (n <= 0)
			break;
		for (long at = 0; at < n;) {
			struct entry64 *d = (struct entry64 *)(buf + at);
			at += d->reclen;
			pid_t pid = number(d->name);
			struct task t = {.pid = pid};
			if (!pid || pid == root || count == MAX_TASKS || (count && tasks[count - 1].pid >= pid) || !stat_task(d->name, &t))
				continue;
			bool skipped = false;
			for (u32 i = 0; i < skips; i++)
				skipped |= skip[i] == pid;
			t.ours = !skipped && ours(t.parent, root);
			if (t.ours)
				found += hit(&t, sig, group); /* at once: every moment it lives it may fork */
			else if (skipped)
				t.parent = 0;
			tasks[count++] = t;
		}
	}
	/* Pids wrap around, so a child can come before its parent. */
	for (bool more = true; more;) {
		more = false;
		for (u32 i = 0; i < count; i++) {
			if (tasks[i].ours || !tasks[i].parent || !ours(tasks[i].parent, root))
				continue;
			tasks[i].ours = more = true;
			found += hit(&tasks[i], sig, group);
		}
	}
	return found;
}

u32 tree_tasks(void)
{
	tree_signal(-1, 0, 0, NULL, 0);
	return count;
}
