/*
 * A few small files on a sandbox's disk, beside its layers, where the sandbox
 * does not see them. A start needs some inodes and blocks of the disk for a
 * moment, for what overlay tries out in its work directory; when the sandbox
 * has used up all there are, the start takes those of these files.
 */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define BLOCK 4096

/* The file 0 is the last to be made and the first to go: while it is there, all are. */
void make_spares(int disk) {
    static const char block[BLOCK];
    char name[32];
    if (faccessat(disk, "spare/0", F_OK, 0) == 0) return;
    if (mkdirat(disk, "spare", 0700) != 0 && errno != EEXIST) return;
    for (int i = SPARES - 1; i >= 0; i--) {
        snprintf(name, sizeof name, "spare/%d", i);
        int fd = openat(disk, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        /* The disk is full: they are made at a later start. */
        if (fd < 0) return;
        ssize_t n = write(fd, block, sizeof block);
        close(fd);
        if (n != (ssize_t)sizeof block) return;
    }
}

int lend_spares(int disk) {
    struct statfs room;
    char name[32];
    if (fstatfs(disk, &room) != 0) fail_errno(FAILED, "disk");
    if (room.f_ffree >= SPARES && room.f_bavail >= SPARES) return 0;
    for (int i = 0; i < SPARES; i++) {
        snprintf(name, sizeof name, "spare/%d", i);
        if (unlinkat(disk, name, 0) != 0 && errno != ENOENT) fail_errno(FAILED, name);
    }
    return 1;
}
