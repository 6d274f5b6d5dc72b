/* A fuzzer for the agent: the whole of it, handlers included, against a host that is mostly well spoken and often wrong. It must be
 * run in a mount, PID and network namespace of its own, in a directory that it makes its root (run.sh does both), because the
 * requests really are carried out.
 *
 *   fuzz ROOT SECONDS SEED
 *
 * Besides what the sanitizers find it is an error if the agent says anything malformed, keeps more than its budgets, or stops
 * answering a well-formed ping. */
#include "../agent/agent.h"
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

static u64 state;
static int host = -1;
static struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0fiberbox-fuzz"};

static u32 random32(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (u32)(state >> 33);
}

static u32 below(u32 n)
{
	return random32() % n;
}

static void fail(const char *what)
{
	fprintf(stderr, "fuzz: %s\n", what);
	abort();
}

/* ---- what the host says ---- */

static u8 out[2 * SPAWN_MAX];
static size_t length;

static void put(u64 v, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++)
		out[length++] = (u8)(v >> (8 * i));
}

static void put_text(const char *text)
{
	size_t n = strlen(text);
	put(n, 4);
	memcpy(out + length, text, n);
	length += n;
}

static void put_string(const char *text)
{
	size_t n = strlen(text) + 1;
	memcpy(out + length, text, n);
	length += n;
}

static const char *pick(const char *const *from, u32 n)
{
	return from[below(n)];
}
#define PICK(list) pick(list, sizeof list / sizeof *list)

static const char *id(void)
{
	static const char *const ids[] = {"a", "b", "c", "d", "e", "f", "", "not/an id", "0123456789012345678901234567890123456789012345678901234567890123",
	                                  "01234567890123456789012345678901234567890123456789012345678901234"};
	return PICK(ids);
}

static const char *path(void)
{
	static const char *const paths[] = {"/", "/t", "/t/a", "/t/b", "/t/a/b/c", "/t/link", "/t/loop", "/t/../t/b", "/t/a/", "relative", "", "/proc/self/mem",
	                                    "/proc/self/fd/3", "/t/fifo", "/dev/null", "/t/./a//b", "/t/a/.."};
	return PICK(paths);
}

static void put_user(void)
{
	u32 uid = below(4) ? 0 : 1000;
	put(uid, 4);
	put(uid, 4);
}

static void put_noise(u32 max)
{
	for (u32 n = below(max); n; n--)
		out[length++] = (u8)random32();
}

static u64 number(void)
{
	static const u64 edges[] = {0, 1, 2, 9, 100, 4096, 65536, 262144, 0x7fffffff, 0xffffffff, 1ull << 53, INT64_MAX, UINT64_MAX};
	return edges[below(sizeof edges / sizeof *edges)];
}

static void put_spec(void)
{
	static const char *const programs[] = {"/p", "p", "/none", "/t", "./p"};
	static const char *const steps[] = {"", "w", "we", "wwwwwwwwww", "r", "rw", "d", "wdp", "p", "k", "swsws", "dddp"};
	put(below(4), 1);
	put_user();
	put(below(100), 2);
	put(below(100), 2);
	put(below(2) ? 4096 : number(), 4);
	put(below(50) ? 2 : number(), 4);
	put(below(50) ? 1 : number(), 4);
	put_string(id());
	put_string(below(8) ? "/" : path());
	put_string(PICK(programs));
	put_string(PICK(steps));
	put_string(below(16) ? "PATH=/none:/:" : "broken");
}

static void put_body(u8 type)
{
	u64 credit = below(4) ? 1 << 20 : number();
	switch (type) {
	case T_CREDIT: return put(number(), 4);
	case T_DATA: return put_noise(3000);
	case T_SPAWN: put(credit, 4); put(below(4), 4); put(below(2) ? 0 : below(5000), 4); put_text(path()); return put_spec();
	case T_ATTACH: put_text(id()); put(below(2) ? 0 : number(), 8); return put(credit, 4);
	case T_SIGNAL: put_text(id()); put(below(3) ? 0 + below(20) : random32(), 1); return put(below(4), 1);
	case T_KILL: put_text(id()); return put(below(2) ? 5 : number(), 4);
	case T_CANCEL: put_text(id()); put(below(4), 4); put(below(4), 1); return put(below(2) ? 5 : number(), 4);
	case T_LIMIT: put_text(id()); return put(number(), 4);
	case T_STDIN: put_text(id()); put(below(2) ? 0 : number(), 8); return put_noise(9000);
	case T_STDIN_CLOSE: return put_text(id());
	case T_RESIZE: put_text(id()); put(number(), 2); return put(number(), 2);
	case T_STAT: put_user(); return put_text(path());
	case T_READ: put_user(); put(below(2) ? 0 : number(), 8); put(number(), 8); put(credit, 4); return put_text(path());
	case T_WRITE: put_user(); put(number(), 4); put_text(path()); return put_noise(3000);
	case T_UPLOAD: put_user(); put(number(), 4); put_text(id()); put_text(path()); put(below(2) ? 0 : number(), 8); return put_noise(3000);
	case T_COMMIT: put_text(id()); return put(number(), 8);
	case T_ABORT: return put_text(id());
	case T_LIST: put_user(); put(below(2) ? 9 : number(), 2); put(number(), 4); return put_text(path());
	case T_MKDIR: put_user(); put(below(4) ? 0755 : number(), 4); put(below(2), 1); return put_text(path());
	case T_RENAME: put_user(); put(below(2), 1); put_text(path()); return put_text(path());
	case T_REMOVE: put_user(); put(below(2), 1); return put_text(path());
	case T_CHMOD: put_user(); put(0700, 4); return put_text(path());
	case T_TIMES: put_user(); put(random32(), 8); put(random32(), 4); return put_text(path());
	case T_LINK: put_user(); put_text(path()); return put_text(path());
	case T_WATCH: put_user(); put(below(2), 1); put(credit, 4); return put_text(path());
	case T_DIAL: put(credit, 4); put(below(8), 1); return put(below(2) ? 7777 : number(), 2);
	case T_LISTEN: put(credit, 4); return put(below(2) ? 7777 : 0, 2);
	case T_PING:
	case T_EOF:
	case T_CLOSE:
	case T_PROCESSES: return;
	default: put_noise(100);
	}
}

static u32 last_channel;
static bool aligned; /* no wrong length was said on this connection */

static void put_frame(void)
{
	static const u8 types[] = {T_CREDIT, T_CLOSE, T_DATA, T_EOF, T_PING, T_SPAWN, T_SPAWN, T_SPAWN, T_ATTACH, T_SIGNAL, T_KILL, T_CANCEL, T_LIMIT, T_STDIN, T_STDIN_CLOSE, T_RESIZE,
	                           T_PROCESSES, T_STAT, T_READ, T_WRITE, T_UPLOAD, T_COMMIT, T_ABORT, T_LIST, T_MKDIR, T_RENAME, T_REMOVE, T_CHMOD, T_TIMES, T_LINK, T_WATCH,
	                           T_DIAL, T_LISTEN};
	size_t start = length;
	u8 type = below(200) ? types[below(sizeof types)] : (u8)random32();
	u32 channel = type < T_PING ? last_channel - below(8) : ++last_channel;
	if (below(100) == 0)
		channel = random32();
	if (type == T_DATA && below(2))
		channel = 0x80000001u + below(4);
	put(0, 4);
	put(type, 1);
	put(channel, 4);
	put_body(type);
	/* Mistakes: bytes changed, missing or added, and now and then a wrong length. */
	if (below(6) == 0 && length > start + HEADER)
		for (u32 n = below(4); n; n--)
			out[start + HEADER + below((u32)(length - start - HEADER))] = (u8)random32();
	if (below(12) == 0 && length > start + HEADER)
		length -= below((u32)(length - start - HEADER));
	if (below(12) == 0)
		put_noise(20);
	u32 n = (u32)(length - start - HEADER);
	if (below(400) == 0) {
		n = random32();
		aligned = false;
	}
	for (u32 i = 0; i < 4; i++)
		out[start + i] = (u8)(n >> (8 * i));
}

/* ---- what the agent answers ---- */

static u8 in[4 << 20];
static size_t filled;
static bool greeted, ponged;
static u32 ping_channel;

static void check_frames(void)
{
	size_t at = 0;
	if (!greeted) {
		if (filled < MAGIC_LEN)
			return;
		if (memcmp(in, MAGIC, MAGIC_LEN) != 0)
			fail("the greeting is not the magic");
		at = MAGIC_LEN;
		greeted = true;
	}
	while (filled - at >= HEADER) {
		struct rd r = {in + at, in + filled, false};
		u32 n = rd_u32(&r);
		u8 type = rd_u8(&r);
		u32 channel = rd_u32(&r);
		if (n > MAX_PAYLOAD)
			fail("a frame over the limit");
		if (type != T_HELLO && type != T_CREDIT && type != T_DATA && type != T_EOF && (type < T_OK || type > T_CONNECTED))
			fail("a frame of no known type");
		if (filled - at < HEADER + n)
			break;
		ponged |= type == T_OK && channel == ping_channel;
		at += HEADER + n;
	}
	filled -= at;
	memmove(in, in + at, filled);
}

static bool take(void)
{
	ssize_t n = recv(host, in + filled, sizeof in - filled, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		return false;
	if (n > 0)
		filled += (size_t)n;
	check_frames();
	return true;
}

static bool say(const u8 *p, size_t n)
{
	while (n) {
		ssize_t w = send(host, p, below(3) ? n : 1 + below((u32)n), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		} else if (errno != EAGAIN)
			return false;
		loop_once(0);
		if (!take())
			return false;
	}
	return true;
}

static bool greet(void)
{
	if (host >= 0)
		close(host);
	host = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (host < 0 || connect(host, (struct sockaddr *)&address, sizeof(sa_family_t) + 14) < 0)
		fail("cannot connect");
	filled = 0;
	greeted = false;
	aligned = true;
	length = 0;
	put_noise(40);
	memcpy(out + length, MAGIC, MAGIC_LEN);
	length += MAGIC_LEN;
	put(22, 4);
	put(T_HELLO, 1);
	put(0, 4);
	put(PROTOCOL_VERSION, 2);
	put(below(20) ? 0 : epoch, 8);
	put(42, 8);
	put(0, 4);
	if (below(20) == 0)
		out[below((u32)length)] ^= 1;
	return say(out, length);
}

/* After any number of mistakes in payloads, a connection that stands must answer. */
static void check_alive(void)
{
	length = 0;
	put(0, 4);
	put(T_PING, 1);
	put(ping_channel = ++last_channel, 4);
	ponged = false;
	if (!say(out, length))
		return;
	for (int i = 0; i < 5000 && !ponged; i++) {
		loop_once(1);
		if (!take())
			return;
	}
	if (!ponged)
		fail("no answer to a ping");
}

static void session(void)
{
	if (!greet())
		return;
	for (u32 rounds = 1 + below(30); rounds; rounds--) {
		length = 0;
		for (u32 n = 1 + below(20); n; n--)
			put_frame();
		if (!say(out, length))
			return;
		for (u32 n = below(10); n; n--) {
			loop_once(1);
			if (!take())
				return;
		}
		if (journal_used > config.budget + 2048 * 4096)
			fail("journals over the budget");
	}
	if (greeted && aligned)
		check_alive();
}

int main(int argc, char **argv)
{
	if (argc != 4 || chroot(argv[1]) < 0 || chdir("/") < 0)
		fail("usage: fuzz ROOT SECONDS SEED, as root of a namespace");
	state = strtoull(argv[3], NULL, 10);
	config.pid1 = false;
	config.budget = 256 * 1024;
	int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listening < 0 || bind(listening, (struct sockaddr *)&address, sizeof(sa_family_t) + 14) < 0 || listen(listening, 16) < 0)
		fail("cannot listen");
	loop_init();
	conn_listen(listening);
	pool_init();
	u64 end = now + strtoull(argv[2], NULL, 10) * 1000, sessions = 0;
	for (; now < end; sessions++)
		session();
	close(host);
	for (int i = 0; i < 10; i++)
		loop_once(1);
	proc_kill_all();
	printf("fuzz: %llu sessions, %u requests, nothing found\n", (unsigned long long)sessions, last_channel);
	return 0;
}
