#define _GNU_SOURCE
#include "host.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture: the calls are younger than the common table. */
#define NR_OPEN_TREE 428
#define NR_MOVE_MOUNT 429
#define NR_FSOPEN 430
#define NR_FSCONFIG 431
#define NR_FSMOUNT 432
#define NR_MOUNT_SETATTR 442

#define FSOPEN_CLOEXEC_ 1
#define FSMOUNT_CLOEXEC_ 1
#define FSCONFIG_SET_FLAG_ 0
#define FSCONFIG_SET_STRING_ 1
#define FSCONFIG_CMD_CREATE_ 6
#define OPEN_TREE_CLONE_ 1
#define MOVE_MOUNT_F_EMPTY_PATH_ 4
#define MOUNT_ATTR_IDMAP_ 0x00100000
#define PROPAGATION_PRIVATE (1 << 18)
#define RECURSIVE 0x8000

struct attributes {
    uint64_t set, clear, propagation, user_namespace;
};

int sys_fsopen(const char *type) { return (int)syscall(NR_FSOPEN, type, FSOPEN_CLOEXEC_); }

int sys_fsconfig_string(int fs, const char *key, const char *value) {
    return (int)syscall(NR_FSCONFIG, fs, FSCONFIG_SET_STRING_, key, value, 0);
}

int sys_fsconfig_flag(int fs, const char *key) {
    return (int)syscall(NR_FSCONFIG, fs, FSCONFIG_SET_FLAG_, key, NULL, 0);
}

int sys_fsmount(int fs, uint64_t attributes) {
    if (syscall(NR_FSCONFIG, fs, FSCONFIG_CMD_CREATE_, NULL, NULL, 0) != 0) return -1;
    return (int)syscall(NR_FSMOUNT, fs, FSMOUNT_CLOEXEC_, attributes);
}

int sys_open_tree(const char *path) {
    return (int)syscall(NR_OPEN_TREE, AT_FDCWD, path, OPEN_TREE_CLONE_ | O_CLOEXEC);
}

int sys_move_mount(int tree, const char *path) {
    return (int)syscall(NR_MOVE_MOUNT, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH_);
}

int sys_mount_setattr(int tree, uint64_t set, int user_namespace) {
    struct attributes a = {.set = set};
    if (user_namespace >= 0) {
        a.set |= MOUNT_ATTR_IDMAP_;
        a.user_namespace = (uint64_t)user_namespace;
    }
    return (int)syscall(NR_MOUNT_SETATTR, tree, "", AT_EMPTY_PATH, &a, sizeof a);
}

int sys_make_private(const char *path) {
    struct attributes a = {.propagation = PROPAGATION_PRIVATE};
    return (int)syscall(NR_MOUNT_SETATTR, AT_FDCWD, path, RECURSIVE, &a, sizeof a);
}
