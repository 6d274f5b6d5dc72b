/* Readers of processes: attachments to a journal, waits for the end of a tree, and the process list. */
#include "proc.h"
#include <signal.h>
#include <sys/wait.h>

enum { OUTPUT_MAX = 128 * 1024 };

struct attach {
	struct chan c;
	struct proc *p;
	struct attach *next;
	struct place at;
	bool announce, existed, follow;
};

static void w_exit(u32 channel, const struct proc *p)
{
	bool signalled = WIFSIGNALED(p->status);
	w_begin(T_EXIT, channel);
	w_int(signalled, 1);
	w_int((u64)(signalled ? WTERMSIG(p->status) : WEXITSTATUS(p->status)), 1);
	w_int(p->j.next, 8);
	w_int(p->exited, 8);
	w_int(!p->sup, 1);
	w_end();
}

static void announce(struct attach *a)
{
	w_begin(T_SPAWNED, a->c.id);
	w_int((u64)a->p->pid, 4);
	w_int(a->p->started, 8);
	w_int(a->existed, 1);
	w_end();
	a->announce = false;
}

static bool attach_pump(struct chan *c)
{
	struct attach *a = (struct attach *)c;
	struct proc *p = a->p;
	if (p->state == STARTING)
		return false;
	if (a->announce)
		announce(a);
	if (!a->follow) {
		chan_close(c);
		return false;
	}
	struct piece piece;
	if (!journal_peek(&p->j, &a->at, c->credit < OUTPUT_MAX ? (u32)c->credit : OUTPUT_MAX, &piece)) {
		if (p->state == EXITED) {
			w_exit(c->id, p);
			chan_close(c);
		}
		return false;
	}
	if (piece.cursor > a->at.at) {
		w_begin(T_TRUNCATED, c->id);
		w_int(a->at.at, 8);
		w_int(piece.cursor, 8);
		w_end();
		a->at.at = piece.cursor;
		return true;
	}
	if (!piece.len)
		return false; /* out of credit */
	w_begin(T_OUTPUT, c->id);
	w_int(piece.cursor, 8);
	w_int(piece.stream, 1);
	w_int(piece.when, 8);
	journal_take(&p->j, &a->at, &piece, w_space(piece.len));
	w_took(piece.len);
	w_end();
	c->credit -= piece.len;
	if (p->paused)
		proc_resume(p);
	return true;
}

static void attach_drop(struct chan *c)
{
	struct attach *a = (struct attach *)c;
	for (struct attach **at = &a->p->readers; *at; at = &(*at)->next)
		if (*at == a) {
			*at = a->next;
			break;
		}
	if (a->p->paused)
		proc_resume(a->p);
}

static const struct chan_ops attach_ops = {.pump = attach_pump, .drop = attach_drop};

struct attach *attach_open(u32 channel, u32 credit, struct proc *p, u64 cursor, bool follow, bool announce, bool existed)
{
	struct attach *a = chan_open(sizeof *a, channel, credit, &attach_ops);
	if (!a)
		return NULL;
	a->p = p;
	a->follow = follow;
	a->announce = announce;
	a->existed = existed;
	a->next = p->readers;
	p->readers = a;
	journal_seek(&p->j, &a->at, cursor);
	return a;
}

void attach_failed(struct proc *p, u16 code, int err, const char *message)
{
	while (p->readers) {
		w_error(p->readers->c.id, code, err, 0, message);
		chan_close(&p->readers->c);
	}
}

u64 attach_needs(const struct proc *p)
{
	u64 least = UINT64_MAX;
	for (struct attach *a = p->readers; a; a = a->next) {
		u64 at = journal_holds(&p->j, &a->at);
		if (a->follow && at < least)
			least = at;
	}
	return least;
}

void proc_attach(u32 channel, struct rd *r)
{
	struct proc *p = proc_named(channel, r);
	if (!p)
		return;
	u64 cursor = rd_u64(r);
	u32 credit = rd_u32(r);
	if (r->bad || cursor > p->j.next)
		w_error(channel, E_INVALID, 0, p->j.next, "cursor beyond the end");
	else
		attach_open(channel, credit, p, cursor, true, true, true);
}

/* ---- the list ---- */

struct lister {
	struct chan c;
	u32 sent;
};

/* The list may change between two frames; each process is named at most once because new ones are put in front and `sent` counts
 * from the back. */
static bool lister_pump(struct chan *c)
{
	struct lister *l = (struct lister *)c;
	u32 total = 0;
	for (struct proc *p = procs; p; p = p->next)
		total++;
	if (l->sent >= total) {
		w_begin(T_END, c->id);
		w_int(l->sent, 8);
		w_int(0, 1);
		w_end();
		chan_close(c);
		return false;
	}
	struct proc *p = procs;
	for (u32 i = total - l->sent - 1; i; i--)
		p = p->next;
	l->sent++;
	if (p->state == STARTING)
		return true;
	bool over = p->state != RUNNING, signalled = over && WIFSIGNALED(p->status);
	w_begin(T_PROCESS, c->id);
	w_str(p->id, (u32)strlen(p->id));
	w_int((u64)p->pid, 4);
	w_int(p->uid, 4);
	w_int(p->flags, 1);
	w_int(p->started, 8);
	w_int(over, 1);
	w_int(signalled, 1);
	w_int(over ? (u64)(signalled ? WTERMSIG(p->status) : WEXITSTATUS(p->status)) : 0, 1);
	w_int(p->exited, 8);
	w_int(p->j.oldest, 8);
	w_int(p->j.next, 8);
	w_int(p->stdin_taken, 8);
	w_int(p->sup != NULL, 1);
	w_str(p->label, p->label_len);
	w_int(p->argc, 4);
	w_bytes(p->argv, p->argv_len);
	w_end();
	return true;
}

static const struct chan_ops lister_ops = {.pump = lister_pump};

void proc_list(u32 channel)
{
	(void)chan_open(sizeof(struct lister), channel, 0, &lister_ops);
}
