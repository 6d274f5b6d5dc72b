/* What the host does to a running process: signals, standard input, the size of its terminal. */
#include "proc.h"
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

void proc_signal(u32 channel, struct rd *r)
{
	struct proc *p = proc_named(channel, r);
	if (!p)
		return;
	int sig = rd_u8(r), scope = rd_u8(r), done = 0;
	if (r->bad || sig < 1 || sig > 64 || scope > SCOPE_TREE)
		return w_error(channel, E_INVALID, 0, 0, "no such signal or scope");
	if (p->state == STARTING)
		return w_error(channel, E_BUSY, 0, 0, "still starting");
	/* Once the main program has been reaped its number may be somebody else's: then only the tree is looked at. */
	bool main_alive = p->state == RUNNING;
	if (scope == SCOPE_TREE || (scope == SCOPE_GROUP && !main_alive))
		done = p->sup && tree_signal(p->sup->pid, sig, scope == SCOPE_GROUP ? p->pid : 0, NULL, 0) ? 0 : -1;
	else
		done = main_alive ? kill(scope == SCOPE_GROUP ? -p->pid : p->pid, sig) : -1;
	if (done < 0)
		w_error(channel, E_CLOSED, ESRCH, 0, "has exited");
	else
		w_empty(T_OK, channel);
}

void proc_resize(u32 channel, struct rd *r)
{
	struct proc *p = proc_named(channel, r);
	if (!p)
		return;
	struct winsize size = {.ws_row = rd_u16(r), .ws_col = rd_u16(r)};
	if (r->bad || !(p->flags & SPAWN_TTY))
		w_error(channel, E_INVALID, ENOTTY, 0, "not a terminal");
	else if (p->out.fd < 0)
		w_error(channel, E_CLOSED, ESRCH, 0, "has exited");
	else if (ioctl(p->out.fd, TIOCSWINSZ, &size) < 0)
		w_errno(channel, errno);
	else
		w_empty(T_OK, channel);
}

/* ---- standard input ---- */

static void w_offset(u32 channel, u64 offset)
{
	w_begin(T_OFFSET, channel);
	w_int(offset, 8);
	w_end();
}

/* One writer may wait for room; it owns no memory here, it just sends again what was not taken. */
struct waiter {
	struct chan c;
	struct proc *p;
};

static void waiter_drop(struct chan *c)
{
	struct waiter *w = (struct waiter *)c;
	if (w->p->stdin_waiter == c->id)
		w->p->stdin_waiter = 0;
}

static const struct chan_ops waiter_ops = {.drop = waiter_drop};

static void wake_waiter(struct proc *p, u16 code)
{
	struct chan *c = p->stdin_waiter ? chan_find(p->stdin_waiter) : NULL;
	if (!c)
		return;
	if (code)
		w_error(c->id, code, EPIPE, p->stdin_taken, "standard input is closed");
	else
		w_offset(c->id, p->stdin_taken);
	chan_close(c);
}

void stdin_done(struct proc *p)
{
	source_close(&p->in);
	free(p->stdin_buf);
	p->stdin_buf = NULL;
	p->stdin_len = 0;
	wake_waiter(p, E_CLOSED);
}

static u32 write_some(struct proc *p, const u8 *data, u32 n)
{
	u32 done = 0;
	while (done < n && p->in.fd >= 0) {
		ssize_t w = write(p->in.fd, data + done, n - done);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN)
			break;
		if (w <= 0)
			stdin_done(p);
		else
			done += (u32)w;
	}
	return done;
}

void stdin_flush(struct proc *p)
{
	if (p->in.fd < 0)
		return;
	if (p->stdin_len) {
		u32 n = write_some(p, p->stdin_buf + p->stdin_from, p->stdin_len);
		if (p->in.fd < 0)
			return;
		p->stdin_from += n;
		p->stdin_len -= n;
	}
	if (p->stdin_len)
		return source_want(&p->in, EPOLLOUT);
	free(p->stdin_buf);
	p->stdin_buf = NULL;
	source_want(&p->in, 0);
	wake_waiter(p, 0);
	if (p->stdin_eof)
		stdin_done(p);
}

/* How many bytes found room, in the pipe or in the buffer before it. */
static u32 take(struct proc *p, const u8 *data, u32 n)
{
	u32 done = p->stdin_len ? 0 : write_some(p, data, n);
	if (done == n || p->in.fd < 0)
		return done;
	if (!p->stdin_buf && !(p->stdin_buf = malloc(STDIN_CAP))) {
		source_want(&p->in, EPOLLOUT);
		return done;
	}
	if (!p->stdin_len)
		p->stdin_from = 0;
	u32 room = STDIN_CAP - p->stdin_len, more = n - done < room ? n - done : room;
	if (p->stdin_from + p->stdin_len + more > STDIN_CAP) {
		memmove(p->stdin_buf, p->stdin_buf + p->stdin_from, p->stdin_len);
		p->stdin_from = 0;
	}
	memcpy(p->stdin_buf + p->stdin_from + p->stdin_len, data + done, more);
	p->stdin_len += more;
	source_want(&p->in, EPOLLOUT);
	return done + more;
}

void proc_stdin(u32 channel, struct rd *r)
{
	struct proc *p = proc_named(channel, r);
	if (!p)
		return;
	u64 offset = rd_u64(r);
	size_t n = (size_t)(r->end - r->p);
	if (r->bad)
		return w_error(channel, E_INVALID, 0, 0, "malformed request");
	if (offset > p->stdin_taken)
		return w_error(channel, E_GAP, 0, p->stdin_taken, "bytes before this offset are missing");
	if (p->stdin_taken - offset >= n)
		return w_offset(channel, p->stdin_taken);
	if (p->in.fd < 0 || p->stdin_eof)
		return w_error(channel, E_CLOSED, EPIPE, p->stdin_taken, "standard input is closed");
	u32 known = (u32)(p->stdin_taken - offset);
	u32 got = take(p, r->p + known, (u32)n - known);
	p->stdin_taken += got;
	if (got || p->in.fd < 0) {
		if (got)
			w_offset(channel, p->stdin_taken);
		else
			w_error(channel, E_CLOSED, EPIPE, p->stdin_taken, "standard input is closed");
		return;
	}
	if (p->stdin_waiter)
		return w_error(channel, E_BUSY, 0, p->stdin_taken, "another write is waiting");
	struct waiter *w = chan_open(sizeof *w, channel, 0, &waiter_ops);
	if (w) {
		w->p = p;
		p->stdin_waiter = channel;
	}
}

/* A pipe ends; a terminal is told the end-of-file character and stays open, as when somebody presses it. */
void proc_stdin_close(u32 channel, struct rd *r)
{
	struct proc *p = proc_named(channel, r);
	if (!p)
		return;
	struct termios t;
	if (p->in.fd < 0)
		return w_empty(T_OK, channel);
	if (p->flags & SPAWN_TTY) {
		u8 eof = tcgetattr(p->in.fd, &t) == 0 ? t.c_cc[VEOF] : 4;
		if (!take(p, &eof, 1) && p->in.fd >= 0)
			return w_error(channel, E_BUSY, 0, 0, "the terminal takes no input now");
		return w_empty(T_OK, channel);
	}
	p->stdin_eof = true;
	stdin_flush(p);
	w_empty(T_OK, channel);
}
