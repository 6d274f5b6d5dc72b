/* Work that grows with a directory: listing and removing trees. Each is a channel that does one small slice per round of the loop;
 * a worker process would not do, because removing files must work when no process can be made. */
#include "agent.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>

enum { MAX_QUEUED = 1 << 20, MAX_DEPTH = 1024, SLICE = 64, DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

bool dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static DIR *open_list(int fd)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		closing(fd, 0);
	return dir;
}

/* ---- list: breadth first, one directory open at a time ---- */

struct lister {
	struct chan c;
	u32 uid, gid, left;
	u16 depth, at_depth;
	int root;
	DIR *dir; /* what is read now */
	bool truncated;
	struct queue below; /* directories to go to: u16 depth and path, ended by a NUL */
	char at[PATH_MAX];  /* of dir, below the root; empty for the root itself */
};

/* False when there is one too many. */
static bool w_entry(struct lister *l, const char *name)
{
	struct stat s;
	char path[PATH_MAX + NAME_MAX + 2], target[PATH_MAX];
	if (fstatat(dirfd(l->dir), name, &s, AT_SYMLINK_NOFOLLOW) < 0)
		return true; /* gone already */
	if (!l->left--)
		return false;
	ssize_t n = S_ISLNK(s.st_mode) ? readlinkat(dirfd(l->dir), name, target, sizeof target) : 0;
	int length = snprintf(path, sizeof path, "%s%s%s", l->at, l->at[0] ? "/" : "", name);
	w_begin(T_ENTRY, l->c.id);
	w_str(path, (u32)length);
	w_stat(&s, target, n > 0 ? (u32)n : 0);
	w_end();
	u16 depth = l->at_depth + 1;
	if (!S_ISDIR(s.st_mode) || depth >= l->depth)
		return true;
	/* All or nothing of it must find room. */
	if (length >= PATH_MAX || l->below.to - l->below.from + sizeof depth + PATH_MAX > MAX_QUEUED || !queue_add(&l->below, (u8 *)&depth, sizeof depth))
		l->truncated = true;
	else
		queue_add(&l->below, (u8 *)path, (u32)length + 1);
	return true;
}

/* The next directory; one that vanished or may not be read is skipped, its own entry has been sent. */
static bool next_dir(struct lister *l)
{
	while (!l->dir && l->below.from < l->below.to) {
		const u8 *next = l->below.bytes + l->below.from;
		memcpy(&l->at_depth, next, sizeof l->at_depth);
		strcpy(l->at, (const char *)next + sizeof l->at_depth);
		l->below.from += (u32)(sizeof l->at_depth + strlen(l->at) + 1);
		l->dir = open_list(open_at(l->root, l->at, DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH));
	}
	return l->dir;
}

static bool list_slice(struct lister *l)
{
	for (int i = 0; i < SLICE && next_dir(l); i++) {
		struct dirent *e = readdir(l->dir);
		if (!e) {
			closedir(l->dir);
			l->dir = NULL;
		} else if (!dots(e->d_name) && !w_entry(l, e->d_name)) {
			l->truncated = true;
			return false;
		}
	}
	return next_dir(l);
}

static bool lister_pump(struct chan *c)
{
	struct lister *l = (struct lister *)c;
	as_user(l->uid, l->gid);
	bool more = list_slice(l);
	as_agent();
	if (more)
		return true;
	w_frame(T_END, c->id, "1", l->truncated);
	chan_close(c);
	return false;
}

static void lister_drop(struct chan *c)
{
	struct lister *l = (struct lister *)c;
	if (l->dir)
		closedir(l->dir);
	close(l->root);
	queue_free(&l->below);
}

static const struct chan_ops lister_ops = {.pump = lister_pump, .drop = lister_drop};

int file_list(struct request *q)
{
	int root = open_at(AT_FDCWD, q->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
	if (root < 0)
		return FAILED;
	struct lister *l = chan_open(sizeof *l, q->channel, 0, &lister_ops);
	if (!l)
		return closing(root, ANSWERED);
	l->uid = q->uid;
	l->gid = q->gid;
	l->depth = (u16)q->n[0];
	l->left = (u32)q->n[1];
	l->root = root;
	l->dir = open_list(keep_fd(fcntl(root, F_DUPFD_CLOEXEC, 0)));
	l->below.cap = MAX_QUEUED;
	return ANSWERED;
}

/* ---- remove: depth first with one directory open; names are not kept, emptied directories are simply met again ---- */

struct remover {
	struct chan c;
	u32 uid, gid, depth;
	int parent;
	DIR *dir;
	bool met; /* something, since its beginning */
	dev_t device;
	ino_t above[MAX_DEPTH]; /* the directories from the top down to dir */
	char base[NAME_MAX + 1];
};

static int go_to(struct remover *r, int fd)
{
	if (r->dir)
		closedir(r->dir);
	r->dir = open_list(fd);
	r->met = false;
	return r->dir ? 0 : errno;
}

static int enter(struct remover *r, int from, const char *name)
{
	struct stat s;
	int fd = keep_fd(openat(from, name, DIRECTORY));
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	int err = fstat(fd, &s) < 0 ? errno : 0;
	if (!r->depth)
		r->device = s.st_dev;
	if (!err && s.st_dev != r->device)
		err = EBUSY; /* a mount point: what is behind it is somebody else's */
	if (!err && r->depth == MAX_DEPTH)
		err = ELOOP;
	if (err)
		return closing(fd, err);
	r->above[r->depth++] = s.st_ino;
	return go_to(r, fd);
}

/* ".." is only trusted if it is the directory we came from: somebody may have moved ours meanwhile. */
static int leave(struct remover *r)
{
	struct stat s;
	if (!--r->depth) {
		closedir(r->dir);
		r->dir = NULL;
		return 0;
	}
	int up = openat(dirfd(r->dir), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (up < 0)
		return errno;
	if (fstat(up, &s) < 0 || s.st_dev != r->device || s.st_ino != r->above[r->depth - 1])
		return closing(up, EBUSY);
	return go_to(r, up);
}

static int unlink_any(int dir, const char *name)
{
	int done = unlinkat(dir, name, 0);
	if (done < 0 && errno == EISDIR)
		done = unlinkat(dir, name, AT_REMOVEDIR);
	if (done < 0 && errno == EEXIST)
		errno = ENOTEMPTY;
	return done;
}

static int remove_entry(struct remover *r, int from, const char *name, bool *entered)
{
	if (unlink_any(from, name) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY)
		return errno;
	*entered = true;
	return enter(r, from, name);
}

/* Some entries. -1: all is gone. */
static int remove_slice(struct remover *r)
{
	bool entered = false;
	int err = 0;
	if (!r->dir) {
		err = remove_entry(r, r->parent, r->base, &entered);
		return err ? err : r->dir ? 0 : -1;
	}
	for (int i = 0; i < SLICE && !err && !entered; i++) {
		struct dirent *e = readdir(r->dir);
		if (!e && !r->met)
			return leave(r);
		if (!e) { /* again, until there is nothing to meet */
			rewinddir(r->dir);
			r->met = false;
		} else if (!dots(e->d_name)) {
			r->met = true;
			err = remove_entry(r, dirfd(r->dir), e->d_name, &entered);
		}
	}
	return err;
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
	if (r->dir)
		closedir(r->dir);
}

static const struct chan_ops remover_ops = {.pump = remover_pump, .drop = remover_drop};

int file_remove(struct request *q)
{
	char *base;
	bool recursive = q->n[0];
	int dir = parent_at(AT_FDCWD, q->path, false, &base);
	if (dir < 0)
		return FAILED;
	int done = unlink_any(dir, base);
	if (done == 0 || errno != ENOTEMPTY || !recursive)
		return closing(dir, done);
	struct remover *r = chan_open(sizeof *r, q->channel, 0, &remover_ops);
	if (!r)
		return closing(dir, ANSWERED);
	r->uid = q->uid;
	r->gid = q->gid;
	r->parent = dir;
	strcpy(r->base, base);
	return ANSWERED;
}
