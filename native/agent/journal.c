/* A process's output: a ring of records, each a header and its bytes. Both streams share one order and one byte cursor. The ring is
 * as large as it may ever get, but only address space until it is written to, so that a quiet process costs nothing. What all rings
 * hold is bounded by the budget of the machine: beyond it a journal forgets its oldest records to make room for new ones. */
#include "agent.h"
#include <sys/mman.h>

enum { PAGE = 4096, MERGE_MAX = 128 * 1024 };

struct __attribute__((packed)) head {
	u64 cursor, when;
	u32 len;
	u8 stream;
};
enum { HEAD = sizeof(struct head) };

size_t journal_used;

static void ring_get(const struct journal *j, u64 pos, void *to, u32 n)
{
	u32 at = (u32)(pos % j->cap), first = n < j->cap - at ? n : j->cap - at;
	memcpy(to, j->ring + at, first);
	memcpy((u8 *)to + first, j->ring, n - first);
}

static void ring_put(const struct journal *j, u64 pos, const void *from, u32 n)
{
	u32 at = (u32)(pos % j->cap), first = n < j->cap - at ? n : j->cap - at;
	memcpy(j->ring + at, from, first);
	memcpy(j->ring, (const u8 *)from + first, n - first);
}

static struct head head_at(const struct journal *j, u64 pos)
{
	struct head h;
	ring_get(j, pos, &h, HEAD);
	return h;
}

u64 journal_oldest(const struct journal *j)
{
	return j->tail < j->head ? head_at(j, j->tail).cursor : j->next;
}

/* ---- memory ---- */

static u64 page_up(u64 pos)
{
	return (pos + PAGE - 1) / PAGE * PAGE;
}

static u64 page_down(u64 pos)
{
	return pos / PAGE * PAGE;
}

/* Counts the pages up to a position as taken. Those a whole ring before it are the same memory. */
static void take_pages(struct journal *j, u64 to)
{
	u64 before = j->top - j->held;
	if (page_up(to) > j->top)
		j->top = page_up(to);
	if (j->top - j->held > j->cap)
		j->held = j->top - j->cap;
	journal_used += (j->top - j->held) - before;
}

/* A finished process keeps the pages of what it wrote and no more. */
void journal_trim(struct journal *j)
{
	u64 to = page_down(j->tail);
	while (j->ring && j->held < to) {
		u64 at = j->held % j->cap, n = to - j->held < j->cap - at ? to - j->held : j->cap - at;
		madvise(j->ring + at, n, MADV_DONTNEED);
		j->held += n;
		journal_used -= n;
	}
}

/* How much a journal may hold, in whole pages. A first one is given even over the budget: without it a process would have none. */
static u64 may_hold(const struct journal *j)
{
	u64 could = j->top - j->held;
	if (config.budget > journal_used)
		could += page_down(config.budget - journal_used);
	return could < PAGE ? PAGE : could < j->cap ? could : j->cap;
}

/* What the bytes from one position to another take of that. A whole ring is used to the last byte; a part of one begins and ends
 * with a page. */
static u64 span(const struct journal *j, u64 from, u64 to, u64 most)
{
	return most == j->cap ? to - from : page_up(to) - page_down(from);
}

u64 journal_room(const struct journal *j, u64 needed_from)
{
	u64 most = may_hold(j), used = HEAD + (needed_from < j->head ? span(j, needed_from, j->head, most) : 0);
	return used < most ? most - used : 0;
}

void journal_free(struct journal *j)
{
	if (j->ring)
		munmap(j->ring, j->cap);
	journal_used -= j->top - j->held;
	j->ring = NULL;
}

/* ---- writing ---- */

static bool extend_last(struct journal *j, u8 stream, const u8 *p, u32 n)
{
	struct head h = j->head > j->tail ? head_at(j, j->last) : (struct head){.len = MERGE_MAX};
	if (h.stream != stream || h.when != wall || h.len + n > MERGE_MAX)
		return false;
	h.len += n;
	ring_put(j, j->last, &h, HEAD);
	ring_put(j, j->head, p, n);
	j->head += n;
	return true;
}

/* Gives up so many of the oldest bytes, or the oldest record when it has no more. */
static void forget(struct journal *j, u64 n)
{
	struct head h = head_at(j, j->tail);
	if (n >= h.len) {
		j->tail += HEAD + h.len;
		return;
	}
	h.cursor += n;
	h.len -= (u32)n;
	j->tail += n;
	if (j->last < j->tail)
		j->last = j->tail;
	ring_put(j, j->tail, &h, HEAD);
}

/* Makes room for a record of n bytes; fewer when even an empty journal may not hold it. */
static u32 make_room(struct journal *j, u32 n)
{
	u64 most;
	while ((most = may_hold(j)) < j->cap && span(j, j->tail, j->head + HEAD + n, most) > most && proc_evict())
		;
	u32 keep = n < most - HEAD ? n : (u32)(most - HEAD);
	while (span(j, j->tail, j->head + HEAD + keep, most) > most)
		if (j->tail < j->head)
			forget(j, span(j, j->tail, j->head + HEAD + keep, most) - most);
		else
			j->tail = j->head = page_up(j->head);
	if (most < j->cap)
		journal_trim(j);
	take_pages(j, j->head + HEAD + keep);
	return keep;
}

void journal_append(struct journal *j, u8 stream, const u8 *p, u32 n)
{
	j->next += n;
	if (!n || (!j->ring && !(j->ring = own_pages(j->cap))))
		return; /* without memory its output is passed over */
	u32 keep = make_room(j, n);
	if (keep == n && extend_last(j, stream, p, n))
		return;
	struct head h = {.cursor = j->next - keep, .when = wall, .len = keep, .stream = stream};
	j->last = j->head;
	ring_put(j, j->head, &h, HEAD);
	ring_put(j, j->head + HEAD, p + n - keep, keep);
	j->head += HEAD + keep;
}

/* ---- reading ---- */

/* Goes to the record that holds the next byte wanted. False when that is still to be written. */
static bool advance(const struct journal *j, struct place *at, struct head *h)
{
	if (at->pos < j->tail)
		at->pos = j->tail;
	while (at->pos < j->head) {
		*h = head_at(j, at->pos);
		if (at->at < h->cursor + h->len)
			return true;
		if (at->pos == j->last)
			return false; /* stay: the newest record may still be extended */
		at->pos += HEAD + h->len;
	}
	return false;
}

/* What comes next for this reader; a piece of length 0 with a cursor beyond `at` is a gap up to there. */
bool journal_peek(const struct journal *j, struct place *at, u32 max, struct piece *piece)
{
	struct head h;
	*piece = (struct piece){.cursor = journal_oldest(j)};
	if (at->at < piece->cursor)
		return true;
	if (!advance(j, at, &h))
		return false;
	u32 skip = (u32)(at->at - h.cursor), n = h.len - skip;
	*piece = (struct piece){.cursor = at->at, .when = h.when, .pos = at->pos + HEAD + skip, .stream = h.stream, .len = n < max ? n : max};
	return true;
}

void journal_take(const struct journal *j, struct place *at, const struct piece *piece, u8 *to)
{
	ring_get(j, piece->pos, to, piece->len);
	at->at += piece->len;
}

u64 journal_holds(const struct journal *j, struct place *at)
{
	struct head h;
	return advance(j, at, &h) ? at->pos : j->head;
}
