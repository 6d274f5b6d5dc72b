/* Connections inside the machine: dialled for the host, or accepted on a loopback port and handed to it. Each is a channel with
 * credit in both directions and its own half-closes; it ends with END when both directions have, or with ERROR. */
#include "agent.h"
#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CHUNK = 64 * 1024, MAX_LISTENERS_BACKLOG = 64 };

struct duplex {
	struct chan c;
	struct source s;
	u8 *buf; /* from the host, waiting for the socket; allocated when first needed */
	u32 from, len, owed; /* owed: taken by the socket, credit not yet returned */
	bool connecting, readable, in_eof, in_done, out_done;
};

static void on_socket(struct source *s, u32 events);

static void duplex_fail(struct duplex *d, int err)
{
	w_errno(d->c.id, err);
	chan_close(&d->c);
}

static void interests(struct duplex *d)
{
	u32 want = d->connecting || d->len ? EPOLLOUT : 0;
	if (!d->connecting && !d->out_done && !d->readable)
		want |= EPOLLIN;
	source_want(&d->s, want);
}

static bool drain_in(struct duplex *d)
{
	while (d->len) {
		ssize_t n = send(d->s.fd, d->buf + d->from, d->len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			duplex_fail(d, errno);
			return false;
		}
		d->from += (u32)n;
		d->len -= (u32)n;
		d->owed += (u32)n;
	}
	if (!d->len) {
		free(d->buf);
		d->buf = NULL;
		if (d->in_eof && !d->in_done) {
			shutdown(d->s.fd, SHUT_WR);
			d->in_done = true;
		}
	}
	if (d->owed >= WINDOW / 4 && !d->in_eof) {
		w_begin(T_CREDIT, d->c.id);
		w_int(d->owed, 4);
		w_end();
		d->owed = 0;
	}
	pump_again = true;
	return true;
}

static bool duplex_pump(struct chan *c)
{
	struct duplex *d = (struct duplex *)c;
	if (!d->out_done && d->readable && c->credit) {
		u32 want = c->credit < CHUNK ? (u32)c->credit : CHUNK;
		w_begin(T_DATA, c->id);
		ssize_t n = recv(d->s.fd, w_space(want), want, MSG_DONTWAIT);
		int err = errno;
		if (n > 0) {
			w_took((u32)n);
			w_end();
			c->credit -= (u64)n;
			return true;
		}
		w_cancel();
		if (n < 0 && err != EAGAIN && err != EINTR) {
			duplex_fail(d, err);
			return false;
		}
		if (n == 0) {
			w_empty(T_EOF, c->id);
			d->out_done = true;
		}
		d->readable = false;
	}
	if (d->out_done && d->in_done) {
		w_begin(T_END, c->id);
		w_int(0, 8);
		w_int(0, 1);
		w_end();
		chan_close(c);
	} else
		interests(d);
	return false;
}

static void duplex_drop(struct chan *c)
{
	struct duplex *d = (struct duplex *)c;
	source_close(&d->s);
	free(d->buf);
	d->buf = NULL;
}

static void duplex_data(struct chan *c, const u8 *p, u32 n)
{
	struct duplex *d = (struct duplex *)c;
	if (d->connecting || d->in_eof || d->len + n > WINDOW)
		return duplex_fail(d, EINVAL); /* more than was granted */
	u32 sent = 0;
	if (!d->len) {
		ssize_t w = send(d->s.fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (w < 0 && errno != EAGAIN && errno != EINTR)
			return duplex_fail(d, errno);
		sent = w > 0 ? (u32)w : 0;
		d->owed += sent;
	}
	if (sent < n && !d->buf && !(d->buf = malloc(WINDOW)))
		return duplex_fail(d, ENOMEM);
	if (sent < n) {
		if (!d->len)
			d->from = 0;
		if (d->from + d->len + n - sent > WINDOW) {
			memmove(d->buf, d->buf + d->from, d->len);
			d->from = 0;
		}
		memcpy(d->buf + d->from + d->len, p + sent, n - sent);
		d->len += n - sent;
	}
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
	struct duplex *d = (struct duplex *)((u8 *)s - offsetof(struct duplex, s));
	if (d->c.dead)
		return;
	if (d->connecting) {
		int err = 0;
		socklen_t size = sizeof err;
		if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0 || err)
			return duplex_fail(d, err ? err : errno);
		d->connecting = false;
		w_empty(T_CONNECTED, d->c.id);
	} else if ((events & EPOLLOUT) && !drain_in(d))
		return;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		d->readable = true; /* off until read to the end: without credit it would wake us for nothing */
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
	if (source_open(&d->s, fd, connecting ? EPOLLOUT : EPOLLIN, on_socket))
		return d;
	duplex_fail(d, errno);
	return NULL;
}

void net_dial(u32 channel, struct rd *r)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
		struct sockaddr_un local;
	} to = {0};
	static char path[PATH_MAX];
	u32 credit = rd_u32(r);
	u8 kind = rd_u8(r);
	u16 port = rd_u16(r);
	u32 uid = rd_u32(r), gid = rd_u32(r);
	rd_text(r, path, sizeof path);
	if (r->bad || kind > 2 || (kind < 2 && !port) || (kind == 2 && (path[0] != '/' || strlen(path) >= sizeof to.local.sun_path)))
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request");
	socklen_t size = kind == 0 ? sizeof to.four : kind == 1 ? sizeof to.six : sizeof to.local;
	to.any.sa_family = kind == 0 ? AF_INET : kind == 1 ? AF_INET6 : AF_UNIX;
	if (kind == 0) {
		to.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		to.four.sin_port = htons(port);
	} else if (kind == 1) {
		to.six.sin6_addr = in6addr_loopback;
		to.six.sin6_port = htons(port);
	} else
		strcpy(to.local.sun_path, path);
	int fd = keep_fd(socket(to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return w_errno(channel, errno);
	int one = 1;
	if (kind < 2)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	bool user = as_user(uid, gid);
	int done = user ? connect(fd, &to.any, size) : -1, err = errno;
	as_agent();
	if (done < 0 && err != EINPROGRESS) {
		close(fd);
		return w_errno(channel, err);
	}
	if (duplex_open(channel, credit, fd, done < 0) && done == 0)
		w_empty(T_CONNECTED, channel);
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
	struct listener *l = (struct listener *)((u8 *)s - offsetof(struct listener, s));
	if (l->c.dead)
		return;
	if (!out_room())
		return source_want(s, 0); /* until the host has read some */
	int fd = keep_fd(accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	if (fd < 0)
		return;
	u32 id = chan_next_id();
	w_begin(T_ACCEPTED, l->c.id);
	w_int(id, 4);
	w_end();
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

void net_listen(u32 channel, struct rd *r)
{
	u32 credit = rd_u32(r);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(rd_u16(r))};
	socklen_t size = sizeof at;
	int one = 1;
	if (r->bad)
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request");
	int fd = keep_fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	if (fd < 0)
		return w_errno(channel, errno);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
	    listen(fd, MAX_LISTENERS_BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&at, &size) < 0) {
		w_errno(channel, errno);
		close(fd);
		return;
	}
	struct listener *l = chan_open(sizeof *l, channel, 0, &listener_ops);
	if (!l) {
		close(fd);
		return;
	}
	l->credit = credit;
	if (!source_open(&l->s, fd, EPOLLIN, on_accept)) {
		w_errno(channel, errno);
		return chan_close(&l->c);
	}
	w_begin(T_LISTENING, channel);
	w_int(ntohs(at.sin_port), 2);
	w_end();
}
