#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int report_fd = 2;

void fail_to(int fd) { report_fd = fd; }

void fail(enum kind kind, const char *subject, const char *detail) {
    static const char *const names[] = {"invalid", "unsupported", "exhausted", "failed"};
    dprintf(report_fd, "%s\t%s\t%s\n", names[kind], subject, detail);
    exit(70 + (int)kind);
}

void fail_errno(enum kind kind, const char *subject) {
    int error = errno;
    if (error == ENOSPC || error == EDQUOT || error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN)
        kind = EXHAUSTED;
    fail(kind, subject, strerror(error));
}
