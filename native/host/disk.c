#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LOOP_MAJOR 7
#define MISC_MAJOR 10
#define LOOP_CONTROL_MINOR 237
#define ATTEMPTS 1000
#define RELEASE_WAIT_MS 10000
#define REPAIR_BLOCKS 256
/* INCOMPAT_RECOVER of ext4. */
#define NEEDS_RECOVERY 4
/* The smallest there is; it comes on top of what the sandbox may use. */
#define JOURNAL_BYTES (4 << 20)

static int run_program(const char *const argv[]) {
    pid_t pid = fork();
    if (pid < 0) fail_errno(FAILED, "fork");
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) fail_errno(FAILED, argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/*
 * An empty file system, in a sparse file. With a journal: when the host's own disk is full, what the kernel cannot write
 * of this one must not leave it half changed. A small one, which is a hole as well until it is used.
 */
static void format(const char *path, const struct disk *disk) {
    char inodes[32];
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) fail_errno(FAILED, path);
    if (ftruncate(fd, (off_t)(disk->bytes + JOURNAL_BYTES)) != 0) fail_errno(FAILED, path);
    close(fd);
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)disk->inodes + OWN_INODES);
    const char *argv[] = {"mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-N", inodes,
                    "-O", "has_journal,^resize_inode", "-J", "size=4", "-E",
                    "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", path, NULL};
    int code = run_program(argv);
    if (code == 0) return;
    unlink(path);
    if (code == 127) fail(UNSUPPORTED, "disk-limit", "mkfs.ext4 is not installed");
    fail(INVALID, "disk", "mkfs.ext4 refused this size or number of inodes");
}

/* By hand: copy_file_range(2) does not copy from one file system to another, and this is little. */
static void copy_range(int from, int to, off_t at, off_t end) {
    static char buffer[64 * 1024];
    while (at < end) {
        size_t most = end - at < (off_t)sizeof buffer ? (size_t)(end - at) : sizeof buffer;
        ssize_t n = pread(from, buffer, most, at);
        ssize_t copied = n <= 0 ? n : pwrite(to, buffer, (size_t)n, at);
        if (copied <= 0) fail_errno(FAILED, "disk");
        at += copied;
    }
}

/* Copies what is not a hole; a fresh 2 GiB image has some 200 kB of that. */
static void copy_sparse(int from, int to) {
    struct stat st;
    if (fstat(from, &st) != 0 || ftruncate(to, st.st_size) != 0) fail_errno(FAILED, "disk");
    for (off_t data = 0; (data = lseek(from, data, SEEK_DATA)) >= 0;) {
        off_t hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0) fail_errno(FAILED, "disk");
        copy_range(from, to, data, hole);
        data = hole;
    }
    if (errno != ENXIO) fail_errno(FAILED, "disk");
}

void template_path(const struct disk *disk, char *path, size_t size) {
    /* Another name for another way of making them. */
    snprintf(path, size, "%s/2-%llu-%llu.ext4", disk->templates, (unsigned long long)disk->bytes,
             (unsigned long long)disk->inodes);
}

static int open_template(const struct disk *disk) {
    char path[4096], fresh[4200];
    template_path(disk, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT) return fd;
    snprintf(fresh, sizeof fresh, "%s.%d", path, getpid());
    unlink(fresh);
    format(fresh, disk);
    /* Several may do this at once; the last one wins and all are alike. */
    if (rename(fresh, path) != 0) fail_errno(FAILED, path);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void create_image(const struct disk *disk) {
    char fresh[4200];
    int from = open_template(disk);
    if (from < 0) fail_errno(FAILED, disk->templates);
    snprintf(fresh, sizeof fresh, "%s.new", disk->file);
    int to = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) fail_errno(FAILED, fresh);
    if (disk->reserved && fallocate(to, 0, 0, (off_t)(disk->bytes + JOURNAL_BYTES)) != 0) {
        int error = errno;
        unlink(fresh);
        errno = error;
        fail_errno(error == EOPNOTSUPP ? UNSUPPORTED : FAILED, "disk");
    }
    copy_sparse(from, to);
    close(from);
    close(to);
    if (rename(fresh, disk->file) != 0) fail_errno(FAILED, disk->file);
}

/* A journal that was given up, because something could not be written, leaves the superblock marked, or itself to be replayed. */
static void check_image(int backing, const struct disk *disk) {
    struct statfs host;
    uint16_t state = 0, incompatible = 0;
    if (pread(backing, &state, sizeof state, 1024 + 58) != sizeof state ||
        pread(backing, &incompatible, sizeof incompatible, 1024 + 96) != sizeof incompatible)
        fail_errno(FAILED, disk->file);
    if ((state & 3) == 1 && (incompatible & NEEDS_RECOVERY) == 0) return;
    const char *argv[] = {"e2fsck", "-p", "-f", disk->file, NULL};
    int code = run_program(argv);
    if ((code & ~3) == 0) return;
    if (fstatfs(backing, &host) == 0 && host.f_bavail < REPAIR_BLOCKS)
        fail(EXHAUSTED, "disk", "the host's disk is too full for the file system to be mended");
    fail(FAILED, "disk", "the file system is damaged and e2fsck could not mend it");
}

/*
 * A lock that the loop device keeps as long as it lives, because it holds the
 * same open file. So an image is never mounted while an earlier machine's mount
 * of it is still being written out.
 */
static int open_locked(const char *file) {
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) fail_errno(FAILED, file);
    for (int i = 0; i < RELEASE_WAIT_MS; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
        if (errno != EWOULDBLOCK) fail_errno(FAILED, file);
        usleep(1000);
    }
    fail(EXHAUSTED, "disk", "still in use by an earlier machine");
}

/* Tells the caller which device to wait for when the machine has ended. */
static void record_loop(const char *path, int number) {
    FILE *f = fopen(path, "we");
    if (f == NULL || fprintf(f, "%d\n", number) < 0 || fclose(f) != 0) fail_errno(FAILED, path);
}

/*
 * Attaches the image to a free loop device that vanishes with its last user.
 * Device nodes are made by us at `node`, because a container's /dev often has none.
 */
static void attach_loop(int backing, const struct disk *disk, const char *node) {
    struct loop_config config = {.info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    if (mknod(node, S_IFCHR | 0600, makedev(MISC_MAJOR, LOOP_CONTROL_MINOR)) != 0)
        fail_errno(UNSUPPORTED, "loop-device");
    int control = open(node, O_RDWR | O_CLOEXEC);
    if (control < 0) fail_errno(UNSUPPORTED, "loop-device");
    unlink(node);
    config.fd = (uint32_t)backing;
    snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", disk->file);
    for (int i = 0; i < ATTEMPTS; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0) fail_errno(UNSUPPORTED, "loop-device");
        if (mknod(node, S_IFBLK | 0600, makedev(LOOP_MAJOR, (unsigned)number)) != 0)
            fail_errno(UNSUPPORTED, "loop-device");
        int loop = open(node, O_RDWR | O_CLOEXEC);
        if (loop < 0) fail_errno(UNSUPPORTED, "loop-device");
        if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) {
            close(backing);
            close(control);
            record_loop(disk->record, number);
            /* `loop` stays open until exec: an autoclear device detaches when nobody uses it. */
            return;
        }
        /* Somebody else took it between the two calls. */
        if (errno != EBUSY) fail_errno(UNSUPPORTED, "loop-device");
        close(loop);
        unlink(node);
    }
    fail(EXHAUSTED, "loop-device", "no free loop device");
}

static void make_directory(int at, const char *name, mode_t mode) {
    if (mkdirat(at, name, mode) != 0 && errno != EEXIST) fail_errno(FAILED, name);
}

void mount_disk(const struct disk *disk, const char *node, const char *path, int user_namespace) {
    if (access(disk->file, F_OK) != 0) create_image(disk);
    int backing = open_locked(disk->file);
    check_image(backing, disk);
    attach_loop(backing, disk, node);
    int fs = sys_fsopen("ext4");
    if (fs < 0) fail_errno(UNSUPPORTED, "ext4");
    /* Without noinit_itable a kernel thread would write every inode table and fill the sparse file. */
    if (sys_fsconfig_string(fs, "source", node) != 0 || sys_fsconfig_flag(fs, "noinit_itable") != 0 ||
        sys_fsconfig_string(fs, "errors", "remount-ro") != 0 ||
        /* What could not be written is told to whoever writes next, not kept from them. */
        sys_fsconfig_string(fs, "data_err", "abort") != 0)
        fail_errno(FAILED, "ext4");
    int tree = sys_fsmount(fs, ATTR_NOSUID | ATTR_NODEV);
    if (tree < 0) fail_errno(FAILED, "ext4");
    close(fs);
    /* Before the mapping: afterwards our own uid has no name in there. */
    make_directory(tree, "upper", 0755);
    make_directory(tree, "work", 0700);
    make_spares(tree);
    if (sys_mount_setattr(tree, 0, user_namespace) != 0) fail_errno(UNSUPPORTED, "idmapped-mount");
    if (sys_move_mount(tree, path) != 0) fail_errno(FAILED, path);
    close(tree);
}

int sync_main(int argc, char **argv) {
    if (argc != 1) fail(INVALID, "sync", "usage: sync DIRECTORY");
    int fd = open(argv[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) != 0) fail_errno(FAILED, "disk");
    /* An overlay does not pass on what could not be written below it: the disk has given up its journal then, and
     * takes no change any more. This one is seen by nobody inside. A full disk, or one without attributes, is no loss. */
    if (fsetxattr(fd, "trusted.fiberbox.synced", "", 0, 0) != 0 && (errno == EROFS || errno == EIO)) fail_errno(FAILED, "disk");
    return 0;
}
