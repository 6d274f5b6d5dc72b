/* File requests on single paths. Each acts with the file system identity of the user it names, so the kernel decides what it may
 * touch, and with paths resolved inside the sandbox. Nothing here can block for long: opens never wait, and only regular files are
 * read. Work that grows with a directory is in walk.c, in slices. */
#include "agent.h"
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

enum { READ_MAX = 128 * 1024, PROC_MAGIC = 0x9fa0 };

bool as_user(u32 uid, u32 gid)
{
	setfsgid(gid);
	setfsuid(uid);
	if ((u32)setfsuid((uid_t)-1) == uid && (u32)setfsgid((gid_t)-1) == gid)
		return true;
	errno = EPERM;
	return false;
}

void as_agent(void)
{
	int err = errno;
	setfsuid(own_uid);
	setfsgid(own_gid);
	errno = err;
}

bool rd_path(struct rd *r, char *to)
{
	return rd_text(r, to, PATH_MAX) && (to[0] == '/' || (r->bad = true, false));
}

/* The agent passes every ptrace check on itself, so /proc/1/mem and the like would open for any user it acts for. */
static bool own_proc_file(int fd)
{
	struct statfs fs;
	char link[32], path[64], own[32];
	if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_MAGIC)
		return false;
	snprintf(link, sizeof link, "self/fd/%d", fd);
	snprintf(own, sizeof own, "/proc/%d/", getpid());
	ssize_t n = readlinkat(proc_dir, link, path, sizeof path - 1);
	if (n < 0)
		return true;
	path[n] = 0;
	return strncmp(path, own, strlen(own)) == 0;
}

int open_at(int dir, const char *path, int flags, u32 mode)
{
	struct open_how how = {.flags = (u64)(flags | O_CLOEXEC), .mode = mode, .resolve = RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
	if (fd < 0 && errno == ENOSYS)
		fd = openat(dir, path, flags | O_CLOEXEC, mode);
	return keep_fd(fd);
}

bool make_dirs(int dir, char *path, u32 mode)
{
	for (char *slash = path + 1;; slash++) {
		slash = strchrnul(slash, '/');
		char was = *slash;
		*slash = 0;
		bool made = mkdirat(dir, path, was ? 0755 : mode) == 0 || errno == EEXIST;
		*slash = was;
		if (!made && errno != EROFS)
			return false; /* a read-only file system says so even of what exists */
		if (!was)
			return made;
	}
}

int parent_at(int dir, char *path, bool make, char **base)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		path[--n] = 0;
	char *slash = strrchr(path, '/');
	*base = slash ? slash + 1 : path;
	if (!**base || strcmp(*base, ".") == 0 || strcmp(*base, "..") == 0) {
		errno = EINVAL;
		return -1;
	}
	if (strlen(*base) > NAME_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (!slash)
		return open_at(dir, ".", O_PATH | O_DIRECTORY, 0);
	*slash = 0;
	const char *above = slash == path ? "/" : path;
	int fd = open_at(dir, above, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 && errno == ENOENT && make && slash != path && make_dirs(dir, path, 0755))
		fd = open_at(dir, above, O_PATH | O_DIRECTORY, 0);
	return fd;
}

/* ---- stat ---- */

void w_stat(const struct stat *s, const char *target, u32 n)
{
	static const u8 kinds[16] = {[S_IFREG >> 12] = 1, [S_IFDIR >> 12] = 2, [S_IFLNK >> 12] = 3, [S_IFIFO >> 12] = 4, [S_IFSOCK >> 12] = 5, [S_IFCHR >> 12] = 6, [S_IFBLK >> 12] = 6};
	w_int(kinds[(s->st_mode >> 12) & 15], 1);
	w_int(s->st_mode & 07777, 4);
	w_int((u64)s->st_size, 8);
	w_int(s->st_uid, 4);
	w_int(s->st_gid, 4);
	w_int((u64)((int64_t)s->st_mtim.tv_sec * 1000 + s->st_mtim.tv_nsec / 1000000), 8);
	w_str(target, n);
}

static int do_stat(u32 channel, const char *path, bool follow)
{
	struct stat s;
	char target[PATH_MAX];
	ssize_t n = 0;
	int fd = open_at(AT_FDCWD, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
	if (fd < 0)
		return -1;
	int err = fstat(fd, &s) < 0 ? errno : 0;
	if (!err && S_ISLNK(s.st_mode) && (n = readlinkat(fd, "", target, sizeof target)) < 0)
		err = errno;
	close(fd);
	errno = err;
	if (err)
		return -1;
	w_begin(T_STATED, channel);
	w_stat(&s, target, (u32)n);
	w_end();
	return 1;
}

/* ---- read ---- */

struct reader {
	struct chan c;
	int fd;
	u64 at, left, sent;
};

static bool reader_pump(struct chan *c)
{
	struct reader *r = (struct reader *)c;
	u64 n = r->left < READ_MAX ? r->left : READ_MAX;
	if (n > c->credit)
		n = c->credit;
	if (!n && r->left)
		return false;
	w_begin(T_DATA, c->id);
	u8 *to = w_space((u32)n);
	ssize_t got = n ? pread(r->fd, to, n, (off_t)r->at) : 0;
	if (got > 0) {
		w_took((u32)got);
		w_end();
		r->at += (u64)got;
		r->left -= (u64)got;
		r->sent += (u64)got;
		c->credit -= (u64)got;
		return true;
	}
	int err = errno;
	w_cancel();
	if (got < 0) {
		w_errno(c->id, err);
	} else {
		w_begin(T_END, c->id);
		w_int(r->sent, 8);
		w_int(0, 1);
		w_end();
	}
	chan_close(c);
	return false;
}

static void reader_drop(struct chan *c)
{
	close(((struct reader *)c)->fd);
}

static const struct chan_ops reader_ops = {.pump = reader_pump, .drop = reader_drop};

static int do_read(u32 channel, const char *path, u64 offset, u64 length, u32 credit)
{
	struct stat s;
	int fd = open_at(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return -1;
	int err = fstat(fd, &s) < 0 ? errno : S_ISDIR(s.st_mode) ? EISDIR : !S_ISREG(s.st_mode) ? ENXIO : own_proc_file(fd) ? EACCES : 0;
	if (offset > INT64_MAX)
		err = EINVAL;
	struct reader *r = err ? NULL : chan_open(sizeof *r, channel, credit, &reader_ops);
	if (!r) {
		close(fd);
		errno = err;
		return err ? -1 : 1;
	}
	r->fd = fd;
	r->at = offset;
	r->left = length;
	return 1;
}

/* ---- the rest; each returns 0 done, 1 answered already, -1 errno ---- */

static int do_mkdir(char *path, u32 mode, bool parents)
{
	struct stat s;
	char *base;
	if (parents)
		return make_dirs(AT_FDCWD, path, mode) && stat(path, &s) == 0 ? S_ISDIR(s.st_mode) ? 0 : (errno = EEXIST, -1) : -1;
	int dir = parent_at(AT_FDCWD, path, false, &base);
	if (dir < 0)
		return errno == EINVAL ? (errno = EEXIST, -1) : -1;
	int done = mkdirat(dir, base, mode), err = errno;
	close(dir);
	errno = err;
	return done;
}

static int do_rename(char *from, char *to, bool replace)
{
	char *a, *b;
	int source = parent_at(AT_FDCWD, from, false, &a);
	if (source < 0)
		return -1;
	int target = parent_at(AT_FDCWD, to, false, &b);
	int done = target < 0 ? -1 : (int)syscall(SYS_renameat2, source, a, target, b, replace ? 0 : 1 /* RENAME_NOREPLACE */);
	int err = errno;
	close(source);
	if (target >= 0)
		close(target);
	errno = err == EEXIST && replace ? ENOTEMPTY : err;
	return done;
}

static int do_remove(u32 channel, u32 uid, u32 gid, char *path, bool recursive)
{
	char *base;
	int dir = parent_at(AT_FDCWD, path, false, &base);
	if (dir < 0)
		return -1;
	int done = unlinkat(dir, base, 0);
	if (done < 0 && errno == EISDIR)
		done = unlinkat(dir, base, AT_REMOVEDIR);
	if (done < 0 && errno == EEXIST)
		errno = ENOTEMPTY;
	if (done < 0 && errno == ENOTEMPTY && recursive) {
		remove_tree(channel, uid, gid, dir, base);
		return 1;
	}
	int err = errno;
	close(dir);
	errno = err;
	return done;
}

static int do_symlink(const char *target, char *path)
{
	char *base;
	int dir = parent_at(AT_FDCWD, path, false, &base);
	int done = dir < 0 ? -1 : symlinkat(target, dir, base), err = errno;
	if (dir >= 0)
		close(dir);
	errno = err;
	return done;
}

static int perform(u8 type, u32 channel, u32 uid, u32 gid, struct rd *r)
{
	static char path[PATH_MAX], other[PATH_MAX];
	u64 a = 0, b = 0;
	u32 credit = 0;
	switch (type) { /* what stands before the paths */
	case T_READ:
		a = rd_u64(r);
		b = rd_u64(r);
		credit = rd_u32(r);
		break;
	case T_MKDIR:
	case T_CHMOD:
		a = rd_u32(r);
		b = type == T_MKDIR ? rd_u8(r) : 0;
		break;
	case T_STAT:
	case T_RENAME:
	case T_REMOVE:
		a = rd_u8(r);
		break;
	}
	if (type == T_SYMLINK)
		rd_text(r, other, sizeof other);
	rd_path(r, path);
	if (type == T_RENAME)
		rd_path(r, other);
	if (r->bad || r->p != r->end) {
		w_error(channel, E_INVALID, EINVAL, 0, "malformed request or path");
		return 1;
	}
	switch (type) {
	case T_STAT: return do_stat(channel, path, a);
	case T_READ: return do_read(channel, path, a, b, credit);
	case T_MKDIR: return do_mkdir(path, a & 07777, b);
	case T_RENAME: return do_rename(path, other, a);
	case T_REMOVE: return do_remove(channel, uid, gid, path, a);
	case T_CHMOD: return chmod(path, a & 07777);
	default: return do_symlink(other, path);
	}
}

void files_handle(u8 type, u32 channel, struct rd *r)
{
	if (type == T_COMMIT || type == T_ABORT)
		return upload_handle(type, channel, r);
	struct rd whole = *r;
	u32 uid = rd_u32(r), gid = rd_u32(r);
	if (r->bad)
		return w_error(channel, E_INVALID, 0, 0, "malformed request");
	if (type == T_WRITE || type == T_UPLOAD)
		return upload_handle(type, channel, &whole);
	if (type == T_LIST)
		return list_open(channel, uid, gid, r);
	int done = as_user(uid, gid) ? perform(type, channel, uid, gid, r) : -1;
	int err = errno;
	as_agent();
	if (done == 0)
		w_empty(T_OK, channel);
	else if (done < 0)
		w_errno(channel, err);
}
