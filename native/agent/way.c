/* The way to a watched directory: every name on it, those of symbolic links included. Who moves, removes or replaces one of them
 * takes the directory from under its path, of which the directory itself learns nothing. */
#include "watch.h"
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum { MAX_HOPS = 40, WAY_MASK = IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_MASK_ADD };

struct step {
	struct step *next;
	int number;
	char name[];
};

/* A directory that may only be passed can be watched all the same: nothing but the one name is told of it. */
static int watch_names(struct watch *w, int dir)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d/.", dir);
	as_agent();
	int number = inotify_add_watch(w->s.fd, path, WAY_MASK);
	int err = errno;
	as_user(w->uid, w->gid);
	errno = err;
	return number;
}

static bool step(struct watch *w, int dir, const char *name)
{
	size_t n = strlen(name) + 1;
	int number = watch_names(w, dir);
	struct step *s = number < 0 ? NULL : malloc(sizeof *s + n);
	if (!s)
		return false;
	s->number = number;
	memcpy(s->name, name, n);
	s->next = w->way;
	w->way = s;
	return true;
}

/* Puts what a link says before the rest of the path. */
static bool put_before(char *path, const char *rest, const char *link)
{
	char copy[PATH_MAX];
	int n = snprintf(copy, sizeof copy, "%s/%s", link, rest);
	if (n < 0 || n >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return false;
	}
	memcpy(path, copy, (size_t)n + 1);
	return true;
}

static int open_dir(int at, const char *name)
{
	return open_at(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* One name further: `path` becomes what is left of it. The name is watched before it is looked up, so that nothing is missed; what
 * takes it in between ends a watch that has just begun. */
static int pass(struct watch *w, int at, char *path, u32 *hops)
{
	char name[NAME_MAX + 1], link[PATH_MAX];
	const char *from = path + strspn(path, "/");
	size_t n = strcspn(from, "/");
	if (n > NAME_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(name, from, n);
	name[n] = 0;
	const char *rest = from + n;
	ssize_t to = -1;
	if (n && !dots(name)) {
		if (!step(w, at, name))
			return -1;
		to = readlinkat(at, name, link, sizeof link - 1);
	}
	if (to < 0) {
		int next = open_dir(at, n ? name : ".");
		memmove(path, rest, strlen(rest) + 1);
		return next;
	}
	link[to] = 0;
	if (++*hops > MAX_HOPS) {
		errno = ELOOP;
		return -1;
	}
	return put_before(path, rest, link) ? open_dir(at, link[0] == '/' ? "/" : ".") : -1;
}

int way_go(struct watch *w)
{
	char path[PATH_MAX];
	u32 hops = 0;
	/* Of what the kernel refuses, it says why. */
	int at = open_at(AT_FDCWD, w->path, O_PATH | O_DIRECTORY, 0);
	if (at < 0)
		return -1;
	close(at);
	strcpy(path, w->path);
	at = open_dir(AT_FDCWD, "/");
	while (at >= 0 && path[strspn(path, "/")])
		at = closing(at, pass(w, at, path, &hops));
	return at;
}

u8 way_gone(const struct watch *w, const struct inotify_event *e)
{
	if (e->mask & IN_UNMOUNT)
		return ENDED_UNMOUNTED;
	if (!e->len || !(e->mask & (IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)))
		return 0;
	const struct step *s = w->way;
	while (s && (s->number != e->wd || strcmp(s->name, e->name) != 0))
		s = s->next;
	if (!s)
		return 0;
	return e->mask & IN_DELETE ? ENDED_REMOVED : e->mask & IN_MOVED_FROM ? ENDED_MOVED : ENDED_REPLACED;
}

u8 way_again(struct watch *w)
{
	struct stat was, is;
	way_forget(w);
	int at = way_go(w);
	bool same = at >= 0 && fstat(at, &is) == 0 && fstat(w->root, &was) == 0 && is.st_dev == was.st_dev && is.st_ino == was.st_ino;
	bool removed = fstat(w->root, &was) == 0 && was.st_nlink == 0;
	if (at >= 0)
		close(at);
	return same ? 0 : removed ? ENDED_REMOVED : at >= 0 ? ENDED_REPLACED : ENDED_MOVED;
}

void way_forget(struct watch *w)
{
	for (struct step *s; (s = w->way);) {
		inotify_rm_watch(w->s.fd, s->number);
		w->way = s->next;
		free(s);
	}
}
