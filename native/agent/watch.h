/* What the parts of a watch share: watch.c tells what happens in its directories, way.c whether its path still leads to it. */
#ifndef WATCH_H
#define WATCH_H
#include "agent.h"

struct inotify_event;

/* The first half of a rename, which waits for the second. */
struct half {
	char *path; /* NULL: there is none */
	u32 cookie;
	bool directory, temporary;
	u64 since;
};

struct watch {
	struct chan c;
	struct source s;
	struct watch *others;
	struct dir *dirs;
	struct step *way;
	struct told *told;
	struct half half;
	u32 uid, gid, count, told_for; /* bytes of events for which what is told stays known */
	int root;                      /* O_PATH */
	bool recursive, lost, full, quiet;
	char *path;
};

int way_go(struct watch *);                                         /* the directory; -1 with errno */
u8 way_gone(const struct watch *, const struct inotify_event *);    /* how this event ends the way, or 0 */
u8 way_again(struct watch *);                                       /* after events were lost: how it has ended, or 0 */
void way_forget(struct watch *);

#endif
