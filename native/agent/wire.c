/* Frames: what the host asks, field by field, and the queue of what it gets. */
#include "agent.h"
#include <sys/mman.h>

enum {
	OUT_HIGH = 512 * 1024,           /* no new work for the queue above this */
	DATA_MAX = 128 * 1024,
	OUT_CAP = OUT_HIGH + (2u << 20), /* room for the longest answer, the list of processes; checked all the same */
};

static struct queue out = {.cap = OUT_CAP};
static u32 frame_at;
static bool broken; /* the queue overflowed: what is in it is of no use */

/* ---- decoding ---- */

static const u8 *rd_bytes(struct rd *r, size_t n)
{
	const u8 *p = r->p;
	if ((size_t)(r->end - p) < n) {
		r->bad = true;
		p = r->end;
		n = 0;
	}
	r->p = p + n;
	return p;
}

u64 rd_int(struct rd *r, u32 bytes)
{
	u64 v = 0;
	const u8 *p = rd_bytes(r, bytes);
	for (u32 i = 0; !r->bad && i < bytes; i++)
		v |= (u64)p[i] << (8 * i);
	return v;
}

static struct str rd_str(struct rd *r)
{
	u32 n = rd_u32(r);
	const u8 *p = rd_bytes(r, n);
	return (struct str){p, r->bad ? 0 : n};
}

/* NUL-free, and ended with one in the copy. */
static void rd_text(struct rd *r, char *to, u32 cap)
{
	struct str s = rd_str(r);
	r->bad |= s.n >= cap || memchr(s.p, 0, s.n);
	if (!r->bad)
		memcpy(to, s.p, s.n);
	to[r->bad ? 0 : s.n] = 0;
}

static void rd_path(struct rd *r, char *to)
{
	rd_text(r, to, PATH_MAX);
	r->bad |= to[0] != '/';
}

bool decode(struct request *q, const char *fields, struct rd r)
{
	u32 numbers = 0;
	for (; *fields; fields++)
		switch (*fields) {
		case 'u':
			q->uid = rd_u32(&r);
			q->gid = rd_u32(&r);
			break;
		case 'c': q->credit = rd_u32(&r); break;
		case 'm': q->mode = rd_u32(&r); break;
		case 'P':
		case 'i': rd_text(&r, q->id, sizeof q->id); break;
		case 'p': rd_path(&r, q->path); break;
		case 't': rd_path(&r, q->to); break;
		case 's': q->text = rd_str(&r); break;
		case '*': q->rest = (struct str){r.p, (u32)(r.end - r.p)}; return !r.bad;
		default: q->n[numbers++] = rd_int(&r, (u32)(*fields - '0'));
		}
	return !r.bad && r.p == r.end;
}

u64 hash_of(const void *p, size_t n)
{
	u64 hash = 14695981039346656037u; /* FNV-1a */
	for (const u8 *b = p; n--; b++)
		hash = (hash ^ *b) * 1099511628211u;
	return hash;
}

/* ---- queues ---- */

/* Moves what is waiting to the front when there would be no room behind it; by how much. */
static u32 make_room(struct queue *q, u32 n)
{
	u32 moved = q->cap - q->to < n ? q->from : 0;
	if (moved) {
		memmove(q->bytes, q->bytes + q->from, q->to - q->from);
		q->to -= moved;
		q->from = 0;
	}
	return moved;
}

u32 queue_add(struct queue *q, const u8 *p, u32 n)
{
	if (!n || (!q->bytes && !(q->bytes = malloc(q->cap))))
		return 0;
	make_room(q, n);
	if (n > q->cap - q->to)
		n = q->cap - q->to;
	memcpy(q->bytes + q->to, p, n);
	q->to += n;
	return n;
}

bool queue_flush(struct queue *q, int fd)
{
	while (q->from < q->to) {
		ssize_t n = write(fd, q->bytes + q->from, q->to - q->from);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		q->from += (u32)n;
	}
	q->from = q->to = 0;
	return true;
}

void queue_free(struct queue *q)
{
	free(q->bytes);
	q->bytes = NULL;
	q->from = q->to = 0;
}

/* ---- encoding ---- */

u8 *w_space(u32 n)
{
	static u8 sink[MAX_PAYLOAD + HEADER];
	frame_at -= make_room(&out, n);
	broken |= out.cap - out.to < n;
	return broken ? sink : out.bytes + out.to;
}

void w_took(u32 n)
{
	if (!broken)
		out.to += n;
}

void w_bytes(const void *p, u32 n)
{
	u8 *to = w_space(n);
	if (!broken && n)
		memcpy(to, p, n);
	w_took(n);
}

static void put(u8 *to, u64 v, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++)
		to[i] = (u8)(v >> (8 * i));
}

void w_numbers(const char *widths, const u64 *v)
{
	for (; *widths; widths++, v++) {
		u32 bytes = (u32)(*widths - '0');
		put(w_space(bytes), *v, bytes);
		w_took(bytes);
	}
}

void w_str(const void *p, u32 n)
{
	w_ints("4", n);
	w_bytes(p, n);
}

void w_begin(u8 type, u32 channel)
{
	w_space(HEADER); /* may move the queue */
	frame_at = out.to;
	w_ints("414", 0, type, channel);
}

void w_end(void)
{
	if (!broken)
		put(out.bytes + frame_at, out.to - frame_at - HEADER, 4);
}

/* Forgets the frame that was begun. */
static void w_cancel(void)
{
	if (!broken)
		out.to = frame_at;
}

ssize_t w_data(u32 channel, int fd, off_t at, u64 most)
{
	u32 n = most < DATA_MAX ? (u32)most : DATA_MAX;
	w_begin(T_DATA, channel);
	u8 *to = w_space(n);
	ssize_t got = at < 0 ? read(fd, to, n) : pread(fd, to, n, at);
	if (got <= 0) {
		w_cancel();
		return got;
	}
	w_took((u32)got);
	w_end();
	return got;
}

void w_empty(u8 type, u32 channel)
{
	w_begin(type, channel);
	w_end();
}

void w_error(u32 channel, u16 code, int err, u64 detail, const char *message)
{
	w_begin(T_ERROR, channel);
	w_ints("248", code, (u32)err, detail);
	w_str(message, (u32)strlen(message));
	w_end();
}

void w_errno(u32 channel, int err)
{
	w_error(channel, E_ERRNO, err, 0, strerror(err));
}

/* ---- the queue to the host ---- */

u8 *own_pages(size_t n)
{
	u8 *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/* Supervisors are forks of the agent and have no use for its buffers. Only what is touched shall take memory. */
	madvise(p, n, MADV_DONTFORK);
	madvise(p, n, MADV_NOHUGEPAGE);
	return p;
}

bool out_init(void)
{
	out.bytes = own_pages(OUT_CAP);
	return out.bytes;
}

void out_clear(void)
{
	out.from = out.to = 0;
	broken = false;
}

bool out_waiting(void)
{
	return out.to;
}

bool out_room(void)
{
	return conn_live() && !broken && out.to - out.from < OUT_HIGH;
}

bool out_flush(int fd)
{
	return !broken && queue_flush(&out, fd);
}
