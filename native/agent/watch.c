/* Watching directories. One inotify descriptor, made when first needed; the kernel gives the same number to two watches of one
 * directory, so events go to every watch that names it. Each event uses up one credit; what nobody has credit for becomes an
 * overflow, as does whatever is beyond the limits here: the host then looks again by itself. */
#include "agent.h"
#include <dirent.h>
#include <limits.h>
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
	u32 uid, gid, count;
	int root; /* O_PATH */
	bool recursive, lost;
};

struct dir {
	struct dir *next;
	struct watch *w;
	int number;
	char *below; /* of the watched directory; empty for itself */
};

static struct source inotify = {.fd = -1};
static struct dir *dirs;
static u32 dir_count;

static void emit(struct watch *w, u8 kind, bool directory, const char *path, const char *before)
{
	if (w->lost || !w->c.credit || !out_room()) {
		w->lost = true;
		return;
	}
	w->c.credit--;
	w_begin(T_EVENT, w->c.id);
	w_int(kind, 1);
	w_int(directory, 1);
	w_str(path, (u32)strlen(path));
	w_str(before, (u32)strlen(before));
	w_end();
}

static void unlink_dir(struct dir **at)
{
	struct dir *d = *at;
	*at = d->next;
	bool shared = false;
	for (struct dir *o = dirs; o; o = o->next)
		shared |= o->number == d->number;
	if (!shared && inotify.fd >= 0)
		inotify_rm_watch(inotify.fd, d->number);
	d->w->count--;
	dir_count--;
	free(d->below);
	free(d);
}

static bool at_or_below(const struct dir *d, const char *path)
{
	size_t n = strlen(path);
	return strncmp(d->below, path, n) == 0 && (!d->below[n] || d->below[n] == '/');
}

/* All of w, or what is at or below a path in it. */
static void forget(struct watch *w, const char *below)
{
	for (struct dir **at = &dirs; *at;) {
		struct dir *d = *at;
		if (d->w == w && (!below || at_or_below(d, below)))
			unlink_dir(at);
		else
			at = &d->next;
	}
}

static bool join(char *to, const char *a, const char *b)
{
	int n = snprintf(to, PATH_MAX, "%s%s%s", a, a[0] && b[0] ? "/" : "", b);
	return n >= 0 && n < PATH_MAX;
}

/* The kernel follows directories, not names: after a rename the watches stand and only their names change. False if there are none. */
static bool relabel(struct watch *w, const char *before, const char *path)
{
	char name[PATH_MAX];
	bool any = false;
	for (struct dir *d = dirs; d; d = d->next) {
		if (d->w != w || !at_or_below(d, before))
			continue;
		size_t n = strlen(before);
		char *copy = join(name, path, d->below + n + (d->below[n] == '/')) ? strdup(name) : NULL;
		if (!copy) {
			w->lost = true;
			continue;
		}
		free(d->below);
		d->below = copy;
		any = true;
	}
	return any;
}

/* Adds the directory `base` of `at`, which may meanwhile have another name than `below`, and, if asked for, what is below it;
 * `tell` reports what is found, for it was made before we could look. */
static bool add(struct watch *w, int at, const char *base, const char *below, bool tell, u32 depth)
{
	char path[64], name[PATH_MAX];
	struct stat s;
	if (w->count >= PER_WATCH || dir_count >= MAX_DIRS || depth >= MAX_DEPTH) {
		w->lost = true;
		errno = ENOSPC;
		return false;
	}
	int fd = open_at(at, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return false;
	snprintf(path, sizeof path, "/proc/self/fd/%d/.", fd);
	int number = inotify_add_watch(inotify.fd, path, MASK);
	for (struct dir *o = number < 0 ? NULL : dirs; o; o = o->next)
		if (o->w == w && o->number == number) { /* found by looking before its event came */
			close(fd);
			return true;
		}
	struct dir *d = number < 0 ? NULL : calloc(1, sizeof *d);
	if (!d || !(d->below = strdup(below))) {
		free(d);
		w->lost |= number < 0 && errno == ENOSPC;
		close(fd);
		return false;
	}
	d->w = w;
	d->number = number;
	d->next = dirs;
	dirs = d;
	w->count++;
	dir_count++;
	DIR *listing = w->recursive ? fdopendir(fd) : NULL;
	if (!listing) {
		close(fd);
		return true;
	}
	for (struct dirent *e; (e = readdir(listing));) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || !join(name, below, e->d_name))
			continue;
		bool directory = e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && fstatat(dirfd(listing), e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode));
		if (tell)
			emit(w, EVENT_CREATED, directory, name, "");
		if (directory)
			add(w, dirfd(listing), e->d_name, name, tell, depth + 1);
	}
	closedir(listing);
	return true;
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
	forget(w, NULL);
	if (w->root >= 0)
		close(w->root);
	w->root = -1;
	if (!dirs) /* inotify instances are few: give ours back */
		source_close(&inotify);
}

static const struct chan_ops watch_ops = {.pump = watch_pump, .drop = watch_drop};

static void deliver(struct dir *d, const struct inotify_event *e, const struct inotify_event *from)
{
	struct watch *w = d->w;
	char path[PATH_MAX], before[PATH_MAX];
	bool directory = e->mask & IN_ISDIR;
	if (!join(path, d->below, e->len ? e->name : ""))
		return;
	if (e->mask & (IN_CREATE | IN_MOVED_TO)) {
		/* A rename is told as one only if its other half was seen by this watch just before. */
		struct dir *source = NULL;
		for (struct dir *o = from ? dirs : NULL; o; o = o->next)
			if (o->w == w && o->number == from->wd)
				source = o;
		if (source && join(before, source->below, from->name))
			emit(w, EVENT_RENAMED, directory, path, before);
		else
			emit(w, EVENT_CREATED, directory, path, "");
		if (directory && w->recursive && !(source && relabel(w, before, path))) {
			as_user(w->uid, w->gid);
			add(w, w->root, path, path, true, 1);
			as_agent();
		}
	} else if (e->mask & (IN_DELETE | IN_MOVED_FROM)) {
		if (from)
			return;
		emit(w, EVENT_REMOVED, directory, path, "");
		if (directory)
			forget(w, path);
	} else if (e->len && (e->mask & (IN_MODIFY | IN_ATTRIB)) && !directory)
		emit(w, EVENT_MODIFIED, false, path, "");
}

/* `from` is, for the second half of a rename, its first; for the first half any value says that the second follows. */
static void dispatch(const struct inotify_event *e, const struct inotify_event *from)
{
	struct dir *hit[64];
	u32 n = 0;
	for (struct dir *d = dirs; d && n < 64; d = d->next)
		if (d->number == e->wd)
			hit[n++] = d;
	for (u32 i = 0; i < n; i++) {
		bool still = false; /* delivering to another watch may have forgotten it */
		for (struct dir *d = dirs; d; d = d->next)
			still |= d == hit[i];
		if (still)
			deliver(hit[i], e, from);
	}
}

/* The watch that sees only one half of a rename must hear of it as removal or creation. */
static bool both_seen(const struct inotify_event *a, const struct inotify_event *b)
{
	if (!b || !(a->mask & IN_MOVED_FROM) || !(b->mask & IN_MOVED_TO) || a->cookie != b->cookie)
		return false;
	for (struct dir *x = dirs; x; x = x->next)
		for (struct dir *y = x->number == a->wd ? dirs : NULL; y; y = y->next)
			if (y->number == b->wd && x->w != y->w)
				return false;
	return true;
}

/* The kernel watches this directory no more, because it is gone. */
static void ignored(int number)
{
	for (struct dir **at = &dirs; *at;) {
		struct dir *d = *at;
		if (d->number != number) {
			at = &d->next;
			continue;
		}
		if (d->below[0]) {
			unlink_dir(at);
			continue;
		}
		w_begin(T_END, d->w->c.id);
		w_int(0, 8);
		w_int(0, 1);
		w_end();
		chan_close(&d->w->c);
		at = &dirs;
	}
}

static void on_inotify(struct source *s, u32 events)
{
	(void)events;
	static char buf[16384] __attribute__((aligned(8)));
	ssize_t n = read(s->fd, buf, sizeof buf);
	const struct inotify_event *from = NULL;
	for (ssize_t at = 0; at < n && s->fd >= 0;) {
		struct inotify_event *e = (struct inotify_event *)(buf + at);
		at += (ssize_t)(sizeof *e + e->len);
		struct inotify_event *next = at < n ? (struct inotify_event *)(buf + at) : NULL;
		if (e->mask & IN_Q_OVERFLOW) {
			for (struct dir *d = dirs; d; d = d->next)
				d->w->lost = true;
			pump_again = true;
		} else if (e->mask & IN_IGNORED) {
			ignored(e->wd);
		} else {
			bool pair = both_seen(e, next);
			dispatch(e, pair ? e : from);
			from = pair ? e : NULL;
			continue;
		}
		from = NULL;
	}
}

void watch_open(u32 channel, struct rd *r)
{
	static char path[PATH_MAX];
	u32 uid = rd_u32(r), gid = rd_u32(r);
	bool recursive = rd_u8(r);
	u32 credit = rd_u32(r);
	if (!rd_path(r, path))
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request or path");
	if (inotify.fd < 0) {
		int fd = keep_fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
		if (fd < 0 || !source_open(&inotify, fd, EPOLLIN, on_inotify))
			return w_errno(channel, errno);
	}
	struct watch *w = chan_open(sizeof *w, channel, credit, &watch_ops);
	if (!w)
		return;
	w->uid = uid;
	w->gid = gid;
	w->recursive = recursive;
	w->root = -1;
	bool user = as_user(uid, gid);
	w->root = user ? open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0) : -1;
	bool done = w->root >= 0 && add(w, w->root, ".", "", false, 0);
	int err = errno;
	as_agent();
	if (!done) {
		w_errno(channel, err);
		return chan_close(&w->c);
	}
	w_empty(T_OK, channel);
}
