/*
 * A root as a sandbox may have left it. Nothing of the sandbox runs while it is put right, so nothing in it
 * changes under our hands; links lead no further than the root. What is in the way is renamed, not removed:
 * it is the owner's.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the runtime reads of these files it takes line by line, and hands on as strings. */
#define MOST_BYTES (1 << 20)
#define LONGEST_LINE (32 << 10)
#define NAMES_TRIED 16

static int open_in(int root, const char *path, int flags) {
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static void put_aside(int directory, const char *name) {
    char aside[64];
    uint32_t number;
    for (int i = 0; i < NAMES_TRIED; i++) {
        /* A name that the sandbox cannot have taken before. */
        if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) fail_errno(FAILED, "random");
        snprintf(aside, sizeof aside, "%s.aside-%08x", name, number);
        if (renameat2(directory, name, directory, aside, RENAME_NOREPLACE) == 0) return;
        if (errno != EEXIST) fail_errno(FAILED, name);
    }
    fail(FAILED, name, "cannot be put aside");
}

static bool is_link(int directory, const char *name) {
    struct stat st;
    return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

static bool is_text(int fd) {
    char piece[4096];
    size_t line = 0, all = 0;
    ssize_t n;
    while ((n = read(fd, piece, sizeof piece)) > 0) {
        if ((all += (size_t)n) > MOST_BYTES) return false;
        for (ssize_t i = 0; i < n; i++) {
            line = piece[i] == '\n' ? 0 : line + 1;
            if (piece[i] == '\0' || line > LONGEST_LINE) return false;
        }
    }
    return n == 0;
}

/* Whether what is at a path can be read as text, by somebody who follows links and waits for whatever he opens. */
static bool is_readable_text(int root, const char *path) {
    struct stat st;
    int place = open_in(root, path, O_PATH);
    bool regular = place >= 0 && fstat(place, &st) == 0 && S_ISREG(st.st_mode);
    if (place >= 0) close(place);
    if (!regular) return false;
    int fd = open_in(root, path, O_RDONLY | O_NONBLOCK);
    bool text = fd >= 0 && is_text(fd);
    if (fd >= 0) close(fd);
    return text;
}

void clear_text(int root, const char *directory, const char *name) {
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int place = open_in(root, directory, O_PATH | O_DIRECTORY);
    if (place < 0) {
        /* A link that leads nowhere now may lead somewhere when more is mounted: through /proc even out of what we can see. */
        if (is_link(root, directory)) put_aside(root, directory);
        return;
    }
    if (fstatat(place, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !is_readable_text(root, path)) put_aside(place, name);
    close(place);
}
