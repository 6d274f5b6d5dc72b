/* The connection to the host: one at a time, made by a greeting; the next greeting replaces it. */
#include "agent.h"
#include <stdio.h>
#include <sys/socket.h>

enum {
	IN_CAP = SPAWN_MAX + MAX_PAYLOAD, /* more than the longest frame; pages are touched only as far as they are needed */
	HELLO_BYTES = 22,
};

static struct source listener = {.fd = -1}, live = {.fd = -1};
static u8 *in_buf;
static size_t in_len;
static bool broken; /* the host broke the protocol */
static u32 lease;
static u64 alone_since;

/* The newest connection, as long as it has not said HELLO. */
static struct {
	struct source s;
	u32 n;
	u8 bytes[256];
} caller = {.s.fd = -1};

bool conn_live(void)
{
	return live.fd >= 0;
}

static void alone(void)
{
	alone_since = now;
	wake_at(now + lease);
}

static void conn_drop(void)
{
	source_close(&live);
	chan_close_all();
	out_clear();
	in_len = 0;
	broken = false;
	alone();
}

static void run_frames(void)
{
	size_t at = 0;
	while (in_len - at >= HEADER && out_room() && !broken) {
		struct rd r = {in_buf + at, in_buf + in_len, false};
		u32 n = rd_u32(&r);
		u8 type = rd_u8(&r);
		u32 channel = rd_u32(&r);
		broken = n > (type == T_SPAWN ? SPAWN_MAX : MAX_PAYLOAD) || (type == T_NOP && (n || channel)) || type >= T_OK || type == T_HELLO;
		if (broken || in_len - at - HEADER < n)
			break;
		r.end = r.p + n;
		at += HEADER + n;
		if (type != T_NOP)
			handle(type, channel, r);
	}
	in_len -= at;
	memmove(in_buf, in_buf + at, in_len);
}

bool conn_run(void)
{
	size_t before;
	bool again = false, full = false;
	if (live.fd < 0)
		return false;
	do {
		before = in_len;
		run_frames();
		again = pump();
		full = !out_room();
		if (broken || !out_flush(live.fd)) {
			conn_drop();
			return false;
		}
	} while (in_len && in_len != before && out_room());
	source_want(&live, (in_len < IN_CAP && out_room() ? EPOLLIN : 0) | (out_waiting() ? EPOLLOUT : 0));
	/* What stopped for want of room goes on at once: no event tells of room that the host made by reading everything. */
	return again || (full && out_room());
}

/* How many bytes came; 0 for now, -1 when the other side is gone. */
static ssize_t receive(int fd, u8 *to, size_t room)
{
	ssize_t n = read(fd, to, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n > 0 ? n : -1;
}

static void on_live(struct source *s, u32 events)
{
	/* With a full buffer only its end can be news. */
	if (!(events & (in_len < IN_CAP ? EPOLLIN | EPOLLHUP | EPOLLERR : EPOLLHUP | EPOLLERR)))
		return;
	ssize_t n = in_len < IN_CAP ? receive(s->fd, in_buf + in_len, IN_CAP - in_len) : -1;
	if (n < 0)
		conn_drop();
	else
		in_len += (size_t)n;
}

static void promote(u64 nonce, u32 new_lease, u32 used)
{
	if (live.fd >= 0)
		conn_drop();
	int fd = fcntl(caller.s.fd, F_DUPFD_CLOEXEC, 0);
	source_close(&caller.s);
	if (fd < 0 || !source_open(&live, NULL, fd, EPOLLIN, on_live))
		return;
	lease = new_lease;
	in_len = caller.n - used;
	memcpy(in_buf, caller.bytes + used, in_len);
	w_bytes(MAGIC, MAGIC_LEN);
	w_frame(T_HELLO, 0, "288", PROTOCOL_VERSION, epoch, nonce);
}

/* The refused side hears why, by an ERROR without a message; nothing else depends on these bytes arriving. */
static void reject(u16 code)
{
	u8 frame[MAGIC_LEN + HEADER + 18] = MAGIC;
	frame[MAGIC_LEN] = 18;
	frame[MAGIC_LEN + 4] = T_ERROR;
	frame[MAGIC_LEN + HEADER] = (u8)code;
	if (write(caller.s.fd, frame, sizeof frame) < 0)
		(void)0;
	source_close(&caller.s);
}

/* True when the greeting, or what looked like one, has been dealt with. */
static bool greeting(void)
{
	struct rd r = {caller.bytes + MAGIC_LEN, caller.bytes + caller.n, false};
	u32 n = rd_u32(&r);
	u8 type = rd_u8(&r);
	u32 channel = rd_u32(&r);
	if (r.bad)
		return false;
	if (type != T_HELLO || channel || n < 2 || n > 64) {
		caller.bytes[0] = 0; /* none: look for the next magic */
		return true;
	}
	if ((size_t)(r.end - r.p) < n)
		return false;
	u16 version = rd_u16(&r);
	u64 want = rd_int(&r, 8), nonce = rd_int(&r, 8);
	u32 new_lease = rd_u32(&r);
	if (version != PROTOCOL_VERSION || n != HELLO_BYTES)
		reject(E_VERSION);
	else if (want && want != epoch)
		reject(E_STALE);
	else
		promote(nonce, new_lease, MAGIC_LEN + HEADER + n);
	return true;
}

static void on_caller(struct source *s, u32 events)
{
	(void)events;
	ssize_t n = receive(s->fd, caller.bytes + caller.n, sizeof caller.bytes - caller.n);
	if (n < 0)
		return source_close(s);
	caller.n += (u32)n;
	do {
		u8 *magic = memmem(caller.bytes, caller.n, MAGIC, MAGIC_LEN);
		u32 keep = caller.n < MAGIC_LEN ? caller.n : MAGIC_LEN - 1; /* of what is not the magic, its beginning may be */
		if (magic)
			keep = (u32)(caller.bytes + caller.n - magic);
		memmove(caller.bytes, caller.bytes + caller.n - keep, keep);
		caller.n = keep;
		if (!magic)
			return;
	} while (greeting() && s->fd >= 0);
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
	int wanted = 1 << 20;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
	source_close(&caller.s);
	caller.n = 0;
	(void)source_open(&caller.s, NULL, fd, EPOLLIN, on_caller);
}

void conn_listen(int fd)
{
	in_buf = own_pages(IN_CAP);
	if (!in_buf || !out_init() || !source_open(&listener, NULL, fd, EPOLLIN, on_listener)) {
		perror("fiberbox-agent: set-up");
		exit(1);
	}
	lease = config.lease;
	alone();
}

void conn_tick(void)
{
	if (live.fd >= 0 || !lease)
		return;
	if (now < alone_since + lease)
		return wake_at(alone_since + lease);
	proc_kill_all();
	exit(0);
}
