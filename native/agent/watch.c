/* Watching directories, each watch with an inotify instance of its own. Each event uses up one credit; what nobody has credit for
 * becomes an overflow, as does whatever is beyond the limits here: the host then looks again by itself. */
#include "agent.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum {
	MAX_DIRS = 4096,
	PER_WATCH = 1024,
	MAX_DEPTH = 32,
	MASK = IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK,
};

struct watch {
	struct chan c;
	struct source s;
	struct dir *dirs;
	u32 uid, gid, count;
	int root; /* O_PATH */
	bool recursive, lost;
};

struct dir {
	struct dir *next;
	int number;
	char *below; /* of the watched directory; empty for itself */
};

static u32 dir_count;

static void emit(struct watch *w, u8 kind, bool directory, const char *path, const char *before)
{
	if (w->lost || !w->c.credit || !out_room()) {
		w->lost = true;
		return;
	}
	w->c.credit--;
	w_begin(T_EVENT, w->c.id);
	w_ints("11", kind, directory);
	w_str(path, (u32)strlen(path));
	w_str(before, (u32)strlen(before));
	w_end();
}

/* ---- which directories ---- */

static struct dir *find(const struct watch *w, int number)
{
	struct dir *d = w->dirs;
	while (d && d->number != number)
		d = d->next;
	return d;
}

static bool at_or_below(const struct dir *d, const char *path)
{
	size_t n = strlen(path);
	return strncmp(d->below, path, n) == 0 && (!n || !d->below[n] || d->below[n] == '/');
}

static void forget_one(struct watch *w, struct dir *d)
{
	inotify_rm_watch(w->s.fd, d->number);
	UNLINK(w->dirs, d);
	w->count--;
	dir_count--;
	free(d->below);
	free(d);
}

/* What is at or below a path in it; all for the empty one. */
static void forget(struct watch *w, const char *below)
{
	for (struct dir *d = w->dirs, *next; d; d = next) {
		next = d->next;
		if (at_or_below(d, below))
			forget_one(w, d);
	}
}

static bool join(char *to, const char *a, const char *b)
{
	int n = snprintf(to, PATH_MAX, "%s%s%s", a, a[0] && b[0] ? "/" : "", b);
	return n >= 0 && n < PATH_MAX;
}

/* Whether the directory is new or has a new name: the kernel follows directories, so after a rename its watch stands. */
static bool remember(struct watch *w, int number, const char *below)
{
	struct dir *d = find(w, number);
	if (d && strcmp(d->below, below) == 0)
		return false; /* found by looking before its event came */
	char *copy = strdup(below);
	struct dir *made = d || !copy ? NULL : calloc(1, sizeof *made);
	if (!copy || (!d && !made)) {
		free(copy);
		w->lost = true;
		return false;
	}
	if (made) {
		*made = (struct dir){.next = w->dirs, .number = number};
		w->dirs = d = made;
		w->count++;
		dir_count++;
	}
	free(d->below);
	d->below = copy;
	return true;
}

/* Adds the directory `base` of `at`, which may meanwhile have another name than `below`, and, if asked for, what is below it;
 * `tell` reports what is found, for it was made before we could look. */
static bool add(struct watch *w, int at, const char *base, const char *below, bool tell, u32 depth)
{
	char path[64], name[PATH_MAX];
	struct stat s;
	int fd = open_at(at, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return false;
	snprintf(path, sizeof path, "/proc/self/fd/%d/.", fd);
	int number = inotify_add_watch(w->s.fd, path, MASK);
	if (number >= 0 && !find(w, number) && (w->count >= PER_WATCH || dir_count >= MAX_DIRS || depth >= MAX_DEPTH)) {
		inotify_rm_watch(w->s.fd, number);
		errno = ENOSPC;
		number = -1;
	}
	if (number < 0) {
		w->lost |= errno == ENOSPC;
		return closing(fd, false);
	}
	DIR *listing = remember(w, number, below) && w->recursive ? fdopendir(fd) : NULL;
	if (!listing)
		return closing(fd, true);
	for (struct dirent *e; (e = readdir(listing));) {
		if (dots(e->d_name) || !join(name, below, e->d_name))
			continue;
		bool directory = e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && fstatat(fd, e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode));
		if (tell)
			emit(w, EVENT_CREATED, directory, name, "");
		if (directory)
			add(w, fd, e->d_name, name, tell, depth + 1);
	}
	closedir(listing);
	return true;
}

/* ---- what happens in them ---- */

static void appeared(struct watch *w, const char *path, bool directory, const struct inotify_event *from)
{
	/* A rename is told as one only if its first half was just before. */
	char before[PATH_MAX];
	struct dir *source = from ? find(w, from->wd) : NULL;
	bool renamed = source && join(before, source->below, from->name);
	emit(w, renamed ? EVENT_RENAMED : EVENT_CREATED, directory, path, renamed ? before : "");
	if (!directory || !w->recursive)
		return;
	as_user(w->uid, w->gid);
	add(w, w->root, path, path, !renamed, 1);
	as_agent();
}

/* The kernel watches this directory no more, because it is gone. */
static void ignored(struct watch *w, struct dir *d)
{
	if (d->below[0])
		return forget_one(w, d);
	w_frame(T_END, w->c.id, "1", 0);
	chan_close(&w->c);
}

/* `from` is the first half of a rename, when this is the second. */
static void deliver(struct watch *w, const struct inotify_event *e, const struct inotify_event *from, bool half)
{
	struct dir *d = find(w, e->wd);
	char path[PATH_MAX];
	bool directory = e->mask & IN_ISDIR;
	if (e->mask & IN_Q_OVERFLOW)
		w->lost = true;
	if (!d || !join(path, d->below, e->len ? e->name : ""))
		return;
	if (e->mask & IN_IGNORED)
		ignored(w, d);
	else if (e->mask & (IN_CREATE | IN_MOVED_TO))
		appeared(w, path, directory, from);
	else if (e->mask & (IN_DELETE | IN_MOVED_FROM)) {
		if (half)
			return;
		emit(w, EVENT_REMOVED, directory, path, "");
		if (directory)
			forget(w, path);
	} else if (e->len && (e->mask & (IN_MODIFY | IN_ATTRIB)) && !directory)
		emit(w, EVENT_MODIFIED, false, path, "");
}

static void on_inotify(struct source *s, u32 events)
{
	(void)events;
	static char buf[16384] __attribute__((aligned(8)));
	ssize_t n = read(s->fd, buf, sizeof buf);
	const struct inotify_event *from = NULL;
	for (ssize_t at = 0; at < n && s->fd >= 0;) {
		const struct inotify_event *e = (struct inotify_event *)(buf + at);
		at += (ssize_t)(sizeof *e + e->len);
		const struct inotify_event *next = at < n ? (struct inotify_event *)(buf + at) : NULL;
		bool half = next && (e->mask & IN_MOVED_FROM) && (next->mask & IN_MOVED_TO) && e->cookie == next->cookie;
		deliver(s->owner, e, from, half);
		from = half ? e : NULL;
	}
}

static bool watch_pump(struct chan *c)
{
	struct watch *w = (struct watch *)c;
	if (!w->lost || !c->credit)
		return false;
	w->lost = false;
	emit(w, EVENT_OVERFLOW, false, "", "");
	return false;
}

static void watch_drop(struct chan *c)
{
	struct watch *w = (struct watch *)c;
	forget(w, "");
	source_close(&w->s);
	w->root = closing(w->root, -1);
}

static const struct chan_ops watch_ops = {.pump = watch_pump, .drop = watch_drop};

int watch_open(struct request *q)
{
	int fd = keep_fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
	if (fd < 0)
		return FAILED;
	struct watch *w = chan_open(sizeof *w, q->channel, q->credit, &watch_ops);
	if (!w)
		return closing(fd, ANSWERED);
	w->uid = q->uid;
	w->gid = q->gid;
	w->recursive = q->n[0];
	w->root = -1;
	if (source_open(&w->s, w, fd, EPOLLIN, on_inotify) && (w->root = open_at(AT_FDCWD, q->path, O_PATH | O_DIRECTORY, 0)) >= 0 && add(w, w->root, ".", "", false, 0))
		return DONE;
	int err = errno;
	chan_close(&w->c);
	errno = err;
	return FAILED;
}
