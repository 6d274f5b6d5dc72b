/* A process's output: a ring of records, each a 12 byte header (time * 4 + stream, length) and its bytes. Both streams share one
 * order and one byte cursor. The ring starts at a page and grows on demand, so that a quiet process costs nothing; what it may
 * hold is bounded by its own capacity and by the budget of the machine. */
#include "agent.h"
#include <sys/mman.h>

enum { HEAD = 12, PAGE = 4096, MERGE_MAX = 128 * 1024 };

size_t journal_used;

static void ring_get(const struct journal *j, u64 pos, u8 *to, u32 n)
{
	u32 at = (u32)(pos % j->cap), first = n < j->cap - at ? n : j->cap - at;
	memcpy(to, j->ring + at, first);
	memcpy(to + first, j->ring, n - first);
}

static void ring_put(const struct journal *j, u64 pos, const u8 *from, u32 n)
{
	u32 at = (u32)(pos % j->cap), first = n < j->cap - at ? n : j->cap - at;
	memcpy(j->ring + at, from, first);
	memcpy(j->ring, from + first, n - first);
}

struct head {
	u64 when;
	u8 stream;
	u32 len;
};

static struct head head_at(const struct journal *j, u64 pos)
{
	u8 raw[HEAD];
	u64 tagged;
	struct head h;
	ring_get(j, pos, raw, HEAD);
	memcpy(&tagged, raw, 8);
	memcpy(&h.len, raw + 8, 4);
	h.when = tagged >> 2;
	h.stream = tagged & 3;
	return h;
}

static void put_head(struct journal *j, u64 pos, struct head h)
{
	u8 raw[HEAD];
	u64 tagged = h.when << 2 | h.stream;
	memcpy(raw, &tagged, 8);
	memcpy(raw + 8, &h.len, 4);
	ring_put(j, pos, raw, HEAD);
}

/* Positions keep their meaning modulo the new capacity, so readers need not be told. */
static bool resize(struct journal *j, u32 cap)
{
	struct journal to = *j;
	to.cap = cap;
	to.ring = NULL;
	if (cap) {
		to.ring = own_pages(cap);
		if (!to.ring)
			return false;
	}
	for (u64 pos = j->tail; pos < j->head;) {
		u32 at = (u32)(pos % j->cap), n = j->cap - at;
		if (n > j->head - pos)
			n = (u32)(j->head - pos);
		ring_put(&to, pos, j->ring + at, n);
		pos += n;
	}
	if (j->ring)
		munmap(j->ring, j->cap);
	journal_used = journal_used - j->cap + cap;
	*j = to;
	return true;
}

static void grow(struct journal *j, u64 need)
{
	u64 cap = j->cap ? j->cap : PAGE;
	while (cap < need)
		cap *= 2;
	if (cap > j->max)
		cap = j->max;
	if (cap <= j->cap)
		return;
	while (journal_used + cap - j->cap > config.budget && proc_evict())
		;
	/* A first page is given even over the budget: without it a process would have no journal at all. */
	if (journal_used + cap - j->cap > config.budget)
		cap = j->cap ? j->cap : PAGE;
	if (cap > j->cap)
		resize(j, (u32)cap);
}

static void drop_oldest(struct journal *j)
{
	u32 len = head_at(j, j->tail).len;
	j->tail += HEAD + len;
	j->oldest += len;
}

void journal_append(struct journal *j, u8 stream, const u8 *p, u32 n)
{
	if (!n)
		return;
	if (j->head - j->tail + HEAD + n > j->cap)
		grow(j, j->head - j->tail + HEAD + n);
	j->next += n;
	u32 fits = j->cap > HEAD ? j->cap - HEAD : 0, keep = n < fits ? n : fits;
	p += n - keep;
	if (keep < n) { /* more than the whole ring: everything before is gone */
		j->tail = j->head;
		j->oldest = j->next - keep;
	}
	while (j->head > j->tail && j->head - j->tail + HEAD + keep > j->cap)
		drop_oldest(j);
	if (!keep)
		return;
	if (j->head > j->tail && j->last >= j->tail) {
		struct head h = head_at(j, j->last);
		if (h.stream == stream && h.when == wall && h.len + keep <= MERGE_MAX) {
			h.len += keep;
			put_head(j, j->last, h);
			ring_put(j, j->head, p, keep);
			j->head += keep;
			return;
		}
	}
	j->last = j->head;
	put_head(j, j->head, (struct head){wall, stream, keep});
	ring_put(j, j->head + HEAD, p, keep);
	j->head += HEAD + keep;
}

u64 journal_room(const struct journal *j, u64 needed_from)
{
	u64 could = config.budget > journal_used ? j->cap + (config.budget - journal_used) : j->cap;
	if (could > j->max)
		could = j->max;
	if (could < PAGE)
		could = PAGE;
	u64 used = j->head - needed_from + HEAD;
	return used < could ? could - used : 0;
}

void journal_seek(const struct journal *j, struct place *at, u64 cursor)
{
	*at = (struct place){.pos = j->tail, .at = cursor};
	if (cursor <= j->oldest)
		return; /* an older cursor finds its gap at the first peek */
	u64 start = j->oldest;
	while (at->pos < j->head) {
		struct head h = head_at(j, at->pos);
		if (cursor < start + h.len || at->pos + HEAD + h.len == j->head) {
			at->skip = (u32)(cursor - start);
			return;
		}
		start += h.len;
		at->pos += HEAD + h.len;
	}
}

/* What comes next for this reader; a piece of length 0 with a cursor beyond `at` is a gap up to there. */
bool journal_peek(const struct journal *j, struct place *at, u32 max, struct piece *piece)
{
	if (at->pos < j->tail || at->at < j->oldest) {
		at->pos = j->tail;
		at->skip = 0;
		if (at->at < j->oldest) {
			*piece = (struct piece){.cursor = j->oldest};
			return true;
		}
	}
	if (at->pos >= j->head)
		return false;
	struct head h = head_at(j, at->pos);
	if (at->skip == h.len) {
		if (at->pos + HEAD + h.len >= j->head)
			return false; /* stay: the newest record may still be extended */
		at->pos += HEAD + h.len;
		at->skip = 0;
		h = head_at(j, at->pos);
	}
	u32 n = h.len - at->skip;
	*piece = (struct piece){.cursor = at->at, .when = h.when, .stream = h.stream, .len = n < max ? n : max};
	return true;
}

void journal_take(const struct journal *j, struct place *at, const struct piece *piece, u8 *to)
{
	ring_get(j, at->pos + HEAD + at->skip, to, piece->len);
	at->skip += piece->len;
	at->at += piece->len;
}

u64 journal_holds(const struct journal *j, const struct place *at)
{
	if (at->pos < j->tail || at->pos >= j->head)
		return at->pos < j->tail ? j->tail : j->head;
	struct head h = head_at(j, at->pos);
	return at->skip == h.len ? at->pos + HEAD + h.len : at->pos;
}

/* A finished process keeps what it wrote and no more. */
void journal_trim(struct journal *j)
{
	u64 held = (j->head - j->tail + PAGE - 1) / PAGE * PAGE;
	if (held < j->cap)
		resize(j, (u32)held);
}

void journal_free(struct journal *j)
{
	if (j->ring)
		munmap(j->ring, j->cap);
	journal_used -= j->cap;
	*j = (struct journal){.max = j->max, .head = j->head, .tail = j->head, .next = j->next, .oldest = j->next};
}
