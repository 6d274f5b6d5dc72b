/* What the host does to a running process: signals, standard input, the size of its terminal. */
#include "proc.h"
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

int proc_signal(struct request *q)
{
	struct proc *p = q->proc;
	int sig = (int)q->n[0], scope = (int)q->n[1];
	if (sig < 1 || sig > 64 || scope > SCOPE_TREE)
		return refuse(q, E_INVALID, 0, "no such signal or scope");
	if (p->state == STARTING)
		return refuse(q, E_BUSY, 0, "still starting");
	/* Once the main program has been reaped its number may be somebody else's: then only the tree is looked at. */
	if (p->state == RUNNING && scope != SCOPE_TREE)
		return kill(scope == SCOPE_GROUP ? -p->pid : p->pid, sig);
	if (scope != SCOPE_PROCESS && p->sup && tree_signal(sup_pid(p->sup), sig, scope == SCOPE_GROUP ? p->pid : 0, NULL))
		return DONE;
	return refuse(q, E_CLOSED, 0, "has exited");
}

int proc_resize(struct request *q)
{
	struct proc *p = q->proc;
	struct winsize size = {.ws_row = (u16)q->n[0], .ws_col = (u16)q->n[1]};
	if (!(p->flags & SPAWN_TTY))
		return refuse(q, E_INVALID, 0, "not a terminal");
	if (p->out.fd < 0)
		return refuse(q, E_CLOSED, 0, "has exited");
	return ioctl(p->out.fd, TIOCSWINSZ, &size);
}

/* ---- standard input ---- */

void stdin_done(struct proc *p)
{
	source_close(&p->in);
	queue_free(&p->input);
}

void stdin_flush(struct proc *p)
{
	if (p->in.fd < 0)
		return;
	if (!queue_flush(&p->input, p->in.fd) || (!p->input.to && p->stdin_eof))
		return stdin_done(p);
	if (!p->input.to)
		queue_free(&p->input); /* most programs read little */
	source_want(&p->in, p->input.to ? EPOLLOUT : 0);
}

void on_input(struct source *s, u32 events)
{
	if (events & EPOLLERR)
		stdin_done(s->owner); /* nobody reads any more */
	else
		stdin_flush(s->owner);
}

/* How many bytes found room, in the pipe or in the queue before it. */
static u32 take(struct proc *p, struct str s)
{
	u32 done = 0, added;
	do {
		added = queue_add(&p->input, s.p + done, s.n - done);
		done += added;
		stdin_flush(p);
	} while (added && done < s.n && p->in.fd >= 0);
	return done;
}

/* A write waits while there is no room for any of it. It owns no memory here: it is told how much was taken, nothing, and comes
 * again. */
struct waiter {
	struct chan c;
	char id[MAX_ID + 1];
};

static bool waiter_pump(struct chan *c)
{
	struct proc *p = proc_find(((struct waiter *)c)->id);
	bool open = p && p->in.fd >= 0;
	if (open && p->input.to - p->input.from == STDIN_CAP)
		return false;
	if (open)
		w_frame(T_OFFSET, c->id, "8", p->stdin_taken);
	else
		w_error(c->id, E_CLOSED, 0, p ? p->stdin_taken : 0, "standard input is closed");
	chan_close(c);
	return false;
}

static const struct chan_ops waiter_ops = {.pump = waiter_pump};

int proc_stdin(struct request *q)
{
	struct proc *p = q->proc;
	u64 offset = q->n[0], known = p->stdin_taken - offset;
	if (offset > p->stdin_taken)
		return refuse(q, E_GAP, p->stdin_taken, "bytes before this offset are missing");
	if (known < q->rest.n) {
		if (p->in.fd < 0 || p->stdin_eof)
			return refuse(q, E_CLOSED, p->stdin_taken, "standard input is closed");
		u32 got = take(p, (struct str){q->rest.p + known, q->rest.n - (u32)known});
		p->stdin_taken += got;
		if (!got) {
			struct waiter *w = chan_open(sizeof *w, q->channel, 0, &waiter_ops);
			if (w)
				strcpy(w->id, p->id);
			return ANSWERED;
		}
	}
	w_frame(T_OFFSET, q->channel, "8", p->stdin_taken);
	return ANSWERED;
}

/* A pipe ends; a terminal is told the end-of-file character and stays open, as when somebody presses it. */
int proc_stdin_close(struct request *q)
{
	struct proc *p = q->proc;
	struct termios t;
	if (p->in.fd < 0)
		return DONE;
	if (!(p->flags & SPAWN_TTY)) {
		p->stdin_eof = true;
		stdin_flush(p);
		return DONE;
	}
	u8 eof = tcgetattr(p->in.fd, &t) == 0 ? t.c_cc[VEOF] : 4;
	return take(p, (struct str){&eof, 1}) || p->in.fd < 0 ? DONE : refuse(q, E_BUSY, 0, "the terminal takes no input now");
}
