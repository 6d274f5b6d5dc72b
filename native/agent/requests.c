/* From a request to its handler. */
#include "agent.h"

int ping(struct request *q)
{
	(void)q;
	return DONE;
}

static const struct kind {
	const char *fields;
	int (*perform)(struct request *);
} kinds[REQUESTS] = {
#define X(type, fields, perform) [type] = {fields, perform},
	ALL_REQUESTS
#undef X
};

int refuse(const struct request *q, u16 code, u64 detail, const char *message)
{
	w_error(q->channel, code, 0, detail, message);
	return ANSWERED;
}

static int perform(struct request *q, const struct kind *kind)
{
	bool user = kind->fields[0] == 'u';
	if (kind->fields[0] == 'P' && !(q->proc = proc_find(q->id)))
		return refuse(q, E_NO_PROCESS, 0, "no such process");
	int done = !user || as_user(q->uid, q->gid) ? kind->perform(q) : FAILED;
	if (user)
		as_agent();
	return done;
}

static void on_channel(u8 type, u32 channel, struct rd r)
{
	struct chan *c = chan_find(channel);
	if (!c)
		return; /* it ended while this was on its way */
	if (type == T_CREDIT) {
		u64 sum = c->credit + rd_u32(&r);
		c->credit = sum < UINT32_MAX ? sum : UINT32_MAX;
	} else if (type == T_CLOSE)
		chan_close(c);
	else if (type == T_DATA && c->ops->data)
		c->ops->data(c, r.p, (u32)(r.end - r.p));
	else if (type == T_EOF && c->ops->eof)
		c->ops->eof(c);
}

void handle(u8 type, u32 channel, struct rd body)
{
	static struct request q;
	if (type < T_PING)
		return on_channel(type, channel, body);
	if (!channel || channel >= FIRST_OWN || chan_find(channel))
		return w_error(channel, E_INVALID, 0, 0, "channel not free");
	if (type >= REQUESTS || !kinds[type].perform)
		return w_error(channel, E_UNSUPPORTED, 0, 0, "unknown request");
	q.channel = channel;
	if (!decode(&q, kinds[type].fields, body))
		return w_error(channel, E_INVALID, EINVAL, 0, "malformed request or path");
	int done = perform(&q, &kinds[type]);
	if (done == DONE)
		w_empty(T_OK, channel);
	else if (done == FAILED)
		w_errno(channel, errno);
}
