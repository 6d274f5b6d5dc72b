#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

void private_namespace(void) {
    if (unshare(CLONE_NEWNS) != 0) fail_errno(UNSUPPORTED, "mount-namespace");
    /* Otherwise what we mount would appear on the host. */
    if (sys_make_private("/") != 0) fail_errno(UNSUPPORTED, "mount-setattr");
}

/* Gives a mount of our own making its place. */
static void attach(int tree, const char *path) {
    if (tree < 0 || sys_move_mount(tree, path) != 0) fail_errno(FAILED, path);
    close(tree);
}

void mount_tmpfs(const char *path, const char *size) {
    int fs = sys_fsopen("tmpfs");
    if (fs < 0) fail_errno(UNSUPPORTED, "tmpfs");
    if (sys_fsconfig_string(fs, "mode", "0755") != 0 || sys_fsconfig_string(fs, "size", size) != 0)
        fail_errno(FAILED, "tmpfs");
    attach(sys_fsmount(fs, ATTR_NOSUID), path);
    close(fs);
}

void mount_clone(const char *source, const char *target, uint64_t attributes, int user_namespace) {
    int tree = sys_open_tree(source);
    if (tree < 0) fail_errno(errno == ENOSYS ? UNSUPPORTED : FAILED, source);
    if (sys_mount_setattr(tree, attributes, user_namespace) != 0) {
        /* The file system below has no idmapped mounts, or the kernel is older than they are. */
        if (user_namespace >= 0) fail_errno(UNSUPPORTED, "idmapped-mount");
        fail_errno(FAILED, source);
    }
    attach(tree, target);
}

/*
 * Overlay makes directories in the work directory as whoever mounts it, and our
 * own uid has no name on an idmapped disk: it would silently become read-only.
 */
void create_files_as(uid_t id) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    setfsuid(id);
    setfsgid(id);
    /* Leaving fsuid 0 takes the file capabilities away. */
    if (syscall(SYS_capget, &header, data) != 0) fail_errno(FAILED, "capabilities");
    for (int i = 0; i < 2; i++) data[i].effective = data[i].permitted;
    if (syscall(SYS_capset, &header, data) != 0) fail_errno(FAILED, "capabilities");
}

void mount_overlay(const char *source, const char *lower, const char *disk, const char *target) {
    char upper[4300], work[4300];
    snprintf(upper, sizeof upper, "%s/upper", disk);
    snprintf(work, sizeof work, "%s/work", disk);
    int fs = sys_fsopen("overlay");
    if (fs < 0) fail_errno(UNSUPPORTED, "overlay");
    if (sys_fsconfig_string(fs, "source", source) != 0 || sys_fsconfig_string(fs, "lowerdir", lower) != 0 || sys_fsconfig_string(fs, "upperdir", upper) != 0 ||
        sys_fsconfig_string(fs, "workdir", work) != 0 ||
        /* Whatever this host's default: directories of the image that have mounts in them keep their names. */
        sys_fsconfig_string(fs, "redirect_dir", "off") != 0)
        fail_errno(FAILED, "overlay");
    int tree = sys_fsmount(fs, ATTR_NOSUID | ATTR_NODEV);
    if (tree < 0) fail_errno(UNSUPPORTED, "overlay");
    attach(tree, target);
    close(fs);
}
