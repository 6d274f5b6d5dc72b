/* Channels: what is open for the host, and whose turn it is to fill the queue. */
#include "agent.h"

enum { MAX_CHANNELS = 1024, ROUNDS = 8 };

static struct chan *chans;
static u32 chan_count, next_own_id = FIRST_OWN - 1;

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
	*c = (struct chan){.next = chans, .ops = ops, .id = id, .credit = credit};
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

void chan_close_all(void)
{
	for (struct chan *c = chans; c; c = c->next)
		chan_close(c);
}

u32 chan_next_id(void)
{
	do
		next_own_id = next_own_id == UINT32_MAX ? FIRST_OWN : next_own_id + 1;
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
bool pump(void)
{
	bool again = true;
	for (int round = 0; again && round < ROUNDS; round++) {
		again = false;
		for (struct chan **at = &chans; *at; at = &(*at)->next) {
			struct chan *c = *at;
			if (!out_room()) {
				rotate(at); /* goes on when the host has read some */
				return false;
			}
			if (!c->dead && c->ops->pump && c->ops->pump(c) && !c->dead)
				again = true;
		}
	}
	return again;
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
