#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* In the child, which owns the namespace: its caps there let it write what a later inhabitant must not. */
static void write_limits(const struct sysctl *limits, size_t count) {
    char path[128];
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "/proc/sys/user/%s", limits[i].name);
        /* An older kernel may not count this kind of thing. */
        if (write_file(path, limits[i].value) != 0 && errno != ENOENT) fail_errno(FAILED, path);
    }
}

/*
 * What the kernel counts per user it also counts for the creator of the user
 * namespace. As the sandbox's own root, which nobody else on the host is, the
 * sandbox as a whole gets one user's share, and takes none of host root's.
 */
static void become_creator(uint32_t id) {
    if (setgroups(0, NULL) != 0 || setresgid(id, id, id) != 0 || setresuid(id, id, id) != 0)
        fail_errno(UNSUPPORTED, "user-namespace");
}

static void child(uint32_t base, const int ready[2], const int mapped[2], const struct sysctl *limits, size_t count) {
    char byte = 0;
    become_creator(base);
    if (unshare(CLONE_NEWUSER) != 0) fail_errno(UNSUPPORTED, "user-namespace");
    if (write(ready[1], &byte, 1) != 1 || read(mapped[0], &byte, 1) != 1) _exit(1);
    write_limits(limits, count);
    if (write(ready[1], &byte, 1) != 1) _exit(1);
    /* Until it is killed, or the end of the pipe tells that nobody is left to do so. */
    while (read(mapped[0], &byte, 1) > 0) continue;
}

static void await(int fd, pid_t pid) {
    char byte;
    if (read(fd, &byte, 1) == 1) return;
    /* The child has said why. */
    int status = 0;
    waitpid(pid, &status, 0);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : 1);
}

int make_user_namespace(uint32_t base, const struct sysctl *limits, size_t count, const char *path) {
    int ready[2], mapped[2];
    char file[64], map[64];
    if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(mapped, O_CLOEXEC) != 0) fail_errno(FAILED, "pipe");
    pid_t pid = fork();
    if (pid < 0) fail_errno(FAILED, "fork");
    if (pid == 0) {
        close(ready[0]);
        close(mapped[1]);
        child(base, ready, mapped, limits, count);
        _exit(0);
    }
    close(ready[1]);
    close(mapped[0]);
    await(ready[0], pid);
    snprintf(map, sizeof map, "0 %u 65536\n", base);
    snprintf(file, sizeof file, "/proc/%d/uid_map", pid);
    if (write_file(file, map) != 0) fail_errno(UNSUPPORTED, "user-namespace");
    snprintf(file, sizeof file, "/proc/%d/gid_map", pid);
    if (write_file(file, map) != 0) fail_errno(UNSUPPORTED, "user-namespace");
    if (write(mapped[1], "", 1) != 1) fail_errno(FAILED, "pipe");
    await(ready[0], pid);

    snprintf(file, sizeof file, "/proc/%d/ns/user", pid);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    int place = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || place < 0) fail_errno(FAILED, path);
    close(place);
    int tree = sys_open_tree(file);
    if (tree < 0 || sys_move_mount(tree, path) != 0) fail_errno(UNSUPPORTED, "user-namespace");
    close(tree);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
    close(mapped[1]);
    return fd;
}
