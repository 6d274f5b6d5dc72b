/* The connection to the host: one at a time, made by a greeting; the next greeting replaces it. */
#include "agent.h"
#include <stdio.h>
#include <sys/socket.h>

enum {
	IN_CAP = SPAWN_MAX + MAX_PAYLOAD, /* more than the longest frame; pages are touched only as far as they are needed */
	MAX_PENDING = 4,
	HELLO_MAX = 256,
	HELLO_MS = 5000,
};

/* A connection that has not said HELLO yet. The live one keeps only its source. */
struct pending {
	struct source s;
	u64 deadline;
	u32 n;
	u8 buf[HELLO_MAX];
};

static struct source listener = {.fd = -1}, live = {.fd = -1};
static struct pending pending[MAX_PENDING] = {{.s.fd = -1}, {.s.fd = -1}, {.s.fd = -1}, {.s.fd = -1}};
static u8 *in_buf;
static size_t in_len;
static bool broken; /* the host broke the protocol */
static u32 lease;
static u64 alone_since;

bool conn_live(void)
{
	return live.fd >= 0;
}

static void conn_drop(void)
{
	source_close(&live);
	chan_close_all();
	out_clear();
	in_len = 0;
	broken = false;
	alone_since = now;
	wake_at(now + lease);
}

static void run_frames(void)
{
	size_t at = 0;
	while (in_len - at >= HEADER && out_room() && !broken) {
		struct rd r = {in_buf + at, in_buf + in_len, false};
		u32 n = rd_u32(&r);
		u8 type = rd_u8(&r);
		u32 channel = rd_u32(&r);
		if (n > (type == T_SPAWN ? SPAWN_MAX : MAX_PAYLOAD) || (type == T_NOP && (n || channel)) || type >= T_OK || type == T_HELLO) {
			broken = true;
			break;
		}
		if (in_len - at - HEADER < n)
			break;
		r.end = r.p + n;
		at += HEADER + n;
		if (type != T_NOP)
			handle(type, channel, &r);
	}
	in_len -= at;
	memmove(in_buf, in_buf + at, in_len);
}

void conn_run(void)
{
	if (live.fd < 0)
		return;
	size_t before;
	do {
		before = in_len;
		run_frames();
		pump();
		if (broken || out_broken() || !out_flush(live.fd))
			return conn_drop();
	} while (in_len && in_len != before && out_room());
	source_want(&live, (in_len < IN_CAP && out_room() ? EPOLLIN : 0) | (out_waiting() ? EPOLLOUT : 0));
}

static void on_live(struct source *s, u32 events)
{
	if (s->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	if (in_len == IN_CAP) {
		if (events & (EPOLLHUP | EPOLLERR))
			conn_drop();
		return;
	}
	ssize_t n = read(s->fd, in_buf + in_len, IN_CAP - in_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		conn_drop();
	else
		in_len += (size_t)n;
}

static void promote(struct pending *c, u64 nonce, u32 new_lease, size_t used)
{
	if (live.fd >= 0)
		conn_drop();
	int fd = fcntl(c->s.fd, F_DUPFD_CLOEXEC, 0);
	source_close(&c->s);
	if (fd < 0 || !source_open(&live, fd, EPOLLIN, on_live))
		return;
	lease = new_lease;
	in_len = c->n - used;
	memcpy(in_buf, c->buf + used, in_len);
	w_bytes(MAGIC, MAGIC_LEN);
	w_begin(T_HELLO, 0);
	w_int(PROTOCOL_VERSION, 2);
	w_int(epoch, 8);
	w_int(nonce, 8);
	w_int(started_wall, 8);
	w_end();
}

/* The refused side hears why; nothing else depends on these bytes arriving. */
static void reject(struct pending *c, u16 code, const char *message)
{
	u8 frame[MAGIC_LEN + HEADER + 18 + 64] = MAGIC;
	u32 length = (u32)strlen(message), payload = 18 + length;
	frame[MAGIC_LEN] = (u8)payload;
	frame[MAGIC_LEN + 4] = T_ERROR;
	frame[MAGIC_LEN + HEADER] = (u8)code;
	frame[MAGIC_LEN + HEADER + 14] = (u8)length;
	memcpy(frame + MAGIC_LEN + HEADER + 18, message, length);
	if (write(c->s.fd, frame, MAGIC_LEN + HEADER + payload) < 0)
		(void)0;
	source_close(&c->s);
}

static void try_hello(struct pending *c)
{
	for (;;) {
		u8 *m = memmem(c->buf, c->n, MAGIC, MAGIC_LEN);
		u32 skip = m ? (u32)(m - c->buf) : c->n < MAGIC_LEN ? 0 : c->n - (MAGIC_LEN - 1);
		c->n -= skip;
		memmove(c->buf, c->buf + skip, c->n);
		struct rd r = {c->buf + MAGIC_LEN, c->buf + c->n, false};
		if (!m || c->n < MAGIC_LEN + HEADER)
			return;
		u32 n = rd_u32(&r);
		u8 type = rd_u8(&r);
		u32 channel = rd_u32(&r);
		if (type != T_HELLO || channel || n < 2 || n > 64) {
			c->buf[0] = 0; /* not a greeting: look for the next magic */
			continue;
		}
		if (c->n < MAGIC_LEN + HEADER + n)
			return;
		u16 version = rd_u16(&r);
		u64 want = rd_u64(&r), nonce = rd_u64(&r);
		u32 new_lease = rd_u32(&r);
		if (version != PROTOCOL_VERSION || n != 22)
			reject(c, E_VERSION, "protocol version not spoken here");
		else if (want && want != epoch)
			reject(c, E_STALE, "another incarnation of the machine");
		else
			promote(c, nonce, new_lease, MAGIC_LEN + HEADER + n);
		return;
	}
}

static void on_pending(struct source *s, u32 events)
{
	(void)events;
	struct pending *c = (struct pending *)((u8 *)s - offsetof(struct pending, s));
	if (s->fd < 0)
		return;
	ssize_t n = read(s->fd, c->buf + c->n, HELLO_MAX - c->n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		source_close(s);
		return;
	}
	c->n += (u32)n;
	try_hello(c);
}

static void on_listener(struct source *s, u32 events)
{
	(void)events;
	int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	/* Seen from PID 1 of a PID namespace the host has no pid: whoever has one is a process of the sandbox. */
	struct ucred peer = {0};
	socklen_t size = sizeof peer;
	if (config.pid1 && (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid != 0)) {
		close(fd);
		return;
	}
	struct pending *c = NULL;
	for (int i = 0; i < MAX_PENDING; i++)
		if (pending[i].s.fd < 0)
			c = &pending[i];
	int wanted = 1 << 20;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
	if (!c || !source_open(&c->s, fd, EPOLLIN, on_pending)) {
		if (!c)
			close(fd);
		return;
	}
	c->n = 0;
	c->deadline = now + HELLO_MS;
	wake_at(c->deadline);
}

void conn_listen(int fd)
{
	in_buf = own_pages(IN_CAP);
	if (!in_buf || !out_init()) {
		perror("fiberbox-agent: buffers");
		exit(1);
	}
	lease = config.lease;
	alone_since = now;
	wake_at(now + lease);
	if (fd >= 0 && !source_open(&listener, fd, EPOLLIN, on_listener)) {
		perror("fiberbox-agent: listen");
		exit(1);
	}
}

void conn_tick(void)
{
	for (int i = 0; i < MAX_PENDING; i++) {
		if (pending[i].s.fd < 0)
			continue;
		if (now >= pending[i].deadline)
			source_close(&pending[i].s);
		else
			wake_at(pending[i].deadline);
	}
	if (live.fd >= 0 || !lease)
		return;
	if (now < alone_since + lease)
		return wake_at(alone_since + lease);
	proc_kill_all();
	exit(0);
}
