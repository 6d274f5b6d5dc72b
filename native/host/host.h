/*
 * fiberbox-host: the mount and namespace work that an ordinary program cannot
 * do for itself. Set-up only: each subcommand does one job and ends.
 *
 * Failures are one line on standard error, `<kind>\t<subject>\t<detail>`,
 * where kind is what the caller can do about it:
 *   invalid      the arguments are wrong
 *   unsupported  this machine cannot do it, however often one asks
 *   exhausted    something is used up at the moment
 *   failed       anything else
 */
#ifndef FIBERBOX_HOST_H
#define FIBERBOX_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* fail.c */
enum kind { INVALID, UNSUPPORTED, EXHAUSTED, FAILED };
/* Reports errno's text as the detail and exits; running out of something is always EXHAUSTED. */
_Noreturn void fail_errno(enum kind kind, const char *subject);
/* Reports a detail of our own and exits. */
_Noreturn void fail(enum kind kind, const char *subject, const char *detail);
/* Keeps the pipe to the caller across the loss of descriptor 2. */
void fail_to(int fd);

/* syscalls.c: mount calls that C libraries before glibc 2.36 do not wrap. */
int sys_fsopen(const char *type);
int sys_fsconfig_string(int fs, const char *key, const char *value);
int sys_fsconfig_flag(int fs, const char *key);
int sys_fsmount(int fs, uint64_t attributes);
int sys_open_tree(const char *path);
int sys_move_mount(int tree, const char *path);
int sys_mount_setattr(int tree, uint64_t set, int user_namespace);
int sys_make_private(const char *path);

/* Attributes of a mount, as in mount_setattr(2). */
#define ATTR_RDONLY 0x1
#define ATTR_NOSUID 0x2
#define ATTR_NODEV 0x4
#define ATTR_NOEXEC 0x8

/* userns.c */
struct sysctl {
    const char *name, *value;
};
/*
 * Makes a user namespace that maps 65536 ids from base on, writes the given
 * /proc/sys/user limits in it, binds it at `path` and returns a descriptor of it.
 */
int make_user_namespace(uint32_t base, const struct sysctl *limits, size_t count, const char *path);

/* disk.c */
struct disk {
    const char *file;      /* the image; made when it does not exist */
    const char *templates; /* directory of empty images to copy from */
    const char *record;    /* file to write the loop device's number to */
    uint64_t bytes, inodes;
    int reserved; /* whether the host's disk shall keep all of its room free for it */
};
/* Where its empty image is kept. */
void template_path(const struct disk *disk, char *path, size_t size);
/* Inodes of a disk that are not the sandbox's own: the spares and their directory, upper, work and what overlay makes in it. */
#define SPARES 8
#define OWN_INODES (SPARES + 4)
/* Mounts the disk at `path`, owned by the user namespace, with directories `upper` and `work` in it. */
void mount_disk(const struct disk *disk, const char *node, const char *path, int user_namespace);

/* spares.c: `disk` is a descriptor of the disk's root directory */
/* Makes those that are missing, as far as there is room. */
void make_spares(int disk);
/* Removes them if the disk is nearly full, and returns whether it did. */
int lend_spares(int disk);

/* mounts.c */
void private_namespace(void);
void mount_tmpfs(const char *path, const char *size);
/* Mounts what is at `source` (not what is mounted below it) at `target`, owned by the user namespace if that is >= 0. */
void mount_clone(const char *source, const char *target, uint64_t attributes, int user_namespace);
/*
 * Mounts layers of which `disk` holds the directories `upper` and `work`; `source` is what the mount table calls it.
 * To be called as whoever is root in them.
 */
void mount_overlay(const char *source, const char *lower, const char *disk, const char *target);
/* From now on files are made by this id of the host, with all that root may do. */
void create_files_as(uid_t id);

/* root.c: `root` is a descriptor of the root directory */
/* Puts a file aside, or the link that stands for its directory, unless it is missing or small and readable text. */
void clear_text(int root, const char *directory, const char *name);

/* supervise.c */
struct deadlines {
    /* Milliseconds until the job must have become another program by exec, and from then on until that must have ended. */
    uint32_t before_exec, after_exec;
};
/*
 * Runs a job in a child and returns how that ended, as a shell would. Whatever the job has started is
 * killed when it fails or takes too long, when our parent dies, or when we get a SIGTERM.
 */
int supervise(const struct deadlines *deadlines, void (*job)(void *), void *argument);
/* Has the kernel send us a signal when our parent ends. */
void die_with(pid_t parent, int signal);

/* run.c, probe.c, disk.c */
int run_main(int argc, char **argv);
int probe_main(int argc, char **argv);
/* fiberbox-host sync DIRECTORY: brings all that was written to its file system to the disk. */
int sync_main(int argc, char **argv);
/* kill.c */
int kill_main(int argc, char **argv);

#endif
