/* What the agent's parts share. One thread, one epoll loop; objects that die while events of the same batch may still name them
 * are only marked and are freed after the batch. */
#ifndef AGENT_H
#define AGENT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <unistd.h>
#include "proto.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* main.c: the loop */
struct source {
	int fd; /* -1 once closed: late events of the batch are ignored */
	u32 events;
	void (*fn)(struct source *, u32 events);
};
struct config {
	bool pid1;
	u32 lease;
	size_t budget; /* bytes of journal, all processes together */
};
extern struct config config;
extern u64 now, wall, epoch, started_mono, started_wall; /* ms */
extern int proc_dir, null_fd;
extern u32 own_uid, own_gid;
extern bool pump_again;
bool source_open(struct source *, int fd, u32 events, void (*fn)(struct source *, u32));
void source_want(struct source *, u32 events);
void source_close(struct source *);
void wake_at(u64 when); /* have the ticks run no later than this */
int keep_fd(int fd);    /* fd, or -1 with EMFILE when it eats into the reserve */
void loop_init(void);
void loop_once(int max_wait);
void clocks(void);

/* wire.c: frames in and out */
struct rd {
	const u8 *p, *end;
	bool bad;
};
struct str {
	const u8 *p;
	u32 n;
};
u64 rd_int(struct rd *, u32 bytes);
struct str rd_str(struct rd *);
bool rd_text(struct rd *, char *to, u32 cap); /* NUL-free, NUL-terminated copy */
#define rd_u8(r) ((u8)rd_int(r, 1))
#define rd_u16(r) ((u16)rd_int(r, 2))
#define rd_u32(r) ((u32)rd_int(r, 4))
#define rd_u64(r) rd_int(r, 8)

void w_begin(u8 type, u32 channel);
void w_int(u64 v, u32 bytes);
void w_bytes(const void *, u32 n);
void w_str(const void *, u32 n);
u8 *w_space(u32 n); /* room to fill in place, then w_took */
void w_took(u32 n);
void w_end(void);
void w_cancel(void); /* forget the frame that was begun */
void w_empty(u8 type, u32 channel);
void w_error(u32 channel, u16 code, int err, u64 detail, const char *message);
void w_errno(u32 channel, int err);
u16 code_of(int err);
u8 *own_pages(size_t n); /* which supervisors do not inherit; NULL with errno */
bool out_init(void);
void out_clear(void);
bool out_broken(void);
bool out_waiting(void);
bool out_room(void); /* whether more may be queued */
bool out_flush(int fd);

/* chan.c: channels */
struct chan;
struct chan_ops {
	bool (*pump)(struct chan *);                         /* write what credit and room allow; true = call again */
	void (*drop)(struct chan *);                         /* release what it holds; the memory is freed later */
	void (*data)(struct chan *, const u8 *p, u32 n);     /* DATA from the host */
	void (*eof)(struct chan *);
};
struct chan {
	struct chan *next;
	const struct chan_ops *ops;
	u32 id;
	u64 credit;
	bool dead;
};
void *chan_open(size_t size, u32 id, u32 credit, const struct chan_ops *); /* NULL: answered with an error already */
struct chan *chan_find(u32 id);
void chan_close(struct chan *);
void chan_close_all(void);
u32 chan_next_id(void);
void pump(void);
void sweep(void);

/* conn.c: the host */
bool conn_live(void);
void conn_listen(int fd);
void conn_tick(void);
void conn_run(void); /* handle what is buffered, then write what is queued */
void handle(u8 type, u32 channel, struct rd *r);

/* journal.c: a ring of (cursor, stream, time, bytes) records */
struct journal {
	u8 *ring;
	u32 cap, max;
	u64 head, tail;   /* positions in the ring, headers included, ever growing */
	u64 next, oldest; /* the same two ends as byte cursors */
	u64 last;         /* where the newest record starts */
};
struct place {
	u64 pos, at; /* record position; byte cursor of the next byte wanted */
	u32 skip;    /* bytes of that record already taken */
};
struct piece {
	u64 cursor, when;
	u8 stream;
	u32 len;
};
extern size_t journal_used;
void journal_append(struct journal *, u8 stream, const u8 *p, u32 n);
u64 journal_room(const struct journal *, u64 needed_from); /* bytes that fit without losing records from that position on */
void journal_seek(const struct journal *, struct place *, u64 cursor);
bool journal_peek(const struct journal *, struct place *, u32 max, struct piece *);
void journal_take(const struct journal *, struct place *, const struct piece *, u8 *to);
u64 journal_holds(const struct journal *, const struct place *); /* first position the reader still needs */
void journal_trim(struct journal *);
void journal_free(struct journal *);

/* pool.c, spawn.c, proc.c, attach.c, control.c and sup.c: processes */
void pool_init(void);
void pool_reap(void);
void proc_spawn(u32 channel, struct rd *);
void proc_attach(u32 channel, struct rd *);
void proc_signal(u32 channel, struct rd *);
void proc_kill(u32 channel, struct rd *);
void proc_stdin(u32 channel, struct rd *);
void proc_stdin_close(u32 channel, struct rd *);
void proc_resize(u32 channel, struct rd *);
void proc_list(u32 channel);
void proc_tick(void);
void proc_sweep(void);
void proc_kill_all(void);
bool proc_evict(void); /* forget the oldest finished process */
void proc_meters(u32 *running, u32 *kept);

enum report_kind { R_STARTED, R_FAILED, R_EXITED, R_GONE, R_ENDED /* exited and gone */ };
enum stage { STAGE_SETUP, STAGE_CWD, STAGE_EXEC };
struct report {
	u8 kind, stage;
	int value; /* pid, errno or wait status */
};
struct spec {
	char *id, *cwd, **argv, **env;
	u32 argc, envc, uid, gid, capacity, drain;
	u16 rows, cols;
	u8 flags;
};
bool spec_parse(struct spec *, const u8 *p, size_t n);
void sup_main(int ctl) __attribute__((noreturn));

/* tree.c: descendants */
u32 tree_signal(pid_t root, int sig, pid_t group, const pid_t *skip, u32 skips); /* how many live ones were found */
u32 tree_tasks(void);

/* files.c: requests on single paths, as the user named in the request */
struct stat;
bool as_user(u32 uid, u32 gid); /* false with errno; then as_agent all the same */
void as_agent(void);
int open_at(int dir, const char *path, int flags, u32 mode); /* never through magic links of /proc */
int parent_at(int dir, char *path, bool make, char **base);  /* cuts path in two */
bool make_dirs(int dir, char *path, u32 mode);
bool rd_path(struct rd *, char *to); /* absolute, at most PATH_MAX - 1 */
void files_handle(u8 type, u32 channel, struct rd *);
void w_stat(const struct stat *, const char *target, u32 n);

/* upload.c, walk.c, watch.c, net.c */
void upload_handle(u8 type, u32 channel, struct rd *);
void files_tick(void);
void list_open(u32 channel, u32 uid, u32 gid, struct rd *);
void remove_tree(u32 channel, u32 uid, u32 gid, int parent, const char *base); /* takes parent */
void watch_open(u32 channel, struct rd *);
void net_dial(u32 channel, struct rd *);
void net_listen(u32 channel, struct rd *);

struct entry64 {
	u64 ino;
	int64_t off;
	u16 reclen;
	u8 type;
	char name[];
};

#endif
