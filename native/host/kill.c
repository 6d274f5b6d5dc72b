/*
 * Kills what a program has started, from outside and while its container stands still: all that is below the program's supervisor.
 * The agent does the same from inside, and cannot come to an end with thousands that fork as fast as it kills.
 */
#include "host.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum below { UNKNOWN, NO, YES };

struct task {
    pid_t pid, parent;
    enum below below;
};

static struct task *tasks;
static size_t count;

static int by_pid(const void *a, const void *b) {
    const struct task *x = a, *y = b;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

static struct task *find(pid_t pid) {
    struct task key = {.pid = pid};
    return bsearch(&key, tasks, count, sizeof key, by_pid);
}

static pid_t number(const char *text) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *end != 0 || value <= 0 || value > INT32_MAX) fail(INVALID, "kill", "not a process");
    return (pid_t)value;
}

/* A line of a file of a process that may have ended. */
static bool line_of(pid_t pid, const char *name, const char *key, char *line, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    FILE *f = fopen(path, "re");
    if (f == NULL) return false;
    bool found = false;
    while (!found && fgets(line, (int)size, f) != NULL) found = strncmp(line, key, strlen(key)) == 0;
    fclose(f);
    return found;
}

static pid_t parent_of(pid_t pid) {
    char line[1024];
    if (!line_of(pid, "stat", "", line, sizeof line)) return 0;
    const char *end = strrchr(line, ')'); /* the name before it may hold anything */
    return end != NULL && strlen(end) > 4 ? (pid_t)strtol(end + 4, NULL, 10) : 0;
}

/* Its number in the innermost of its namespaces. */
static pid_t inner(pid_t pid) {
    char line[1024];
    if (!line_of(pid, "status", "NSpid:", line, sizeof line)) return 0;
    const char *last = strrchr(line, '\t');
    return last == NULL ? 0 : (pid_t)strtol(last, NULL, 10);
}

static void read_tasks(const char *file) {
    FILE *f = fopen(file, "re");
    size_t room = 0;
    int pid;
    if (f == NULL) fail_errno(FAILED, file);
    while (fscanf(f, "%d", &pid) == 1) {
        if (count == room) {
            room = room == 0 ? 1024 : room * 2;
            struct task *more = realloc(tasks, room * sizeof *tasks);
            if (more == NULL) fail_errno(FAILED, "kill");
            tasks = more;
        }
        tasks[count++] = (struct task){.pid = pid, .parent = parent_of(pid)};
    }
    fclose(f);
    qsort(tasks, count, sizeof *tasks, by_pid);
}

/* Up to whoever is known, and down again: each way is gone once. */
static enum below settle(struct task *t) {
    enum below found = NO;
    size_t steps = 0;
    for (struct task *up = t; up != NULL && steps <= count; up = find(up->parent), steps++) {
        if (up->below == UNKNOWN) continue;
        found = up->below;
        break;
    }
    for (struct task *up = t; up != NULL && up->below == UNKNOWN; up = find(up->parent)) up->below = found;
    return t->below;
}

int kill_main(int argc, char **argv) {
    if (argc != 3) fail(INVALID, "kill", "usage: kill AGENT SUPERVISOR FILE");
    pid_t agent = number(argv[0]), supervisor = number(argv[1]);
    read_tasks(argv[2]);
    struct task *root = NULL;
    for (size_t i = 0; i < count && root == NULL; i++)
        if (tasks[i].parent == agent && inner(tasks[i].pid) == supervisor) root = &tasks[i];
    if (root == NULL) return 0; /* it has ended */
    struct task *top = find(agent);
    if (top != NULL) top->below = NO;
    root->below = YES;
    for (size_t i = 0; i < count; i++)
        if (settle(&tasks[i]) == YES && &tasks[i] != root) kill(tasks[i].pid, SIGKILL);
    return 0;
}
