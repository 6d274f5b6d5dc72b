/* Frames and channels: reading what the host sends, queueing what it gets, and the host connection itself. */
#include "agent.h"
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
	IN_CAP = SPAWN_MAX + MAX_PAYLOAD, /* more than the longest frame; pages are touched only as far as they are needed */
	OUT_HIGH = 512 * 1024,                /* no new work for the queue above this */
	OUT_CAP = OUT_HIGH + 4 * MAX_PAYLOAD, /* never reached by well-sized replies; checked all the same */
	MAX_PENDING = 4,
	MAX_CHANNELS = 1024,
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
static u8 *in_buf, *out_buf;
static size_t in_len, out_from, out_to, frame_at;
static bool broken; /* the connection must go after this batch */
static u32 lease;
static u64 alone_since;
static struct chan *chans;
static u32 chan_count, next_own_id = 0x80000000u;

/* ---- decoding ---- */

u64 rd_int(struct rd *r, u32 bytes)
{
	if ((size_t)(r->end - r->p) < bytes) {
		r->bad = true;
		r->p = r->end;
		return 0;
	}
	u64 v = 0;
	for (u32 i = 0; i < bytes; i++)
		v |= (u64)r->p[i] << (8 * i);
	r->p += bytes;
	return v;
}

struct str rd_str(struct rd *r)
{
	u32 n = rd_u32(r);
	if (r->bad || n > (size_t)(r->end - r->p)) {
		r->bad = true;
		r->p = r->end;
		return (struct str){r->end, 0};
	}
	struct str s = {r->p, n};
	r->p += n;
	return s;
}

bool rd_text(struct rd *r, char *to, u32 cap)
{
	struct str s = rd_str(r);
	to[0] = 0;
	if (r->bad || s.n >= cap || memchr(s.p, 0, s.n)) {
		r->bad = true;
		return false;
	}
	memcpy(to, s.p, s.n);
	to[s.n] = 0;
	return true;
}

/* ---- encoding ---- */

u8 *w_space(u32 n)
{
	static u8 sink[MAX_PAYLOAD + HEADER];
	if (OUT_CAP - out_to < n && out_from) {
		memmove(out_buf, out_buf + out_from, out_to - out_from);
		out_to -= out_from;
		frame_at -= out_from;
		out_from = 0;
	}
	if (OUT_CAP - out_to < n) {
		broken = true;
		return sink;
	}
	return out_buf + out_to;
}

void w_took(u32 n)
{
	if (!broken)
		out_to += n;
}

void w_bytes(const void *p, u32 n)
{
	if (!n)
		return;
	u8 *to = w_space(n);
	if (!broken)
		memcpy(to, p, n);
	w_took(n);
}

void w_int(u64 v, u32 bytes)
{
	u8 *to = w_space(bytes);
	for (u32 i = 0; i < bytes; i++)
		to[i] = (u8)(v >> (8 * i));
	w_took(bytes);
}

void w_str(const void *p, u32 n)
{
	w_int(n, 4);
	w_bytes(p, n);
}

void w_begin(u8 type, u32 channel)
{
	frame_at = out_to;
	w_space(HEADER); /* may move the queue and frame_at with it */
	w_int(0, 4);
	w_int(type, 1);
	w_int(channel, 4);
}

void w_end(void)
{
	if (broken)
		return;
	u32 n = (u32)(out_to - frame_at - HEADER);
	for (u32 i = 0; i < 4; i++)
		out_buf[frame_at + i] = (u8)(n >> (8 * i));
}

void w_cancel(void)
{
	if (!broken)
		out_to = frame_at;
}

void w_empty(u8 type, u32 channel)
{
	w_begin(type, channel);
	w_end();
}

void w_error(u32 channel, u16 code, int err, u64 detail, const char *message)
{
	w_begin(T_ERROR, channel);
	w_int(code, 2);
	w_int((u32)err, 4);
	w_int(detail, 8);
	w_str(message, (u32)strlen(message));
	w_end();
}

u16 code_of(int err)
{
	switch (err) {
	case ENOENT: return E_NOT_FOUND;
	case EACCES:
	case EPERM: return E_PERMISSION;
	case ENOTDIR: return E_NOT_DIR;
	case EISDIR: return E_IS_DIR;
	case EEXIST: return E_EXISTS;
	case ELOOP: return E_LOOP;
	case ENOTEMPTY: return E_NOT_EMPTY;
	case ENOSPC:
	case EDQUOT: return E_NO_SPACE;
	case ENAMETOOLONG: return E_NAME_TOO_LONG;
	case EBUSY:
	case ETXTBSY: return E_BUSY;
	case EINVAL: return E_INVALID;
	case EAGAIN:
	case ENOMEM:
	case EMFILE:
	case ENFILE: return E_RESOURCES;
	case EXDEV: return E_CROSS_DEVICE;
	case EROFS: return E_READ_ONLY;
	case ECONNREFUSED: return E_REFUSED;
	case EPIPE:
	case ECONNRESET: return E_CLOSED;
	case ENXIO: return E_NOT_REGULAR;
	case ENOEXEC: return E_NOT_EXECUTABLE;
	case E2BIG: return E_TOO_LONG;
	default: return E_IO;
	}
}

void w_errno(u32 channel, int err)
{
	w_error(channel, code_of(err), err, 0, strerror(err));
}

bool out_room(void)
{
	return live.fd >= 0 && out_to - out_from < OUT_HIGH;
}

/* ---- channels ---- */

struct chan *chan_find(u32 id)
{
	for (struct chan *c = chans; c; c = c->next)
		if (c->id == id && !c->dead)
			return c;
	return NULL;
}

void *chan_open(size_t size, u32 id, u32 credit, const struct chan_ops *ops)
{
	struct chan *c = chan_count < MAX_CHANNELS ? calloc(1, size) : NULL;
	if (!c) {
		w_error(id, E_RESOURCES, ENOMEM, 0, "too many channels");
		return NULL;
	}
	c->ops = ops;
	c->id = id;
	c->credit = credit;
	c->next = chans;
	chans = c;
	chan_count++;
	return c;
}

void chan_close(struct chan *c)
{
	if (c->dead)
		return;
	c->dead = true;
	if (c->ops->drop)
		c->ops->drop(c);
}

u32 chan_next_id(void)
{
	do
		next_own_id = next_own_id == 0xffffffffu ? 0x80000000u : next_own_id + 1;
	while (chan_find(next_own_id));
	return next_own_id;
}

/* The channel that found no room comes first next time, so that none is starved by those before it. */
static void rotate(struct chan **at)
{
	struct chan *first = *at, **end = at;
	if (at == &chans)
		return;
	while (*end)
		end = &(*end)->next;
	*end = chans;
	*at = NULL;
	chans = first;
}

/* A few rounds only, so that one long job does not hold up the loop. */
void pump(void)
{
	bool again = true;
	for (int round = 0; again && round < 8; round++) {
		again = false;
		for (struct chan **at = &chans; *at; at = &(*at)->next) {
			struct chan *c = *at;
			if (!out_room())
				return rotate(at); /* goes on when the host has read some */
			if (!c->dead && c->ops->pump && c->ops->pump(c) && !c->dead)
				again = true;
		}
	}
	pump_again |= again;
}

void sweep(void)
{
	for (struct chan **at = &chans; *at;) {
		struct chan *c = *at;
		if (!c->dead) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		chan_count--;
		free(c);
	}
}

/* ---- the connection ---- */

bool conn_live(void)
{
	return live.fd >= 0;
}

static void conn_drop(void)
{
	source_close(&live);
	for (struct chan *c = chans; c; c = c->next)
		chan_close(c);
	in_len = out_from = out_to = 0;
	broken = false;
	alone_since = now;
	wake_at(now + lease);
}

static void flush(void)
{
	while (live.fd >= 0 && out_from < out_to) {
		ssize_t n = write(live.fd, out_buf + out_from, out_to - out_from);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			conn_drop();
			return;
		}
		out_from += (size_t)n;
	}
	if (out_from == out_to)
		out_from = out_to = 0;
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
	if (at && live.fd >= 0) {
		in_len -= at;
		memmove(in_buf, in_buf + at, in_len);
	}
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
		flush();
	} while (live.fd >= 0 && !broken && in_len && in_len != before && out_room());
	if (broken)
		conn_drop();
	if (live.fd >= 0)
		source_want(&live, (in_len < IN_CAP && out_room() ? EPOLLIN : 0) | (out_from < out_to ? EPOLLOUT : 0));
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

static u8 *buffer(size_t n)
{
	/* Supervisors are forks of the agent and have no use for its buffers. */
	u8 *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || madvise(p, n, MADV_DONTFORK) < 0) {
		perror("fiberbox-agent: mmap");
		exit(1);
	}
	return p;
}

void conn_listen(int fd)
{
	in_buf = buffer(IN_CAP);
	out_buf = buffer(OUT_CAP);
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
