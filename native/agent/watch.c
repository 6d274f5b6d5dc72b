/* Watching directories, each watch with an inotify instance of its own. What a watch cannot tell becomes an overflow: the host then
 * looks again by itself. Each event uses up one credit; the end of a watch needs none, for it is always told. */
#include "agent.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include "watch.h"

enum {
	MAX_DIRS = 8192,
	PER_WATCH = 4096,
	MAX_DEPTH = 64,
	HALF_MS = 20, /* how long the second half of a rename may come after the first */
	MASK = IN_CREATE | IN_DELETE | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_ADD,
};

struct dir {
	struct dir *next;
	int number;
	char *below; /* of the watched directory; empty for itself */
};

struct told {
	struct told *next;
	char path[];
};

static const char too_many[] = "there are more directories than a watch can hold";
static struct watch *watches;
static u32 dir_count, unread; /* bytes of events that are read and not yet looked at */
static struct {
	const char *temporary;
	bool replaced;
} published;

/* ---- what is told ---- */

static bool emit(struct watch *w, u8 kind, bool directory, const char *path, const char *before)
{
	if (w->lost || !w->c.credit || !out_room()) {
		w->lost = true;
		return false;
	}
	w->c.credit--;
	w_begin(T_EVENT, w->c.id);
	w_ints("11", kind, directory);
	w_str(path, (u32)strlen(path));
	w_str(before, (u32)strlen(before));
	w_end();
	return true;
}

static void end(struct watch *w, u8 how)
{
	w_frame(T_ENDED, w->c.id, "1", how);
	chan_close(&w->c);
}

/* What is found by looking, where an event may still come for it: that one is swallowed. */
static void tell_found(struct watch *w, bool directory, const char *path)
{
	if (w->quiet || !emit(w, EVENT_CREATED, directory, path, ""))
		return;
	size_t n = strlen(path) + 1;
	struct told *t = malloc(sizeof *t + n);
	if (!t)
		return;
	memcpy(t->path, path, n);
	t->next = w->told;
	w->told = t;
}

static bool is_told(struct watch *w, const char *path)
{
	struct told *t = w->told;
	while (t && strcmp(t->path, path) != 0)
		t = t->next;
	if (!t)
		return false;
	UNLINK(w->told, t);
	free(t);
	return true;
}

static void forget_told(struct watch *w)
{
	for (struct told *t; (t = w->told);) {
		w->told = t->next;
		free(t);
	}
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

static bool name_dir(struct dir *d, const char *below)
{
	char *copy = strdup(below);
	if (!copy)
		return false;
	free(d->below);
	d->below = copy;
	return true;
}

/* The kernel follows directories, so after a rename their watches stand, under other names. */
static void renamed(struct watch *w, const char *from, const char *to)
{
	char path[PATH_MAX];
	forget(w, to); /* an empty directory was replaced */
	for (struct dir *d = w->dirs, *next; d; d = next) {
		next = d->next;
		if (!at_or_below(d, from))
			continue;
		if (!join(path, to, d->below[strlen(from)] ? d->below + strlen(from) + 1 : "") || !name_dir(d, path)) {
			forget_one(w, d);
			w->full = true;
		}
	}
}

static struct dir *remember(struct watch *w, int number, const char *below)
{
	struct dir *d = calloc(1, sizeof *d);
	if (!d || !name_dir(d, below)) {
		free(d);
		return NULL;
	}
	d->number = number;
	d->next = w->dirs;
	w->dirs = d;
	w->count++;
	dir_count++;
	return d;
}

static u32 depth_of(const char *below)
{
	u32 depth = below[0] != 0;
	for (; *below; below++)
		depth += *below == '/';
	return depth;
}

static bool add(struct watch *w, int at, const char *base, const char *below);

/* What is in a directory was made before we could look, if the directory is new. */
static void look(struct watch *w, int fd, const char *below, bool tell)
{
	char name[PATH_MAX];
	struct stat s;
	DIR *listing = fdopendir(fd);
	if (!listing) {
		close(fd);
		return;
	}
	for (struct dirent *e; !w->full && (e = readdir(listing));) {
		if (dots(e->d_name) || is_temporary(e->d_name) || !join(name, below, e->d_name))
			continue;
		bool directory = e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && fstatat(fd, e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode));
		if (tell)
			tell_found(w, directory, name);
		if (directory)
			add(w, fd, e->d_name, name);
	}
	closedir(listing);
}

/* Adds the directory `base` of `at` and, if asked for, what is below it. One that may not be read is left out. */
static bool add(struct watch *w, int at, const char *base, const char *below)
{
	char path[64];
	int fd = open_at(at, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return false;
	snprintf(path, sizeof path, "/proc/self/fd/%d/.", fd);
	int number = inotify_add_watch(w->s.fd, path, MASK);
	if (number < 0) {
		w->full |= errno == ENOSPC;
		return closing(fd, false);
	}
	struct dir *known = find(w, number);
	if (known && strcmp(known->below, below) == 0)
		return closing(fd, true);
	bool room = known || (w->count < PER_WATCH && dir_count < MAX_DIRS && depth_of(below) <= MAX_DEPTH);
	if (!room || !(known ? name_dir(known, below) : !!remember(w, number, below))) {
		w->full = true;
		return closing(fd, false);
	}
	if (w->recursive)
		look(w, fd, below, !known);
	else
		close(fd);
	return true;
}

/* ---- what happens in them ---- */

static void follow(struct watch *w, const char *path)
{
	int queued = 0;
	if (!w->recursive)
		return;
	as_user(w->uid, w->gid);
	add(w, w->root, path, path);
	as_agent();
	if (w->told && ioctl(w->s.fd, FIONREAD, &queued) == 0)
		w->told_for = unread + (u32)queued;
}

static void left(struct watch *w, const char *path, bool directory)
{
	emit(w, EVENT_REMOVED, directory, path, "");
	if (directory)
		forget(w, path);
}

static void arrived(struct watch *w, const char *path, bool directory)
{
	if (!is_told(w, path))
		emit(w, EVENT_CREATED, directory, path, "");
	if (directory)
		follow(w, path);
}

/* The first half of a rename, after which no second came: it was moved out. */
static void moved_out(struct watch *w)
{
	char *path = w->half.path;
	if (!path)
		return;
	w->half.path = NULL;
	if (!w->half.temporary)
		left(w, path, w->half.directory);
	free(path);
}

static void half(struct watch *w, const char *path, const struct inotify_event *e)
{
	w->half = (struct half){.path = strdup(path), .cookie = e->cookie, .directory = e->mask & IN_ISDIR, .temporary = is_temporary(e->name), .since = now};
	if (w->half.path)
		wake_at(now + HALF_MS);
	else
		w->lost = true;
}

/* What the agent writes is made under a temporary name, of which nobody is told. */
static void written(struct watch *w, const char *path, const char *temporary)
{
	const char *base = strrchr(temporary, '/');
	bool ours = published.temporary && strcmp(base ? base + 1 : temporary, published.temporary) == 0;
	if (ours && published.replaced)
		emit(w, EVENT_MODIFIED, false, path, "");
	else
		arrived(w, path, false);
}

static void moved_in(struct watch *w, const char *path, const struct inotify_event *e)
{
	bool hides = is_temporary(e->name);
	char *before = w->half.path;
	if (!before) {
		if (!hides)
			arrived(w, path, e->mask & IN_ISDIR);
		return;
	}
	if (hides)
		return moved_out(w);
	w->half.path = NULL;
	if (w->half.temporary)
		written(w, path, before);
	else {
		emit(w, EVENT_RENAMED, e->mask & IN_ISDIR, path, before);
		if (e->mask & IN_ISDIR) {
			renamed(w, before, path);
			follow(w, path);
		}
	}
	free(before);
}

/* The kernel's own queue was full: names and directories may have changed without a word. */
static void again(struct watch *w)
{
	w->lost = w->quiet = true;
	moved_out(w);
	forget_told(w);
	forget(w, "");
	as_user(w->uid, w->gid);
	u8 gone = way_again(w);
	bool there = !gone && add(w, w->root, ".", "");
	as_agent();
	w->quiet = false;
	if (!there && !w->full)
		end(w, gone ? gone : ENDED_REMOVED);
}

static void deliver(struct watch *w, const struct inotify_event *e)
{
	char path[PATH_MAX];
	bool directory = e->mask & IN_ISDIR;
	if (e->mask & IN_Q_OVERFLOW)
		return again(w);
	if (!(e->mask & IN_MOVED_TO) || e->cookie != w->half.cookie)
		moved_out(w); /* first: this event may come from a directory that was below it */
	u8 gone = way_gone(w, e);
	struct dir *d = find(w, e->wd);
	if (gone || (d && !d->below[0] && (e->mask & IN_IGNORED)))
		return end(w, gone ? gone : ENDED_REMOVED);
	if (!d || !join(path, d->below, e->len ? e->name : ""))
		return;
	if (e->mask & IN_IGNORED)
		forget_one(w, d);
	else if (e->mask & IN_MOVED_FROM)
		half(w, path, e);
	else if (e->mask & IN_MOVED_TO)
		moved_in(w, path, e);
	else if (!e->len || is_temporary(e->name))
		return;
	else if (e->mask & IN_CREATE)
		arrived(w, path, directory);
	else if (e->mask & IN_DELETE)
		left(w, path, directory);
	else if ((e->mask & (IN_MODIFY | IN_ATTRIB)) && !directory)
		emit(w, EVENT_MODIFIED, false, path, "");
}

/* Bytes of events that were read; none is left of those of a watch that ended. */
static ssize_t take(struct watch *w)
{
	static char buf[16384] __attribute__((aligned(8)));
	ssize_t n = read(w->s.fd, buf, sizeof buf);
	for (ssize_t at = 0; at < n && w->s.fd >= 0;) {
		const struct inotify_event *e = (struct inotify_event *)(buf + at);
		u32 size = (u32)(sizeof *e + e->len);
		at += size;
		unread = (u32)(n - at);
		deliver(w, e);
		w->told_for -= w->told_for < size ? w->told_for : size;
		if (!w->told_for)
			forget_told(w);
		if (w->full && w->s.fd >= 0) {
			w_error(w->c.id, E_RESOURCES, ENOSPC, 0, too_many);
			chan_close(&w->c);
		}
	}
	unread = 0;
	return w->s.fd < 0 ? -1 : n;
}

static void on_inotify(struct source *s, u32 events)
{
	(void)events;
	take(s->owner);
}

/* Reads what has happened up to now, and no more: others may go on. */
static void catch_up(struct watch *w)
{
	int queued = 0;
	if (w->s.fd < 0 || ioctl(w->s.fd, FIONREAD, &queued) < 0)
		return;
	for (ssize_t n = 0; queued > 0 && (n = take(w)) > 0;)
		queued -= (int)n;
}

void watch_published(const char *temporary, bool replaced)
{
	published.temporary = temporary;
	published.replaced = replaced;
	for (struct watch *w = watches; w; w = w->others)
		catch_up(w);
	published.temporary = NULL;
}

void watch_tick(void)
{
	for (struct watch *w = watches; w; w = w->others)
		if (w->half.path && now >= w->half.since + HALF_MS)
			moved_out(w);
		else if (w->half.path)
			wake_at(w->half.since + HALF_MS);
}

/* ---- the channel ---- */

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
	for (struct watch **at = &watches; *at; at = &(*at)->others)
		if (*at == w) {
			*at = w->others;
			break;
		}
	source_close(&w->s); /* the kernel forgets all at once */
	forget(w, "");
	forget_told(w);
	way_forget(w);
	free(w->path);
	free(w->half.path);
	w->half.path = NULL;
	w->root = closing(w->root, -1);
}

static const struct chan_ops watch_ops = {.pump = watch_pump, .drop = watch_drop};

static bool begin(struct watch *w, const char *path, int fd)
{
	w->path = strdup(path);
	if (!w->path)
		return closing(fd, false);
	if (!source_open(&w->s, w, fd, EPOLLIN, on_inotify))
		return false;
	w->root = way_go(w);
	return w->root >= 0 && add(w, w->root, ".", "");
}

int watch_open(struct request *q)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0 && errno == EMFILE)
		return refuse(q, E_RESOURCES, 0, "no inotify instance is left: watches and the programs inside share them");
	if ((fd = keep_fd(fd)) < 0)
		return FAILED;
	struct watch *w = chan_open(sizeof *w, q->channel, q->credit, &watch_ops);
	if (!w)
		return closing(fd, ANSWERED);
	w->uid = q->uid;
	w->gid = q->gid;
	w->recursive = q->n[0];
	w->root = -1;
	w->s.fd = -1;
	w->quiet = true;
	w->others = watches;
	watches = w;
	bool begun = begin(w, q->path, fd);
	int err = errno;
	w->quiet = false;
	if (begun && !w->full)
		return DONE;
	bool full = w->full || err == ENOSPC;
	chan_close(&w->c);
	errno = err;
	return full ? refuse(q, E_RESOURCES, 0, too_many) : FAILED;
}
