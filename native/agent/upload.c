/* Writing files: bytes go to a hidden temporary beside the target, which one rename makes visible. A whole small file travels in
 * one frame; a larger one in chunks that name their offset, under an id the host chose, which outlives a lost connection. */
#include "agent.h"
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define TEMPORARY ".fiberbox-"

enum { MAX_UPLOADS = 64, IDLE_MS = 60000, MAX_HOPS = 40, BLOCK = 4096 };

struct target {
	int dir, fd;
	char base[NAME_MAX + 1], temporary[32];
};

struct upload {
	struct upload *next;
	u64 offset, used, hash; /* of the path it was begun for */
	bool committed;         /* kept for a while, so that a repeated commit succeeds */
	u32 uid, gid;
	struct target t;
	char id[MAX_ID + 1];
};

static struct upload *uploads;

/* ---- one file ---- */

static void target_close(struct target *t, bool drop)
{
	int err = errno;
	if (drop && t->fd >= 0)
		unlinkat(t->dir, t->temporary, 0);
	errno = err;
	t->fd = closing(t->fd, -1);
	t->dir = closing(t->dir, -1);
}

/* The directory and name a write to this path ends at: symbolic links are followed, as open(2) would. */
static bool resolve(struct target *t, char *path)
{
	char link[PATH_MAX], *base;
	int from = AT_FDCWD;
	for (int hops = 0; hops <= MAX_HOPS; hops++) {
		bool directory = path[0] && path[strlen(path) - 1] == '/';
		t->dir = closing(from, parent_at(from, path, true, &base));
		if (directory || (t->dir < 0 && errno == EINVAL))
			errno = EISDIR;
		if (t->dir < 0 || directory)
			return false;
		ssize_t n = readlinkat(t->dir, base, link, sizeof link - 1);
		if (n < 0) {
			strcpy(t->base, base);
			return errno == EINVAL || errno == ENOENT; /* no link; what it is, if anything, is seen next */
		}
		link[n] = 0;
		strcpy(path, link);
		from = t->dir;
		t->dir = -1;
	}
	closing(from, 0);
	errno = ELOOP;
	return false;
}

static bool create(struct target *t, char *path, u32 mode)
{
	struct stat old;
	u64 random;
	t->fd = t->dir = -1;
	if (!resolve(t, path))
		return false;
	bool exists = fstatat(t->dir, t->base, &old, AT_SYMLINK_NOFOLLOW) == 0;
	if (exists && !S_ISREG(old.st_mode)) {
		errno = S_ISDIR(old.st_mode) ? EISDIR : ENXIO;
		return false;
	}
	if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
		return false;
	snprintf(t->temporary, sizeof t->temporary, TEMPORARY "%016llx", (unsigned long long)random);
	t->fd = keep_fd(openat(t->dir, t->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
	if (t->fd < 0)
		return false;
	/* A file that is replaced keeps its owner where the writer may give it away, and its mode unless another is asked for. */
	if (exists && fchown(t->fd, old.st_uid, old.st_gid) < 0 && errno != EPERM)
		return false;
	return fchmod(t->fd, (mode != UINT32_MAX ? mode : exists ? old.st_mode : 0644) & 07777) == 0;
}

static bool all_zero(const u8 *p, u32 n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Blocks of zeros become holes, as they may have been: only their place is moved over. */
static bool fill(struct target *t, struct str s)
{
	while (s.n) {
		u32 block = s.n < BLOCK ? s.n : BLOCK;
		bool hole = all_zero(s.p, block);
		while (!hole && block < s.n && !all_zero(s.p + block, s.n - block < BLOCK ? s.n - block : BLOCK))
			block += s.n - block < BLOCK ? s.n - block : BLOCK;
		ssize_t n = hole ? (lseek(t->fd, block, SEEK_CUR) < 0 ? -1 : (ssize_t)block) : write(t->fd, s.p, block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		s = (struct str){s.p + n, s.n - (u32)n};
	}
	return true;
}

bool is_temporary(const char *name)
{
	return strncmp(name, TEMPORARY, sizeof TEMPORARY - 1) == 0 && strlen(name) == sizeof TEMPORARY - 1 + 16;
}

static bool publish(struct target *t)
{
	bool made = syscall(SYS_renameat2, t->dir, t->temporary, t->dir, t->base, 1 /* RENAME_NOREPLACE */) == 0;
	bool replaced = !made && errno == EEXIST;
	if (!made && renameat(t->dir, t->temporary, t->dir, t->base) < 0)
		return false;
	watch_published(t->temporary, replaced);
	return true;
}

static int accepted(const struct request *q, u64 offset)
{
	w_frame(T_OFFSET, q->channel, "8", offset);
	return ANSWERED;
}

int file_write(struct request *q)
{
	struct target t;
	bool done = create(&t, q->path, q->mode) && fill(&t, q->rest) && ftruncate(t.fd, q->rest.n) == 0 && publish(&t);
	target_close(&t, !done);
	return done ? accepted(q, q->rest.n) : FAILED;
}

/* ---- in pieces ---- */

static struct upload *find(const char *id)
{
	struct upload *u = uploads;
	while (u && strcmp(u->id, id) != 0)
		u = u->next;
	return u;
}

static void forget(struct upload *u)
{
	target_close(&u->t, !u->committed);
	UNLINK(uploads, u);
	free(u);
}

/* Whether there is room for one more, perhaps in place of one that is remembered only for repeated commits. */
static bool admit(void)
{
	struct upload *oldest = NULL;
	u32 count = 0;
	for (struct upload *u = uploads; u; u = u->next, count++)
		if (u->committed && (!oldest || u->used <= oldest->used))
			oldest = u;
	if (count >= MAX_UPLOADS && oldest)
		forget(oldest);
	return count < MAX_UPLOADS || oldest;
}

static struct upload *begin(struct request *q)
{
	struct upload *u = calloc(1, sizeof *u);
	if (!u) {
		errno = ENOMEM;
		return NULL;
	}
	strcpy(u->id, q->id);
	u->uid = q->uid;
	u->gid = q->gid;
	u->hash = hash_of(q->path, strlen(q->path)); /* which create() takes apart */
	if (!create(&u->t, q->path, q->mode)) {
		target_close(&u->t, true);
		free(u);
		return NULL;
	}
	u->next = uploads;
	uploads = u;
	return u;
}

int upload_chunk(struct request *q)
{
	struct upload *u = find(q->id);
	u64 offset = q->n[0], reached = u ? u->offset : 0, known = reached - offset;
	if (!q->id[0])
		return refuse(q, E_INVALID, 0, "malformed request or path");
	if (u && (u->uid != q->uid || u->hash != hash_of(q->path, strlen(q->path))))
		return refuse(q, E_CONFLICT, reached, "this upload id names another upload");
	if (offset > reached)
		return refuse(q, E_GAP, reached, "bytes before this offset are missing");
	if (!u && !admit())
		return refuse(q, E_RESOURCES, MAX_UPLOADS, "as many uploads as a sandbox may have are under way");
	if (!u && !(u = begin(q)))
		return FAILED;
	u->used = now;
	wake_at(now + IDLE_MS);
	if (known >= q->rest.n)
		return accepted(q, reached);
	if (u->committed)
		return refuse(q, E_CONFLICT, reached, "this upload is committed");
	/* An earlier failure may have left part of a chunk behind. */
	if (ftruncate(u->t.fd, (off_t)reached) < 0 || lseek(u->t.fd, (off_t)reached, SEEK_SET) < 0 || !fill(&u->t, (struct str){q->rest.p + known, q->rest.n - (u32)known}))
		return FAILED;
	return accepted(q, u->offset = offset + q->rest.n);
}

int upload_commit(struct request *q)
{
	struct upload *u = find(q->id);
	if (!u)
		return refuse(q, E_NO_UPLOAD, 0, "no such upload");
	if (q->n[0] != u->offset)
		return refuse(q, E_GAP, u->offset, "another number of bytes has arrived");
	if (u->committed)
		return accepted(q, u->offset);
	u->committed = as_user(u->uid, u->gid) && ftruncate(u->t.fd, (off_t)u->offset) == 0 && publish(&u->t);
	int done = u->committed ? accepted(q, u->offset) : FAILED;
	if (u->committed)
		target_close(&u->t, false);
	else
		forget(u);
	as_agent();
	return done;
}

static void abandon(struct upload *u)
{
	as_user(u->uid, u->gid);
	forget(u);
	as_agent();
}

int upload_abort(struct request *q)
{
	struct upload *u = find(q->id);
	if (u)
		abandon(u);
	return DONE;
}

/* Abandoned uploads leave nothing behind. */
void upload_tick(void)
{
	for (struct upload *u = uploads, *next; u; u = next) {
		next = u->next;
		if (now >= u->used + IDLE_MS)
			abandon(u);
		else
			wake_at(u->used + IDLE_MS);
	}
}
