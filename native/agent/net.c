/* Connections inside the machine: dialled for the host, or accepted on a loopback port and handed to it. Each is a channel with
 * credit in both directions and its own half-closes; it ends with END when both directions have, or with ERROR. */
#include "agent.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { BACKLOG = 64 };

struct duplex {
	struct chan c;
	struct source s;
	struct queue in; /* from the host, waiting for the socket */
	u32 owed;        /* taken by the socket, credit not yet returned */
	bool connecting, readable, in_eof, in_done, out_done;
};

static void duplex_fail(struct duplex *d, int err)
{
	w_errno(d->c.id, err);
	chan_close(&d->c);
}

static void interests(struct duplex *d)
{
	u32 want = d->connecting || d->in.to ? EPOLLOUT : 0;
	if (!d->connecting && !d->out_done && !d->readable)
		want |= EPOLLIN;
	source_want(&d->s, want);
}

static void drain_in(struct duplex *d)
{
	u32 before = d->in.to - d->in.from;
	if (!queue_flush(&d->in, d->s.fd))
		return duplex_fail(d, errno);
	d->owed += before - (d->in.to - d->in.from);
	if (!d->in.to)
		queue_free(&d->in);
	if (!d->in.to && d->in_eof && !d->in_done) {
		shutdown(d->s.fd, SHUT_WR);
		d->in_done = true;
	}
	if (d->owed >= WINDOW / 4 && !d->in_eof) {
		w_frame(T_CREDIT, d->c.id, "4", d->owed);
		d->owed = 0;
	}
}

/* False when there is no more for now, or for ever. */
static bool send_out(struct duplex *d)
{
	if (d->out_done || !d->readable || !d->c.credit)
		return false;
	ssize_t n = w_data(d->c.id, d->s.fd, -1, d->c.credit);
	if (n > 0) {
		d->c.credit -= (u64)n;
		return true;
	}
	d->readable = false;
	if (n == 0) {
		w_empty(T_EOF, d->c.id);
		d->out_done = true;
	} else if (errno != EAGAIN && errno != EINTR)
		duplex_fail(d, errno);
	return false;
}

static bool duplex_pump(struct chan *c)
{
	struct duplex *d = (struct duplex *)c;
	if (send_out(d))
		return true;
	if (c->dead)
		return false;
	if (d->out_done && d->in_done) {
		w_frame(T_END, c->id, "1", 0);
		chan_close(c);
	} else
		interests(d);
	return false;
}

static void duplex_drop(struct chan *c)
{
	struct duplex *d = (struct duplex *)c;
	source_close(&d->s);
	queue_free(&d->in);
}

static void duplex_data(struct chan *c, const u8 *p, u32 n)
{
	struct duplex *d = (struct duplex *)c;
	if (d->connecting || d->in_eof || queue_add(&d->in, p, n) < n)
		return duplex_fail(d, EINVAL); /* more than was granted */
	drain_in(d);
}

static void duplex_eof(struct chan *c)
{
	struct duplex *d = (struct duplex *)c;
	d->in_eof = true;
	drain_in(d);
}

static const struct chan_ops duplex_ops = {.pump = duplex_pump, .drop = duplex_drop, .data = duplex_data, .eof = duplex_eof};

static void on_socket(struct source *s, u32 events)
{
	struct duplex *d = s->owner;
	if (d->connecting) {
		int err = 0;
		socklen_t size = sizeof err;
		if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0 || err)
			return duplex_fail(d, err ? err : errno);
		d->connecting = false;
		w_empty(T_CONNECTED, d->c.id);
	} else if (events & EPOLLOUT)
		drain_in(d);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		d->readable = true; /* off until read to the end: without credit it would wake us for nothing */
	if (!d->c.dead)
		interests(d);
}

static struct duplex *duplex_open(u32 channel, u32 credit, int fd, bool connecting)
{
	struct duplex *d = chan_open(sizeof *d, channel, credit, &duplex_ops);
	if (!d) {
		close(fd);
		return NULL;
	}
	d->connecting = connecting;
	d->in.cap = WINDOW;
	if (source_open(&d->s, d, fd, connecting ? EPOLLOUT : EPOLLIN, on_socket))
		return d;
	duplex_fail(d, errno);
	return NULL;
}

int net_dial(struct request *q)
{
	u16 port = htons((u16)q->n[1]);
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
	bool is_six = q->n[0] == 6;
	int one = 1;
	if ((q->n[0] != 4 && !is_six) || !port)
		return refuse(q, E_INVALID, 0, "malformed request");
	int fd = keep_fd(socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return FAILED;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	int done = is_six ? connect(fd, (struct sockaddr *)&six, sizeof six) : connect(fd, (struct sockaddr *)&four, sizeof four);
	if (done < 0 && errno != EINPROGRESS)
		return closing(fd, FAILED);
	if (duplex_open(q->channel, q->credit, fd, done < 0) && done == 0)
		w_empty(T_CONNECTED, q->channel);
	return ANSWERED;
}

/* ---- listening ---- */

struct listener {
	struct chan c;
	struct source s;
	u32 credit;
};

static void on_accept(struct source *s, u32 events)
{
	(void)events;
	struct listener *l = s->owner;
	if (!out_room())
		return source_want(s, 0); /* until the host has read some */
	int fd = keep_fd(accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	if (fd < 0)
		return;
	u32 id = chan_next_id();
	w_frame(T_ACCEPTED, l->c.id, "4", id);
	duplex_open(id, l->credit, fd, false);
}

static bool listener_pump(struct chan *c)
{
	source_want(&((struct listener *)c)->s, EPOLLIN);
	return false;
}

static void listener_drop(struct chan *c)
{
	source_close(&((struct listener *)c)->s);
}

static const struct chan_ops listener_ops = {.pump = listener_pump, .drop = listener_drop};

int net_listen(struct request *q)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((u16)q->n[0])};
	socklen_t size = sizeof at;
	int one = 1, fd = keep_fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return FAILED;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
	    listen(fd, BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&at, &size) < 0)
		return closing(fd, FAILED);
	struct listener *l = chan_open(sizeof *l, q->channel, 0, &listener_ops);
	if (!l)
		return closing(fd, ANSWERED);
	l->credit = q->credit;
	if (!source_open(&l->s, l, fd, EPOLLIN, on_accept)) {
		l->s.fd = -1;
		chan_close(&l->c);
		return FAILED;
	}
	w_frame(T_LISTENING, q->channel, "2", ntohs(at.sin_port));
	return ANSWERED;
}
