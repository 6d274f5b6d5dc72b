/* The process record, shared by spawn.c (start), pool.c (supervisors), proc.c (life), attach.c (readers) and control.c (stdin, signals, sizes). */
#ifndef PROC_H
#define PROC_H
#include "agent.h"

enum state {
	STARTING,
	RUNNING,
	DRAINING, /* the main program has exited, its output may still come */
	EXITED,
};
enum { MAX_RUNNING = 1024, ARGV_KEPT = 1024, STDIN_CAP = 64 * 1024, DRAIN_MAX = 1000 };

struct sup {
	struct source s;
	struct sup *next;
	struct proc *p; /* NULL: idle */
	pid_t pid;
};

struct proc {
	struct proc *next;
	struct sup *sup; /* as long as anything of the tree lives */
	struct attach *readers;
	u64 hash, started, exited, drain_at, drain_end;
	struct source out, err, in;
	struct journal j;
	u64 stdin_taken;
	u8 *stdin_buf;
	u32 stdin_from, stdin_len, stdin_waiter;
	u32 uid, drain;
	int status;
	pid_t pid;
	u16 idle_passes;
	u8 state, flags;
	bool killing, stdin_eof, paused;
	u32 argc, argv_len;
	char id[MAX_ID + 1];
	u16 label_len;
	u8 label[MAX_LABEL]; /* the host's, opaque; a repeated spawn does not change it */
	u8 argv[ARGV_KEPT]; /* str after str, as many as fit */
};

extern struct proc *procs; /* newest first */
struct proc *proc_find(const char *id);
struct proc *proc_named(u32 channel, struct rd *); /* NULL: answered already */
void proc_resume(struct proc *);
void proc_enter(struct proc *);
void proc_wire(struct proc *, const int ours[3]);
void proc_started(struct proc *, pid_t);
void proc_failed(struct proc *, u8 stage, int err); /* it did not start; the record is gone */
void proc_main_gone(struct proc *, int status);     /* the program itself has ended */
void proc_tree_gone(struct proc *);                 /* nothing it started is left */
u32 proc_running(void);

/* pool.c: a supervisor that runs this, or NULL with errno */
struct sup *pool_start(const u8 *spec, size_t n, const int *fds, int count);
void pool_tick(void);
void pool_sweep(void);
u32 pool_leaving(void);

/* attach.c */
struct attach *attach_open(u32 channel, u32 credit, struct proc *, u64 cursor, bool follow, bool announce, bool existed);
void attach_failed(struct proc *, u16 code, int err, const char *message); /* the spawn did not happen */
u64 attach_needs(const struct proc *); /* first journal position a reader still needs; UINT64_MAX without readers */

/* control.c */
void stdin_flush(struct proc *);
void stdin_done(struct proc *);
#endif
