/* The process record, shared by spawn.c (start), pool.c (supervisors), proc.c (life), ends.c (kills, limits), attach.c (readers) and control.c (stdin,
 * signals, sizes). */
#ifndef PROC_H
#define PROC_H
#include "agent.h"

enum state {
	STARTING,
	RUNNING,
	DRAINING, /* the main program has exited, its output may still come */
	EXITED,
};
enum { MAX_RUNNING = 1024, MAX_KEPT = 256, ARGV_KEPT = 1024, STDIN_CAP = 64 * 1024 };

struct proc {
	struct proc *next;
	struct sup *sup; /* as long as anything of the tree lives */
	struct attach *readers;
	u64 hash, started, exited;
	u64 drain_at, drain_end, pass_at;
	u32 owed[2], drain_left; /* bytes of each stream that the program left in its pipe; bytes that others may add */
	struct source out, err, in;
	struct journal j;
	u64 stdin_taken;
	struct queue input; /* taken, and not yet in the pipe */
	bool stdin_eof;
	int status;
	pid_t pid;
	u32 uid, idle_passes;
	u32 identity; /* the host's, of the request: what a start that is taken back is told from another by */
	u64 left;     /* ms of its limit, if it is limited */
	u8 state, flags, cause;
	bool killing, paused, limited;
	char id[MAX_ID + 1];
	u16 label_len, argv_len;
	u8 label[MAX_LABEL]; /* the host's, opaque; a repeated spawn does not change it */
	char argv[ARGV_KEPT]; /* argument after argument, each ended by a NUL, as much as fits */
};

extern struct proc *procs; /* oldest first */
bool proc_finished(const struct proc *);
bool proc_forgotten(const char *id); /* whether one of this id was evicted: asked for again, it is not to run twice */
void proc_failed(struct proc *, u8 stage, int err); /* it did not start; the record is gone */
void proc_resume(struct proc *);
void on_output(struct source *, u32 events);
void on_input(struct source *, u32 events);

/* ends.c */
bool proc_cancelled(const char *id); /* whether its start was taken back before it came */
void limit_begin(struct proc *, u32 ms);
u32 limit_left(const struct proc *);
void limit_tick(void);
void ends_tick(void);

/* pool.c and sup.c: a supervisor is told what to run, and reports. */
struct spec {
	char *id, *cwd, **argv, **env;
	u32 argc, envc, uid, gid, capacity;
	u16 rows, cols;
	u8 flags;
};
enum { REPORT_STARTED = 1, REPORT_FAILED = 2, REPORT_EXITED = 4, REPORT_GONE = 8 /* nothing of the tree is left */ };
enum stage { STAGE_SETUP, STAGE_TERMINAL, STAGE_CWD, STAGE_EXEC };
struct report {
	u8 what, stage;
	int value; /* pid, errno or wait status */
};
bool spec_parse(struct spec *, const u8 *p, size_t n);
void sup_main(int ctl) __attribute__((noreturn));
pid_t sup_pid(const struct sup *);                                                     /* 0 once it is dead */
bool pool_start(struct proc *, struct str spec, const int *fds, int count); /* false with errno */
void pool_tick(void);
bool pool_leaving(void); /* whether a supervisor is about to end */
void proc_report(struct proc *, const struct report *);
void proc_orphaned(struct proc *); /* its supervisor was killed */

/* attach.c */
struct attach *attach_open(struct request *, struct proc *, u64 cursor, bool existed, bool holds);
void attach_failed(struct proc *, u16 code, int err); /* the spawn did not happen */
u64 attach_needs(const struct proc *); /* first journal position a reader still needs; UINT64_MAX without readers */

/* control.c */
void stdin_flush(struct proc *);
void stdin_done(struct proc *);
#endif
