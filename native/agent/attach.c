/* Readers of processes: attachments to a journal, and the process list. */
#include "proc.h"
#include <sys/wait.h>

enum { OUTPUT_MAX = 128 * 1024 };

struct attach {
	struct chan c;
	struct proc *p;
	struct attach *next;
	struct place at;
	bool announced, existed;
	bool holds; /* the program waits for it */
};

/* u8 signalled, u8 code or signal */
static void w_status(const struct proc *p)
{
	bool over = p->state >= DRAINING, signalled = over && WIFSIGNALED(p->status);
	w_ints("11", signalled, (u64)(!over ? 0 : signalled ? WTERMSIG(p->status) : WEXITSTATUS(p->status)));
}

static void finish(struct attach *a)
{
	w_begin(T_EXIT, a->c.id);
	w_status(a->p);
	w_ints("8811", a->p->j.next, a->p->exited, a->p->cause == BY_LIMIT, a->p->sup != NULL);
	w_end();
	chan_close(&a->c);
}

static bool attach_pump(struct chan *c)
{
	struct attach *a = (struct attach *)c;
	struct proc *p = a->p;
	struct piece piece;
	if (p->state == STARTING)
		return false;
	if (!a->announced)
		w_frame(T_SPAWNED, c->id, "4814", (u64)p->pid, p->started, a->existed, (u64)(p->sup ? sup_pid(p->sup) : 0));
	a->announced = true;
	if (!journal_peek(&p->j, &a->at, c->credit < OUTPUT_MAX ? (u32)c->credit : OUTPUT_MAX, &piece)) {
		if (p->state == EXITED)
			finish(a);
		return false;
	}
	if (piece.cursor > a->at.at) {
		w_frame(T_TRUNCATED, c->id, "88", a->at.at, piece.cursor);
		a->at.at = piece.cursor;
		return true;
	}
	if (!piece.len)
		return false; /* out of credit */
	w_begin(T_OUTPUT, c->id);
	w_ints("818", piece.cursor, piece.stream, piece.when);
	journal_take(&p->j, &a->at, &piece, w_space(piece.len));
	w_took(piece.len);
	w_end();
	c->credit -= piece.len;
	proc_resume(p);
	return true;
}

static void attach_drop(struct chan *c)
{
	struct attach *a = (struct attach *)c;
	UNLINK(a->p->readers, a);
	proc_resume(a->p);
}

static const struct chan_ops attach_ops = {.pump = attach_pump, .drop = attach_drop};

struct attach *attach_open(struct request *q, struct proc *p, u64 cursor, bool existed, bool holds)
{
	struct attach *a = chan_open(sizeof *a, q->channel, q->credit, &attach_ops);
	if (!a)
		return NULL;
	a->p = p;
	a->existed = existed;
	a->holds = holds;
	a->at.at = cursor;
	a->next = p->readers;
	p->readers = a;
	return a;
}

void attach_failed(struct proc *p, u16 code, int err)
{
	while (p->readers) {
		w_error(p->readers->c.id, code, err, 0, strerror(err));
		chan_close(&p->readers->c);
	}
}

u64 attach_needs(const struct proc *p)
{
	u64 least = UINT64_MAX;
	for (struct attach *a = p->readers; a; a = a->next) {
		u64 at = a->holds ? journal_holds(&p->j, &a->at) : UINT64_MAX;
		least = at < least ? at : least;
	}
	return least;
}

int proc_attach(struct request *q)
{
	u64 end = q->proc->j.next;
	if (q->n[0] > end)
		return refuse(q, E_INVALID, end, "cursor beyond the end");
	attach_open(q, q->proc, q->n[0], true, q->n[1]);
	return ANSWERED;
}

/* str id, u32 pid, u32 uid, u8 flags, u64 started ms, u8 exited, u8 signalled, u8 code or signal, u64 exited ms, u64 oldest cursor,
 * u64 end cursor, u8 tree alive, u32 identity, u32 ms left of its limit or none, u32 supervisor's pid or 0, str label, arguments each
 * ended by a NUL */
int proc_list(struct request *q)
{
	for (struct proc *p = procs; p; p = p->next) {
		if (p->state == STARTING)
			continue;
		w_begin(T_PROCESS, q->channel);
		w_str(p->id, (u32)strlen(p->id));
		w_ints("44181", (u64)p->pid, p->uid, p->flags, p->started, p->state >= DRAINING);
		w_status(p);
		w_ints("8881444", p->exited, journal_oldest(&p->j), p->j.next, p->sup != NULL, p->identity, p->limited ? limit_left(p) : UINT32_MAX,
		       (u64)(p->sup ? sup_pid(p->sup) : 0));
		w_str(p->label, p->label_len);
		w_bytes(p->argv, p->argv_len);
		w_end();
	}
	w_frame(T_END, q->channel, "1", 0);
	return ANSWERED;
}
