/* Frames: reading what the host sends, and the queue of what it gets. */
#include "agent.h"
#include <sys/mman.h>

enum {
	OUT_HIGH = 512 * 1024,                /* no new work for the queue above this */
	OUT_CAP = OUT_HIGH + 4 * MAX_PAYLOAD, /* never reached by well-sized replies; checked all the same */
};

static u8 *out_buf;
static size_t out_from, out_to, frame_at;
static bool broken; /* the queue overflowed: what is in it is of no use */

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
	case EADDRINUSE:
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

/* ---- the queue ---- */

u8 *own_pages(size_t n)
{
	/* Supervisors are forks of the agent and have no use for its buffers. */
	u8 *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, n, MADV_DONTFORK);
	return p;
}

bool out_init(void)
{
	out_buf = own_pages(OUT_CAP);
	return out_buf != NULL;
}

void out_clear(void)
{
	out_from = out_to = 0;
	broken = false;
}

bool out_broken(void)
{
	return broken;
}

bool out_waiting(void)
{
	return out_from < out_to;
}

bool out_room(void)
{
	return conn_live() && !broken && out_to - out_from < OUT_HIGH;
}

/* False when the other side is gone. */
bool out_flush(int fd)
{
	while (out_from < out_to) {
		ssize_t n = write(fd, out_buf + out_from, out_to - out_from);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0)
			return false;
		out_from += (size_t)n;
	}
	out_from = out_to = 0;
	return true;
}
