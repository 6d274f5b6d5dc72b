/*
 * fiberbox-host run WORD... -- PROGRAM ARG...
 *
 * Stages a sandbox's root in a private mount namespace and becomes the OCI
 * runtime, so that nothing ever appears in the host's mount table and all of it
 * vanishes with the container. Words, each with its values:
 *
 *   deadlines STAGE PROGRAM  milliseconds for staging, and for PROGRAM to end
 *   dir PATH                 the sandbox's directory, where its files are made; becomes the working directory
 *   stage PATH               an existing directory to hide behind the stage; must not be above any other path
 *   ids BASE                 the first of 65536 host ids
 *   limit NAME VALUE         a /proc/sys/user limit of the user namespace
 *   disk BYTES INODES        the writable disk, in `disk.ext4`; its loop device's number goes to `loop`
 *   reserve 0|1              whether the host's disk shall keep all of the disk's room free for it from the beginning
 *   templates PATH           where empty disks are kept
 *   lower PATH               a read-only layer of the root, upper ones first
 *   tree SOURCE TARGET       a host directory seen read-only in the root, owned by the sandbox's root
 *   file SOURCE TARGET       a host file seen read-only in the root, as it is
 *   empty TARGET             an empty read-only directory in the root, where there is one to hide
 *   socket PATH              a unix socket, bound and listened on as descriptor 3 of PROGRAM
 *   warm PATH                a control group's list of processes that a child of ours may join; see `warm_groups`
 *
 * On the stage PROGRAM finds `root`, and `userns`, the sandbox's user namespace.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define MANY 32
#define OPEN_FILES 65536
/* The kernel stays ready for about one grace period; a runtime on a busy machine takes a tenth of a second. */
#define WARM_MOVES 25
#define WARM_PAUSE_US 4000

struct placement {
    enum { TREE, ONE_FILE, EMPTY } what;
    const char *source, *target;
};

struct plan {
    const char *dir, *socket, *warm;
    char *stage; /* without links in it */
    uint32_t ids;
    struct disk disk;
    struct sysctl limits[MANY];
    const char *lowers[MANY];
    struct placement placements[MANY];
    size_t limit_count, lower_count, placement_count;
    struct deadlines deadlines;
    char **program;
};

static uint64_t number(const char *word, const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-') fail(INVALID, word, "not a number");
    return value;
}

static size_t next(size_t *count, const char *word) {
    if (*count == MANY) fail(INVALID, word, "too many");
    return (*count)++;
}

static void parse(struct plan *plan, int argc, char **argv) {
    int i = 0;
    while (i < argc && strcmp(argv[i], "--") != 0) {
        const char *word = argv[i++];
        int values = strcmp(word, "limit") == 0 || strcmp(word, "disk") == 0 || strcmp(word, "tree") == 0 ||
                             strcmp(word, "file") == 0 || strcmp(word, "deadlines") == 0
                         ? 2
                         : 1;
        if (argc - i < values) fail(INVALID, word, "a value is missing");
        const char *a = argv[i], *b = values == 2 ? argv[i + 1] : NULL;
        i += values;
        if (strcmp(word, "dir") == 0) plan->dir = a;
        else if (strcmp(word, "stage") == 0) plan->stage = realpath(a, NULL);
        else if (strcmp(word, "socket") == 0) plan->socket = a;
        else if (strcmp(word, "warm") == 0) plan->warm = a;
        else if (strcmp(word, "ids") == 0) plan->ids = (uint32_t)number(word, a);
        else if (strcmp(word, "reserve") == 0) plan->disk.reserved = number(word, a) != 0;
        else if (strcmp(word, "templates") == 0) plan->disk.templates = a;
        else if (strcmp(word, "limit") == 0) plan->limits[next(&plan->limit_count, word)] = (struct sysctl){a, b};
        else if (strcmp(word, "lower") == 0) plan->lowers[next(&plan->lower_count, word)] = a;
        else if (strcmp(word, "disk") == 0) plan->disk.bytes = number(word, a), plan->disk.inodes = number(word, b);
        else if (strcmp(word, "deadlines") == 0)
            plan->deadlines = (struct deadlines){(uint32_t)number(word, a), (uint32_t)number(word, b)};
        else if (strcmp(word, "tree") == 0)
            plan->placements[next(&plan->placement_count, word)] = (struct placement){TREE, a, b};
        else if (strcmp(word, "file") == 0)
            plan->placements[next(&plan->placement_count, word)] = (struct placement){ONE_FILE, a, b};
        else if (strcmp(word, "empty") == 0)
            plan->placements[next(&plan->placement_count, word)] = (struct placement){EMPTY, NULL, a};
        else fail(INVALID, word, "unknown word");
    }
    if (i + 1 >= argc) fail(INVALID, "run", "no program after --");
    plan->program = argv + i + 1;
    if (!plan->dir || !plan->stage || !plan->socket || !plan->disk.templates || plan->lower_count == 0 ||
        plan->disk.bytes == 0 || plan->disk.inodes == 0 || plan->deadlines.after_exec == 0)
        fail(INVALID, "run", "deadlines, dir, stage, socket, disk, templates and lower are needed");
    /* Ids of the host itself must never be what a sandbox's root becomes. */
    if (plan->ids < 65536) fail(INVALID, "ids", "must not be ids of the host");
}

static const char *under(const char *stage, const char *name) {
    char *path;
    if (asprintf(&path, "%s/%s", stage, name) < 0) fail(EXHAUSTED, "memory", name);
    return path;
}

static const char *directory(const char *stage, const char *name) {
    const char *path = under(stage, name);
    if (mkdir(path, 0755) != 0) fail_errno(FAILED, path);
    return path;
}

static int open_directory(const char *path) {
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail_errno(FAILED, path);
    return fd;
}

/* Makes the descriptor an agent accepts its service's connections on, and keeps it out of the way of 3. */
static int listen_on(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) fail(INVALID, "socket", "the path is too long");
    strcpy(address.sun_path, path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0)
        fail_errno(FAILED, path);
    return fd;
}

static void mount_root(const struct plan *plan, int user_namespace, const char *root) {
    char lower[8192] = "", name[32];
    size_t used = 0;
    for (size_t i = 0; i < plan->lower_count; i++) {
        snprintf(name, sizeof name, "lower%zu", i);
        const char *path = directory(plan->stage, name);
        mount_clone(plan->lowers[i], path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, user_namespace);
        used += (size_t)snprintf(lower + used, sizeof lower - used, "%s%s", i == 0 ? "" : ":", path);
        if (used >= sizeof lower) fail(INVALID, "lower", "too many");
    }
    const char *disk = directory(plan->stage, "disk");
    mount_disk(&plan->disk, under(plan->stage, "loop"), disk, user_namespace);
    /* By the sandbox's name: so it can be seen who else has it mounted. */
    const char *slash = strrchr(plan->dir, '/');
    int place = open_directory(disk);
    create_files_as(plan->ids);
    int lent = lend_spares(place);
    mount_overlay(slash == NULL ? plan->dir : slash + 1, lower, disk, root);
    int top = open_directory(root);
    /* Runtimes read these before the first program runs. */
    clear_text(top, "etc", "passwd");
    clear_text(top, "etc", "group");
    close(top);
    if (lent) make_spares(place);
    close(place);
    create_files_as(0);
}

/*
 * Opens a target in the root, following no link: the sandbox may have replaced
 * a directory on its disk with a link to somewhere else before it was stopped.
 */
static void place(const struct placement *p, const char *root, const char *empty, int user_namespace) {
    const char *target = under(root, p->target);
    struct stat st;
    char resolved[PATH_MAX];
    if (lstat(target, &st) != 0 || realpath(target, resolved) == NULL) {
        if (p->what == EMPTY && errno == ENOENT) return;
        fail_errno(FAILED, p->target);
    }
    if (strcmp(resolved, target) != 0) fail(FAILED, p->target, "is behind a symbolic link");
    uint64_t attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV;
    if (p->what == TREE) mount_clone(p->source, target, attributes, user_namespace);
    else if (p->what == ONE_FILE) mount_clone(p->source, target, attributes, -1);
    else mount_clone(empty, target, attributes | ATTR_NOEXEC, -1);
}

/*
 * Inherited by everything inside, and the same whatever the service itself may
 * use. Raising a limit over the service's own takes CAP_SYS_RESOURCE; without it the service's is the most there is.
 */
static void limit_resources(void) {
    static const struct {
        __rlimit_resource_t which;
        rlim_t soft, hard;
    } limits[] = {
        {RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES},
        /* Not 0: with a core_pattern that is a pipe only 1 keeps the kernel from starting the host's helper. */
        {RLIMIT_CORE, 1, 1},
        {RLIMIT_STACK, 8 << 20, RLIM_INFINITY},
        {RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY},
        /* Control groups bound these two. */
        {RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_MEMLOCK, 8 << 20, 8 << 20},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit wanted = {limits[i].soft, limits[i].hard}, own;
        if (setrlimit(limits[i].which, &wanted) == 0) continue;
        if (errno != EPERM || getrlimit(limits[i].which, &own) != 0) fail_errno(FAILED, "rlimit");
        if (wanted.rlim_max > own.rlim_max) wanted.rlim_max = own.rlim_max;
        if (wanted.rlim_cur > wanted.rlim_max) wanted.rlim_cur = wanted.rlim_max;
        if (setrlimit(limits[i].which, &wanted) != 0) fail_errno(FAILED, "rlimit");
    }
}

/*
 * The kernel moves a process into a control group only after a grace period of
 * RCU, some 10 ms, unless it has moved one shortly before. So that the runtime
 * need not stand still for it, a child waits meanwhile, and moves again and
 * again until the runtime has ended or must be done. It only ever moves itself.
 */
static void warm_groups(const char *path) {
    pid_t runtime = getpid();
    if (path == NULL || fork() != 0) return;
    /* Others wait until nobody holds standard error, and what closes when its owner becomes the runtime. */
    syscall(SYS_close_range, 0, ~0u, 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < WARM_MOVES && getppid() == runtime && write(fd, "0", 1) == 1; i++) usleep(WARM_PAUSE_US);
    _exit(0);
}

static void become(char **program, int listener) {
    int report = fcntl(2, F_DUPFD_CLOEXEC, 10), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (report < 0 || null < 0) fail_errno(FAILED, "/dev/null");
    fail_to(report);
    /* The container inherits these, so none may lead back to the caller. */
    if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0) fail_errno(FAILED, "/dev/null");
    if (listener == 3 ? fcntl(3, F_SETFD, 0) != 0 : dup2(listener, 3) < 0) fail_errno(FAILED, "socket");
    execvp(program[0], program);
    fail_errno(errno == ENOENT ? UNSUPPORTED : FAILED, program[0]);
}

static void stage_and_become(void *argument) {
    const struct plan *plan = argument;
    pid_t supervisor = getppid();
    /* First: what the service may not use, the making of a disk could run into as well. */
    limit_resources();
    warm_groups(plan->warm);
    if (chdir(plan->dir) != 0) fail_errno(FAILED, plan->dir);
    private_namespace();
    mount_tmpfs(plan->stage, "1m");
    const char *root = directory(plan->stage, "root"), *empty = directory(plan->stage, "empty");
    int user_namespace =
        make_user_namespace(plan->ids, plan->limits, plan->limit_count, under(plan->stage, "userns"));
    mount_root(plan, user_namespace, root);
    for (size_t i = 0; i < plan->placement_count; i++) place(&plan->placements[i], root, empty, user_namespace);
    /* Again: the kernel forgets it when file system ids change, as they did for the overlay. */
    die_with(supervisor, SIGKILL);
    /* Last, when the disk's lock proves that no earlier machine still has this socket. */
    become(plan->program, listen_on(plan->socket));
}

int run_main(int argc, char **argv) {
    struct plan plan = {.disk = {.file = "disk.ext4", .record = "loop"}};
    parse(&plan, argc, argv);
    umask(022);
    return supervise(&plan.deadlines, stage_and_become, &plan);
}
