/*
 * fiberbox-host probe DIR STAGE PATH...
 *
 * Tries what `run` needs, each in a process of its own, and prints
 * {"checks":[{"name","ok","detail"}]}. DIR is for a small temporary disk, each
 * PATH is tried as a read-only layer.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Above the ids any container manager hands out. */
#define PROBE_IDS 0x7ffd0000u

struct place {
    const char *dir, *stage, *path;
};

static int staged(const struct place *p, const char *name, char *path, size_t size) {
    snprintf(path, size, "%s/%s", p->stage, name);
    return mkdir(path, 0755);
}

static void check_mounts(const struct place *p) {
    private_namespace();
    mount_tmpfs(p->stage, "1m");
}

static int user_namespace(const struct place *p) {
    char path[4200];
    const struct sysctl limits[] = {{"max_user_namespaces", "0"}};
    check_mounts(p);
    snprintf(path, sizeof path, "%s/userns", p->stage);
    return make_user_namespace(PROBE_IDS, limits, 1, path);
}

static void check_user_namespace(const struct place *p) { user_namespace(p); }

static void check_layer(const struct place *p) {
    char target[4200];
    int ids = user_namespace(p);
    if (staged(p, "layer", target, sizeof target) != 0) fail_errno(FAILED, target);
    mount_clone(p->path, target, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, ids);
}

static void check_disk(const struct place *p) {
    char file[4200], template[4300], disk[4200], node[4200], lower[4200], root[4200];
    int ids = user_namespace(p);
    snprintf(file, sizeof file, "%s/probe-%d", p->dir, getppid());
    struct disk d = {.file = file, .templates = p->dir, .record = "/dev/null", .bytes = 16u << 20, .inodes = 1024};
    template_path(&d, template, sizeof template);
    snprintf(node, sizeof node, "%s/loop", p->stage);
    if (staged(p, "disk", disk, sizeof disk) != 0 || staged(p, "lower", lower, sizeof lower) != 0 ||
        staged(p, "root", root, sizeof root) != 0)
        fail_errno(FAILED, p->stage);
    mount_disk(&d, node, disk, ids);
    unlink(template);
    create_files_as(PROBE_IDS);
    mount_overlay("probe", lower, disk, root);
    create_files_as(0);
}

static void print_text(const char *text) {
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c == '\t' || c == '\n') putchar(' ');
        else if (c >= 0x20) putchar(c);
    }
}

static void report(int first, const char *name, void (*check)(const struct place *), const struct place *p) {
    int out[2];
    char detail[1024] = "";
    if (pipe2(out, 0) != 0) fail_errno(FAILED, "pipe");
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) fail_errno(FAILED, "fork");
    if (pid == 0) {
        fail_to(out[1]);
        check(p);
        _exit(0);
    }
    close(out[1]);
    size_t used = 0;
    for (ssize_t n; used < sizeof detail - 1 && (n = read(out[0], detail + used, sizeof detail - 1 - used)) > 0;)
        used += (size_t)n;
    while (used > 0 && detail[used - 1] == '\n') used--;
    detail[used] = '\0';
    close(out[0]);
    int status = 1;
    waitpid(pid, &status, 0);
    printf("%s{\"name\":\"", first ? "" : ",");
    print_text(name);
    printf("\",\"ok\":%s,\"detail\":\"", status == 0 ? "true" : "false");
    print_text(detail);
    printf("\"}");
}

int probe_main(int argc, char **argv) {
    if (argc < 2) fail(INVALID, "probe", "usage: probe DIR STAGE PATH...");
    struct place p = {.dir = argv[0], .stage = argv[1]};
    char name[4200];
    printf("{\"checks\":[");
    report(1, "mounts", check_mounts, &p);
    report(0, "user-namespace", check_user_namespace, &p);
    report(0, "disk", check_disk, &p);
    snprintf(name, sizeof name, "%s/probe-%d", p.dir, getpid());
    unlink(name);
    for (int i = 2; i < argc; i++) {
        p.path = argv[i];
        snprintf(name, sizeof name, "layer %s", argv[i]);
        report(0, name, check_layer, &p);
    }
    printf("]}\n");
    return 0;
}
