/* Work that grows with a directory: listing and removing trees. Each is a channel that does one small slice per round of the loop;
 * a worker process would not do, because removing files must work when no process can be made. */
#include "agent.h"
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { MAX_QUEUED = 1 << 20, MAX_DEPTH = 1024, SLICE = 64 };

static char batch[8192] __attribute__((aligned(8)));

static bool dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* ---- list: breadth first, one directory open at a time ---- */

struct place_to_go {
	struct place_to_go *next;
	u16 depth;
	char path[];
};

struct lister {
	struct chan c;
	u32 uid, gid, left, sent, queued;
	u16 depth, at_depth;
	int root, dir;
	bool truncated;
	struct place_to_go *first, **last;
	char at[PATH_MAX]; /* of dir, below the root; empty for the root itself */
};

static void enqueue(struct lister *l, const char *path, u32 n)
{
	struct place_to_go *p = l->queued + n < MAX_QUEUED ? malloc(sizeof *p + n + 1) : NULL;
	if (!p) {
		l->truncated = true;
		return;
	}
	p->next = NULL;
	p->depth = (u16)(l->at_depth + 1);
	memcpy(p->path, path, n + 1);
	l->queued += n;
	*l->last = p;
	l->last = &p->next;
}

static void w_entry(struct lister *l, const char *name)
{
	struct stat s;
	char path[PATH_MAX + NAME_MAX + 2], target[PATH_MAX];
	if (fstatat(l->dir, name, &s, AT_SYMLINK_NOFOLLOW) < 0)
		return; /* gone already */
	ssize_t n = S_ISLNK(s.st_mode) ? readlinkat(l->dir, name, target, sizeof target) : 0;
	int length = snprintf(path, sizeof path, "%s%s%s", l->at, l->at[0] ? "/" : "", name);
	w_begin(T_ENTRY, l->c.id);
	w_str(path, (u32)length);
	w_stat(&s, target, n > 0 ? (u32)n : 0);
	w_end();
	l->sent++;
	l->left--;
	if (!S_ISDIR(s.st_mode) || l->at_depth + 1 >= l->depth)
		return;
	if (length < PATH_MAX)
		enqueue(l, path, (u32)length);
	else
		l->truncated = true;
}

/* The next directory; one that vanished or may not be read is skipped, its own entry has been sent. */
static bool next_dir(struct lister *l)
{
	while (l->dir < 0 && l->first) {
		struct place_to_go *p = l->first;
		struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
		l->dir = keep_fd((int)syscall(SYS_openat2, l->root, p->path, &how, sizeof how));
		if (l->dir < 0 && errno == ENOSYS)
			l->dir = keep_fd(openat(l->root, p->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
		l->at_depth = p->depth;
		strcpy(l->at, p->path);
		l->queued -= (u32)strlen(p->path);
		l->first = p->next;
		if (!l->first)
			l->last = &l->first;
		free(p);
	}
	return l->dir >= 0;
}

static bool lister_pump(struct chan *c)
{
	struct lister *l = (struct lister *)c;
	long n = 0;
	as_user(l->uid, l->gid);
	if (l->left && next_dir(l)) {
		n = syscall(SYS_getdents64, l->dir, batch, 4096);
		for (long at = 0; at < n;) {
			struct entry64 *d = (struct entry64 *)(batch + at);
			at += d->reclen;
			if (dots(d->name))
				continue;
			if (!l->left)
				l->truncated = true;
			else
				w_entry(l, d->name);
		}
		if (n <= 0) {
			close(l->dir);
			l->dir = -1;
		}
	} else if (!l->left && (l->dir >= 0 || l->first))
		l->truncated = l->truncated || l->first || syscall(SYS_getdents64, l->dir, batch, sizeof batch) > 0;
	as_agent();
	if (l->left && (l->dir >= 0 || l->first))
		return true;
	if (!l->left && n > 0)
		return true; /* once more, to learn whether that was all */
	w_begin(T_END, c->id);
	w_int(l->sent, 8);
	w_int(l->truncated, 1);
	w_end();
	chan_close(c);
	return false;
}

static void lister_drop(struct chan *c)
{
	struct lister *l = (struct lister *)c;
	if (l->dir >= 0)
		close(l->dir);
	close(l->root);
	for (struct place_to_go *p; (p = l->first);) {
		l->first = p->next;
		free(p);
	}
}

static const struct chan_ops lister_ops = {.pump = lister_pump, .drop = lister_drop};

void list_open(u32 channel, u32 uid, u32 gid, struct rd *r)
{
	static char path[PATH_MAX];
	u16 depth = rd_u16(r);
	u32 limit = rd_u32(r);
	if (!rd_path(r, path) || !depth)
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request or path");
	int root = as_user(uid, gid) ? open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0) : -1;
	int err = errno, dir = root < 0 ? -1 : keep_fd(fcntl(root, F_DUPFD_CLOEXEC, 0));
	as_agent();
	if (root < 0)
		return w_errno(channel, err);
	struct lister *l = chan_open(sizeof *l, channel, 0, &lister_ops);
	if (!l) {
		close(root);
		if (dir >= 0)
			close(dir);
		return;
	}
	l->uid = uid;
	l->gid = gid;
	l->depth = depth;
	l->left = limit;
	l->root = root;
	l->dir = dir;
	l->last = &l->first;
}

/* ---- remove: depth first with one directory open; names are not kept, emptied directories are simply met again ---- */

struct remover {
	struct chan c;
	u32 uid, gid, depth;
	int parent, dir;
	dev_t device;
	ino_t above[MAX_DEPTH]; /* the directories from the top down to dir */
	char base[NAME_MAX + 1];
};

static int enter(struct remover *r, int from, const char *name)
{
	struct stat s;
	int fd = keep_fd(openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	int err = fstat(fd, &s) < 0 ? errno : 0;
	if (!r->depth)
		r->device = s.st_dev;
	if (!err && s.st_dev != r->device)
		err = EBUSY; /* a mount point: what is behind it is somebody else's */
	if (!err && r->depth == MAX_DEPTH)
		err = ELOOP;
	if (err) {
		close(fd);
		return err;
	}
	if (r->dir >= 0)
		close(r->dir);
	r->dir = fd;
	r->above[r->depth++] = s.st_ino;
	return 0;
}

/* ".." is only trusted if it is the directory we came from: somebody may have moved ours meanwhile. */
static int leave(struct remover *r)
{
	struct stat s;
	int up = --r->depth ? openat(r->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (r->depth && up < 0)
		return errno;
	close(r->dir);
	r->dir = up;
	if (up >= 0 && (fstat(up, &s) < 0 || s.st_dev != r->device || s.st_ino != r->above[r->depth - 1]))
		return EBUSY;
	return 0;
}

static int remove_entry(struct remover *r, int from, const char *name, bool *entered)
{
	if (unlinkat(from, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return errno;
	if (unlinkat(from, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return errno;
	*entered = true;
	return enter(r, from, name);
}

/* One batch of entries. -1: all is gone. */
static int remove_slice(struct remover *r)
{
	bool entered = false;
	if (r->dir < 0) {
		int err = remove_entry(r, r->parent, r->base, &entered);
		return err ? err : r->dir >= 0 ? 0 : -1;
	}
	if (lseek(r->dir, 0, SEEK_SET) < 0)
		return errno;
	long n = syscall(SYS_getdents64, r->dir, batch, 2048);
	bool empty = true;
	int err = n < 0 && errno != ENOENT ? errno : 0;
	for (long at = 0; at < n && !err && !entered;) {
		struct entry64 *d = (struct entry64 *)(batch + at);
		at += d->reclen;
		if (dots(d->name))
			continue;
		empty = false;
		err = remove_entry(r, r->dir, d->name, &entered);
	}
	return !err && empty ? leave(r) : err;
}

static bool remover_pump(struct chan *c)
{
	struct remover *r = (struct remover *)c;
	as_user(r->uid, r->gid);
	int err = remove_slice(r);
	as_agent();
	if (!err)
		return true;
	if (err < 0)
		w_empty(T_OK, c->id);
	else
		w_errno(c->id, err);
	chan_close(c);
	return false;
}

static void remover_drop(struct chan *c)
{
	struct remover *r = (struct remover *)c;
	close(r->parent);
	if (r->dir >= 0)
		close(r->dir);
}

static const struct chan_ops remover_ops = {.pump = remover_pump, .drop = remover_drop};

void remove_tree(u32 channel, u32 uid, u32 gid, int parent, const char *base)
{
	struct remover *r = chan_open(sizeof *r, channel, 0, &remover_ops);
	if (!r) {
		close(parent);
		return;
	}
	r->uid = uid;
	r->gid = gid;
	r->parent = parent;
	r->dir = -1;
	strcpy(r->base, base);
}
