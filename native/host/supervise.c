/*
 * A job in a child, none of whose descendants outlives its failure: not one
 * that has left its process group, nor one whose parents are dead. They become
 * ours, because we are their subreaper, and so they can be found by their parent.
 */
#define _GNU_SOURCE
#include "host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A killed process may take a moment to leave the kernel; one that stands still in it is waited for no longer. */
#define ROUNDS 1000
#define ROUND_US 1000

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static pid_t parent_of(const char *pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    /* The name before it may hold anything. */
    char *end = strrchr(text, ')');
    return end == NULL || strlen(end) < 5 ? 0 : (pid_t)strtol(end + 4, NULL, 10);
}

static void kill_children(void) {
    DIR *proc = opendir("/proc");
    if (proc == NULL) return;
    for (struct dirent *d; (d = readdir(proc)) != NULL;)
        if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && parent_of(d->d_name) == getpid())
            kill((pid_t)strtol(d->d_name, NULL, 10), SIGKILL);
    closedir(proc);
}

/* Children of the killed become ours, so that killing our own again and again reaches all. */
static void end_all(void) {
    for (int i = 0; i < ROUNDS; i++) {
        kill_children();
        pid_t reaped;
        do reaped = waitpid(-1, NULL, WNOHANG);
        while (reaped > 0);
        if (reaped < 0) return;
        usleep(ROUND_US);
    }
}

_Noreturn static void give_up(pid_t child, const char *how) {
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", child);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof name - 1);
    if (n > 0 && name[n - 1] == '\n') name[n - 1] = '\0';
    end_all();
    fail(FAILED, n > 0 ? name : "the runtime", how);
}

void die_with(pid_t parent, int with) {
    if (prctl(PR_SET_PDEATHSIG, with) != 0) fail_errno(FAILED, "prctl");
    if (getppid() != parent) fail(FAILED, "run", "the caller has ended");
}

int supervise(const struct deadlines *deadlines, void (*job)(void *), void *argument) {
    sigset_t heard, before;
    sigemptyset(&heard);
    sigaddset(&heard, SIGTERM);
    sigaddset(&heard, SIGCHLD);
    die_with(getppid(), SIGTERM);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) fail_errno(FAILED, "prctl");
    int executed[2];
    if (sigprocmask(SIG_BLOCK, &heard, &before) != 0 || pipe2(executed, O_CLOEXEC) != 0) fail_errno(FAILED, "pipe");
    int signals = signalfd(-1, &heard, SFD_CLOEXEC);
    if (signals < 0) fail_errno(FAILED, "signalfd");
    pid_t self = getpid(), child = fork();
    if (child < 0) fail_errno(FAILED, "fork");
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        die_with(self, SIGKILL);
        job(argument);
        _exit(1);
    }
    close(executed[1]);
    struct pollfd sources[] = {{.fd = signals, .events = POLLIN}, {.fd = executed[0], .events = POLLIN}};
    int64_t until = now_ms() + deadlines->before_exec;
    for (;;) {
        int64_t left = until - now_ms();
        int ready = left <= 0 ? 0 : poll(sources, 2, (int)left);
        if (ready < 0 && errno != EINTR) fail_errno(FAILED, "poll");
        if (ready == 0) give_up(child, "did not end in time");
        if (sources[1].fd >= 0 && sources[1].revents != 0) {
            /* The job has become another program. */
            sources[1].fd = -1;
            until = now_ms() + deadlines->after_exec;
        }
        if (sources[0].revents == 0) continue;
        struct signalfd_siginfo info;
        if (read(signals, &info, sizeof info) != (ssize_t)sizeof info) continue;
        if (info.ssi_signo == SIGTERM) give_up(child, "was told to end");
        int status;
        if (waitpid(child, &status, WNOHANG) != child) continue;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
        end_all();
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}
