/* Writing files: bytes go to a hidden temporary beside the target, which one rename makes visible. A whole small file travels in
 * one frame; a larger one in chunks that name their offset, under an id the host chose, which outlives a lost connection. */
#include "agent.h"
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

enum { MAX_UPLOADS = 64, IDLE_MS = 60000, MAX_HOPS = 40 };

struct target {
	int dir, fd;
	char base[NAME_MAX + 1], temporary[32];
};

struct upload {
	struct upload *next;
	u64 offset, used, hash; /* of the path it was begun for */
	bool committed; /* kept for a while, so that a repeated commit succeeds */
	u32 uid, gid;
	struct target t;
	char id[MAX_ID + 1];
};

static struct upload *uploads;
static u32 count;

static void target_close(struct target *t, bool drop)
{
	int err = errno;
	if (drop && t->fd >= 0)
		unlinkat(t->dir, t->temporary, 0);
	if (t->fd >= 0)
		close(t->fd);
	if (t->dir >= 0)
		close(t->dir);
	t->fd = t->dir = -1;
	errno = err;
}

/* The directory and name a write to this path ends at: symbolic links are followed, as open(2) would. */
static bool resolve(struct target *t, char *path, bool parents)
{
	int at = AT_FDCWD;
	char link[PATH_MAX], *base;
	for (int hops = 0;; hops++) {
		size_t n = strlen(path);
		bool directory = n && path[n - 1] == '/';
		t->dir = parent_at(at, path, parents, &base);
		int err = errno == EINVAL || directory ? EISDIR : errno;
		if (at >= 0)
			close(at);
		if (t->dir < 0 || directory) {
			errno = err;
			return false;
		}
		ssize_t got = readlinkat(t->dir, base, link, sizeof link - 1);
		if (got < 0 && (errno == EINVAL || errno == ENOENT)) {
			strcpy(t->base, base);
			return true;
		}
		if (got < 0 || hops == MAX_HOPS) {
			errno = got < 0 ? errno : ELOOP;
			return false;
		}
		link[got] = 0;
		strcpy(path, link);
		at = t->dir;
		t->dir = -1;
	}
}

static bool create(struct target *t, char *path, u32 mode, bool parents)
{
	struct stat old;
	u64 random;
	t->fd = t->dir = -1;
	if (!resolve(t, path, parents))
		return false;
	bool exists = fstatat(t->dir, t->base, &old, AT_SYMLINK_NOFOLLOW) == 0;
	if (exists && !S_ISREG(old.st_mode)) {
		errno = S_ISDIR(old.st_mode) ? EISDIR : ENXIO;
		return false;
	}
	if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
		return false;
	snprintf(t->temporary, sizeof t->temporary, ".fiberbox-%016llx", (unsigned long long)random);
	t->fd = keep_fd(openat(t->dir, t->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
	if (t->fd < 0)
		return false;
	/* A file that is replaced keeps its owner where the writer may give it away, and its mode unless another is asked for. */
	if (exists && (fchown(t->fd, old.st_uid, old.st_gid) < 0 && errno != EPERM))
		return false;
	return fchmod(t->fd, (mode != UINT32_MAX ? mode : exists ? old.st_mode : 0644) & 07777) == 0;
}

static bool fill(struct target *t, const u8 *p, size_t n)
{
	while (n) {
		ssize_t w = write(t->fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return false;
		p += w;
		n -= (size_t)w;
	}
	return true;
}

static bool publish(struct target *t, u8 flags)
{
	return !((flags & WRITE_FSYNC) && fsync(t->fd) < 0) && renameat(t->dir, t->temporary, t->dir, t->base) == 0;
}

static void w_accepted(u32 channel, u64 offset)
{
	w_begin(T_OFFSET, channel);
	w_int(offset, 8);
	w_end();
}

static void write_whole(u32 channel, struct rd *r)
{
	static char path[PATH_MAX];
	u32 uid = rd_u32(r), gid = rd_u32(r), mode = rd_u32(r);
	u8 flags = rd_u8(r);
	struct target t = {.dir = -1, .fd = -1};
	if (!rd_path(r, path))
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request or path");
	size_t n = (size_t)(r->end - r->p);
	bool done = as_user(uid, gid) && create(&t, path, mode, flags & WRITE_PARENTS) && fill(&t, r->p, n) && publish(&t, flags);
	target_close(&t, !done);
	as_agent();
	if (done)
		w_accepted(channel, n);
	else
		w_errno(channel, errno);
}

static void forget(struct upload *u, bool drop)
{
	if (drop)
		as_user(u->uid, u->gid);
	target_close(&u->t, drop);
	as_agent();
	for (struct upload **at = &uploads; *at; at = &(*at)->next)
		if (*at == u) {
			*at = u->next;
			break;
		}
	count--;
	free(u);
}

static struct upload *find(const char *id)
{
	for (struct upload *u = uploads; u; u = u->next)
		if (strcmp(u->id, id) == 0)
			return u;
	return NULL;
}

static u64 hash_of(const char *path)
{
	u64 hash = 14695981039346656037u;
	for (; *path; path++)
		hash = (hash ^ (u8)*path) * 1099511628211u;
	return hash;
}

static void forget_committed(void)
{
	struct upload *oldest = NULL;
	for (struct upload *u = uploads; u; u = u->next)
		if (u->committed && (!oldest || u->used <= oldest->used))
			oldest = u;
	if (oldest)
		forget(oldest, false);
}

static struct upload *begin(u32 channel, const char *id, u32 uid, u32 gid, u32 mode, char *path)
{
	if (count >= MAX_UPLOADS)
		forget_committed();
	struct upload *u = count < MAX_UPLOADS ? calloc(1, sizeof *u) : NULL;
	if (!u) {
		w_error(channel, E_RESOURCES, ENOMEM, 0, "too many uploads");
		return NULL;
	}
	strcpy(u->id, id);
	u->uid = uid;
	u->gid = gid;
	u->hash = hash_of(path); /* which create() takes apart */
	bool done = as_user(uid, gid) && create(&u->t, path, mode, true);
	if (!done)
		target_close(&u->t, true);
	as_agent();
	if (!done) {
		w_errno(channel, errno);
		free(u);
		return NULL;
	}
	u->next = uploads;
	uploads = u;
	count++;
	return u;
}

static void chunk(u32 channel, struct rd *r)
{
	static char path[PATH_MAX];
	char id[MAX_ID + 1];
	u32 uid = rd_u32(r), gid = rd_u32(r), mode = rd_u32(r);
	rd_text(r, id, sizeof id);
	rd_path(r, path);
	u64 offset = rd_u64(r);
	size_t n = (size_t)(r->end - r->p);
	if (r->bad || !id[0])
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request or path");
	struct upload *u = find(id);
	if (u && (u->uid != uid || u->hash != hash_of(path)))
		return w_error(channel, E_CONFLICT, 0, u->offset, "this upload id names another upload");
	if (offset > (u ? u->offset : 0))
		return w_error(channel, E_GAP, 0, u ? u->offset : 0, "bytes before this offset are missing");
	if (!u && !(u = begin(channel, id, uid, gid, mode, path)))
		return;
	u->used = now;
	wake_at(now + IDLE_MS);
	u64 known = u->offset - offset;
	if (known < n && u->committed)
		return w_error(channel, E_CONFLICT, 0, u->offset, "this upload is committed");
	if (known < n) {
		/* An earlier failure may have left part of a chunk behind. */
		if (lseek(u->t.fd, (off_t)u->offset, SEEK_SET) < 0 || !fill(&u->t, r->p + known, n - known))
			return w_errno(channel, errno);
		u->offset = offset + n;
	}
	w_accepted(channel, u->offset);
}

void upload_handle(u8 type, u32 channel, struct rd *r)
{
	if (type == T_WRITE)
		return write_whole(channel, r);
	if (type == T_UPLOAD)
		return chunk(channel, r);
	char id[MAX_ID + 1];
	rd_text(r, id, sizeof id);
	u64 size = type == T_COMMIT ? rd_u64(r) : 0;
	u8 flags = type == T_COMMIT ? rd_u8(r) : 0;
	struct upload *u = r->bad ? NULL : find(id);
	if (r->bad || (!u && type == T_COMMIT))
		return w_error(channel, r->bad ? E_INVALID : E_NO_UPLOAD, 0, 0, "no such upload");
	if (type == T_ABORT) {
		if (u)
			forget(u, !u->committed);
		return w_empty(T_OK, channel);
	}
	if (size != u->offset)
		return w_error(channel, E_GAP, 0, u->offset, "another number of bytes has arrived");
	if (u->committed)
		return w_accepted(channel, size);
	bool done = as_user(u->uid, u->gid) && ftruncate(u->t.fd, (off_t)size) == 0 && publish(&u->t, flags);
	int err = errno;
	as_agent();
	if (!done) {
		forget(u, true);
		return w_errno(channel, err);
	}
	target_close(&u->t, false);
	u->committed = true;
	u->used = now;
	w_accepted(channel, size);
}

/* Abandoned uploads leave nothing behind. */
void files_tick(void)
{
	for (struct upload *u = uploads, *next; u; u = next) {
		next = u->next;
		if (now >= u->used + IDLE_MS)
			forget(u, !u->committed);
		else
			wake_at(u->used + IDLE_MS);
	}
}
