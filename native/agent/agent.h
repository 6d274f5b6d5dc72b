/* What the agent's parts share. One thread, one epoll loop; objects that die while events of the same batch may still name them
 * are buried, and freed after the batch. */
#ifndef AGENT_H
#define AGENT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* Takes an item out of a list that is linked by `next`. */
#define UNLINK(list, item)                                               \
	do                                                                   \
		for (__typeof__(item) *at_ = &(list); *at_; at_ = &(*at_)->next) \
			if (*at_ == (item)) {                                        \
				*at_ = (item)->next;                                     \
				break;                                                   \
			}                                                            \
	while (0)

/* main.c: the loop */
struct source {
	int fd; /* -1 once closed: late events of the batch are ignored */
	u32 events;
	void (*fn)(struct source *, u32 events);
	void *owner;
};
struct config {
	bool pid1;
	u32 lease;
	size_t budget; /* bytes of journal, all processes together */
};
extern struct config config;
extern u64 now, wall, epoch; /* the clocks in ms */
extern int proc_dir, null_fd;
extern u32 own_uid, own_gid;
bool source_open(struct source *, void *owner, int fd, u32 events, void (*fn)(struct source *, u32)); /* false: fd is closed */
void source_want(struct source *, u32 events);
void source_close(struct source *);
void wake_at(u64 when);          /* have the ticks run no later than this */
int keep_fd(int fd);             /* fd, or -1 with EMFILE when it eats into the reserve */
int closing(int fd, int result); /* the result, with the errno of before, once fd is closed */
void bury(void *);               /* frees, after the batch, what begins with a link and is in no list any more */
void loop_init(void);
void loop_once(int max_wait);

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
#define rd_u8(r) ((u8)rd_int(r, 1))
#define rd_u16(r) ((u16)rd_int(r, 2))
#define rd_u32(r) ((u32)rd_int(r, 4))

struct request {
	u32 channel, uid, gid, credit, mode;
	u64 n[3]; /* the other numbers, in their order */
	char id[MAX_ID + 1];
	struct proc *proc; /* the one named by id, where a request is about one */
	struct str text, rest;
	char path[PATH_MAX], to[PATH_MAX]; /* absolute */
};
bool decode(struct request *, const char *fields, struct rd);
u64 hash_of(const void *, size_t n);

void w_begin(u8 type, u32 channel);
void w_numbers(const char *widths, const u64 *); /* each width a digit: its bytes */
void w_bytes(const void *, u32 n);
void w_str(const void *, u32 n);
u8 *w_space(u32 n); /* room to fill in place, then w_took */
void w_took(u32 n);
void w_end(void);
#define w_ints(widths, ...) w_numbers(widths, (const u64[]){__VA_ARGS__})
#define w_frame(type, channel, widths, ...) (w_begin(type, channel), w_ints(widths, __VA_ARGS__), w_end())
ssize_t w_data(u32 channel, int fd, off_t at, u64 most); /* a DATA frame of what a read gives; at < 0: of no file */
void w_empty(u8 type, u32 channel);
void w_error(u32 channel, u16 code, int err, u64 detail, const char *message);
void w_errno(u32 channel, int err);
u8 *own_pages(size_t n); /* which supervisors do not inherit; NULL with errno */
bool out_init(void);
void out_clear(void);
bool out_waiting(void);
bool out_room(void); /* whether more may be queued */
bool out_flush(int fd); /* false when the connection is of no use any more */

/* Bytes that wait to be written. */
struct queue {
	u8 *bytes;
	u32 from, to, cap;
};
u32 queue_add(struct queue *, const u8 *, u32 n); /* how many found room */
bool queue_flush(struct queue *, int fd);         /* false with errno when nobody will read them */
void queue_free(struct queue *);                  /* it may be added to again */

/* The requests: how the payload reads, and the handler.
 *
 *   u  user and group id; the request is then performed with their rights on files
 *   P  id of a process, which must exist          i  another id
 *   p  path          t  another path              s  text, any bytes
 *   c  credit        m  mode                      *  the bytes that follow
 *   1, 2, 4, 8: a number of so many bytes */
#define ALL_REQUESTS                        \
	X(T_PING, "", ping)                     \
	X(T_SPAWN, "c44s*", proc_spawn)         \
	X(T_ATTACH, "P8c1", proc_attach)        \
	X(T_SIGNAL, "P11", proc_signal)         \
	X(T_KILL, "P4", proc_kill)              \
	X(T_STDIN, "P8*", proc_stdin)           \
	X(T_STDIN_CLOSE, "P", proc_stdin_close) \
	X(T_RESIZE, "P22", proc_resize)         \
	X(T_PROCESSES, "", proc_list)           \
	X(T_CANCEL, "i414", proc_cancel)        \
	X(T_LIMIT, "P4", proc_limit)            \
	X(T_STAT, "up", file_stat)              \
	X(T_READ, "u88cp", file_read)           \
	X(T_WRITE, "ump*", file_write)          \
	X(T_UPLOAD, "umip8*", upload_chunk)     \
	X(T_COMMIT, "i8", upload_commit)        \
	X(T_ABORT, "i", upload_abort)           \
	X(T_LIST, "u24p", file_list)            \
	X(T_MKDIR, "um1p", file_mkdir)          \
	X(T_RENAME, "u1pt", file_rename)        \
	X(T_REMOVE, "u1p", file_remove)         \
	X(T_CHMOD, "ump", file_chmod)           \
	X(T_TIMES, "u84p", file_times)          \
	X(T_LINK, "upt", file_link)             \
	X(T_WATCH, "u1cp", watch_open)          \
	X(T_DIAL, "c12", net_dial)              \
	X(T_LISTEN, "c2", net_listen)

/* A handler returns: */
enum { DONE = 0, ANSWERED = 1, FAILED = -1 /* with errno */ };
#define X(type, fields, perform) int perform(struct request *);
ALL_REQUESTS
#undef X
void handle(u8 type, u32 channel, struct rd body);
int refuse(const struct request *, u16 code, u64 detail, const char *message); /* ANSWERED */

/* chan.c: channels */
struct chan;
struct chan_ops {
	bool (*pump)(struct chan *);                     /* write what credit and room allow; true = call again */
	void (*drop)(struct chan *);                     /* release what it holds; the memory is freed later */
	void (*data)(struct chan *, const u8 *p, u32 n); /* DATA from the host */
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
bool pump(void); /* true: there is more to do at once */
void sweep(void);

/* conn.c: the host */
bool conn_live(void);
void conn_listen(int fd);
void conn_tick(void);
bool conn_run(void); /* handle what is buffered, then write what is queued; as pump() */

/* journal.c: a ring of records, each some bytes of one stream */
struct journal {
	u8 *ring;
	u32 cap;
	u64 head, tail; /* positions in the ring, headers included, ever growing */
	u64 held, top;  /* the pages between these two take memory */
	u64 last;       /* where the newest record starts */
	u64 next;       /* byte cursor of the next byte */
};
struct place {
	u64 pos, at; /* a record at or before the one wanted; byte cursor of the next byte wanted */
};
struct piece {
	u64 cursor, when, pos;
	u8 stream;
	u32 len;
};
extern size_t journal_used;
void journal_append(struct journal *, u8 stream, const u8 *p, u32 n);
u64 journal_oldest(const struct journal *);
u64 journal_room(const struct journal *, u64 needed_from); /* bytes that fit without losing records from that position on */
bool journal_peek(const struct journal *, struct place *, u32 max, struct piece *);
void journal_take(const struct journal *, struct place *, const struct piece *, u8 *to);
u64 journal_holds(const struct journal *, struct place *); /* first position the reader still needs */
void journal_trim(struct journal *);
void journal_free(struct journal *);

/* Processes: spawn.c starts them, pool.c has their supervisors, proc.c their lives, ends.c their ends, attach.c their readers,
 * control.c what the host does to them. */
void pool_init(void);
void pool_reap(void);
void proc_tick(void);
void proc_kill_all(void);
bool proc_evict(void); /* forget the oldest finished process */
struct proc *proc_find(const char *id);

/* tree.c: descendants; how many live ones of a group, or of any, were found. Not 0 either when it could not be looked everywhere. */
u32 tree_signal(pid_t root, int sig, pid_t group, bool (*spared)(pid_t));

/* Files: requests on single paths are in files.c, on trees in walk.c, writing in upload.c. They are performed as the user the
 * request names. */
bool as_user(u32 uid, u32 gid);
void as_agent(void);                                            /* keeps errno */
int open_at(int dir, const char *path, int flags, u64 resolve); /* openat2 without magic links of /proc */
int parent_at(int dir, char *path, bool make, char **base);     /* cuts path in two */
struct stat;
void w_stat(const struct stat *, const char *target, u32 n);
bool dots(const char *name);
bool is_temporary(const char *name); /* a name under which the agent writes what is not finished */
void upload_tick(void);

/* watch.c and way.c: watching directories */
void watch_published(const char *temporary, bool replaced); /* what was written under the first name has its own now */
void watch_tick(void);

#endif
