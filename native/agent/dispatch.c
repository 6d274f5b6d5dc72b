/* Which request goes where, and the two that belong nowhere else. */
#include "agent.h"
#include <stdio.h>
#include <sys/resource.h>

static void metrics(u32 channel)
{
	struct rusage all = {0}, own = {0};
	u32 running, kept;
	proc_meters(&running, &kept);
	getrusage(RUSAGE_CHILDREN, &all);
	getrusage(RUSAGE_SELF, &own);
	w_begin(T_METERS, channel);
	w_int(now - started_mono, 8);
	w_int(running, 4);
	w_int(kept, 4);
	w_int(journal_used, 8);
	w_int((u64)own.ru_maxrss * 1024, 8);
	w_int(tree_tasks(), 4);
	w_int((u64)(all.ru_utime.tv_sec + all.ru_stime.tv_sec) * 1000000 + (u64)(all.ru_utime.tv_usec + all.ru_stime.tv_usec), 8);
	w_end();
}

static void on_channel(u8 type, u32 channel, struct rd *r)
{
	struct chan *c = chan_find(channel);
	if (!c)
		return; /* it ended while this was on its way */
	if (type == T_CREDIT) {
		u64 sum = c->credit + rd_u32(r);
		c->credit = sum < UINT32_MAX ? sum : UINT32_MAX;
	} else if (type == T_CLOSE)
		chan_close(c);
	else if (type == T_DATA && c->ops->data)
		c->ops->data(c, r->p, (u32)(r->end - r->p));
	else if (type == T_EOF && c->ops->eof)
		c->ops->eof(c);
}

void handle(u8 type, u32 channel, struct rd *r)
{
	if (type < T_PING)
		return on_channel(type, channel, r);
	if (!channel || channel >= FIRST_OWN || chan_find(channel))
		return w_error(channel, E_INVALID, 0, 0, "channel not free");
	switch (type) {
	case T_PING: return w_empty(T_OK, channel);
	case T_SPAWN: return proc_spawn(channel, r);
	case T_ATTACH: return proc_attach(channel, r);
	case T_SIGNAL: return proc_signal(channel, r);
	case T_KILL: return proc_kill(channel, r);
	case T_STDIN: return proc_stdin(channel, r);
	case T_STDIN_CLOSE: return proc_stdin_close(channel, r);
	case T_RESIZE: return proc_resize(channel, r);
	case T_PROCESSES: return proc_list(channel);
	case T_WATCH: return watch_open(channel, r);
	case T_DIAL: return net_dial(channel, r);
	case T_LISTEN: return net_listen(channel, r);
	case T_METRICS: return metrics(channel);
	default:
		if (type >= T_STAT && type <= T_SYMLINK)
			return files_handle(type, channel, r);
		return w_error(channel, E_UNSUPPORTED, 0, 0, "unknown request");
	}
}
