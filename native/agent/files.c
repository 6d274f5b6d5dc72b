/* File requests on single paths. Each acts with the file system identity of the user it names, so the kernel decides what it may
 * touch, and with paths resolved inside the sandbox. Nothing here can block for long: opens never wait, and only regular files are
 * read. Work that grows with a directory is in walk.c, in slices. */
#include "agent.h"
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

enum { PROC_MAGIC = 0x9fa0 };

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

/* ---- paths ---- */

int open_at(int dir, const char *path, int flags, u64 resolve)
{
	struct open_how how = {.flags = (u64)(flags | O_CLOEXEC), .resolve = RESOLVE_NO_MAGICLINKS | resolve};
	int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
	if (fd < 0 && errno == ENOSYS)
		fd = openat(dir, path, flags | O_CLOEXEC);
	return keep_fd(fd);
}

static bool make_dirs(int dir, char *path, u32 mode)
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
	if (!**base || dots(*base) || strlen(*base) > NAME_MAX) {
		errno = strlen(*base) > NAME_MAX ? ENAMETOOLONG : EINVAL;
		return -1;
	}
	if (slash)
		*slash = 0;
	const char *above = !slash ? "." : slash == path ? "/" : path;
	int fd = open_at(dir, above, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 && errno == ENOENT && make && above == path && make_dirs(dir, path, 0755))
		fd = open_at(dir, above, O_PATH | O_DIRECTORY, 0);
	return fd;
}

/*
 * Files of a process in /proc are for programs. The agent passes every ptrace check on itself, so /proc/1/mem and the like would open
 * for any user it acts for; and who may only look at a sandbox would read environments.
 */
static bool process_file(int fd)
{
	struct statfs fs;
	char link[32], path[64];
	if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_MAGIC)
		return false;
	snprintf(link, sizeof link, "self/fd/%d", fd);
	ssize_t n = readlinkat(proc_dir, link, path, sizeof path - 1);
	if (n < 0)
		return true;
	path[n] = 0;
	return strncmp(path, "/proc/", 6) == 0 && path[6] >= '0' && path[6] <= '9';
}

/* ---- stat ---- */

/* u8 type, u32 mode, u64 size, u32 uid, u32 gid, i64 modified ms, u32 further ns, u32 links, u64 which file, str link target */
void w_stat(const struct stat *s, const char *target, u32 n)
{
	static const u8 kinds[16] = {[S_IFREG >> 12] = 1, [S_IFDIR >> 12] = 2, [S_IFLNK >> 12] = 3, [S_IFIFO >> 12] = 4, [S_IFSOCK >> 12] = 5, [S_IFCHR >> 12] = 6, [S_IFBLK >> 12] = 6};
	u64 modified = (u64)((int64_t)s->st_mtim.tv_sec * 1000 + s->st_mtim.tv_nsec / 1000000);
	w_ints("148448448", kinds[s->st_mode >> 12 & 15], s->st_mode & 07777, (u64)s->st_size, s->st_uid, s->st_gid, modified, (u64)s->st_mtim.tv_nsec % 1000000, s->st_nlink,
	       s->st_ino ^ (u64)s->st_dev << 48);
	w_str(target, n);
}

int file_stat(struct request *q)
{
	struct stat s;
	char target[PATH_MAX];
	ssize_t n = 0;
	int fd = open_at(AT_FDCWD, q->path, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0)
		return FAILED;
	int done = fstat(fd, &s);
	if (!done && S_ISLNK(s.st_mode) && (n = readlinkat(fd, "", target, sizeof target)) < 0)
		done = -1;
	if (closing(fd, done) < 0)
		return FAILED;
	w_begin(T_STATED, q->channel);
	w_stat(&s, target, (u32)n);
	w_end();
	return ANSWERED;
}

/* ---- read ---- */

struct reader {
	struct chan c;
	int fd;
	off_t at;
	u64 left;
};

static bool reader_pump(struct chan *c)
{
	struct reader *r = (struct reader *)c;
	u64 most = r->left < c->credit ? r->left : c->credit;
	if (!most && r->left)
		return false;
	ssize_t n = most ? w_data(c->id, r->fd, r->at, most) : 0;
	if (n > 0) {
		r->at += n;
		r->left -= (u64)n;
		c->credit -= (u64)n;
		return true;
	}
	if (n < 0)
		w_errno(c->id, errno);
	else
		w_frame(T_END, c->id, "1", 0);
	chan_close(c);
	return false;
}

static void reader_drop(struct chan *c)
{
	close(((struct reader *)c)->fd);
}

static const struct chan_ops reader_ops = {.pump = reader_pump, .drop = reader_drop};

int file_read(struct request *q)
{
	struct stat s;
	int fd = open_at(AT_FDCWD, q->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return FAILED;
	int err = fstat(fd, &s) < 0 ? errno : S_ISDIR(s.st_mode) ? EISDIR : !S_ISREG(s.st_mode) ? ENXIO : process_file(fd) ? EACCES : 0;
	if (q->n[0] > INT64_MAX)
		err = EINVAL;
	errno = err;
	if (err)
		return closing(fd, FAILED);
	struct reader *r = chan_open(sizeof *r, q->channel, q->credit, &reader_ops);
	if (!r)
		return closing(fd, ANSWERED);
	r->fd = fd;
	r->at = (off_t)q->n[0];
	r->left = q->n[1];
	return ANSWERED;
}

/* ---- the rest ---- */

int file_mkdir(struct request *q)
{
	struct stat s;
	char *base;
	u32 mode = q->mode & 07777;
	if (q->n[0]) {
		if (!make_dirs(AT_FDCWD, q->path, mode) || stat(q->path, &s) < 0)
			return FAILED;
		errno = EEXIST;
		return S_ISDIR(s.st_mode) ? DONE : FAILED;
	}
	int dir = parent_at(AT_FDCWD, q->path, false, &base);
	if (dir < 0 && errno == EINVAL)
		errno = EEXIST; /* the root, or a path that ends in dots */
	return dir < 0 ? FAILED : closing(dir, mkdirat(dir, base, mode));
}

int file_rename(struct request *q)
{
	char *a, *b;
	bool replace = q->n[0];
	int from = parent_at(AT_FDCWD, q->path, false, &a);
	int to = from < 0 ? -1 : parent_at(AT_FDCWD, q->to, false, &b);
	int done = to < 0 ? -1 : (int)syscall(SYS_renameat2, from, a, to, b, replace ? 0 : 1 /* RENAME_NOREPLACE */);
	if (done < 0 && errno == EEXIST && replace)
		errno = ENOTEMPTY;
	return closing(from, closing(to, done));
}

int file_chmod(struct request *q)
{
	return chmod(q->path, q->mode & 07777);
}

int file_times(struct request *q)
{
	int64_t ms = (int64_t)q->n[0], rest = (ms % 1000 + 1000) % 1000;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (ms - rest) / 1000, .tv_nsec = rest * 1000000 + (long)q->n[1]}};
	return utimensat(AT_FDCWD, q->path, times, AT_SYMLINK_NOFOLLOW);
}

/* Another name for the same file; of a link, for the link itself. */
int file_link(struct request *q)
{
	char *a, *b;
	int from = parent_at(AT_FDCWD, q->path, false, &a);
	int to = from < 0 ? -1 : parent_at(AT_FDCWD, q->to, false, &b);
	return closing(from, closing(to, to < 0 ? -1 : linkat(from, a, to, b, 0)));
}
