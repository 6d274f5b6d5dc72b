/* Starting a process: what may be asked for, its pipes or terminal, and handing it to a supervisor. */
#include "proc.h"
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>

static int open_tty(const struct spec *s, int *master)
{
	int unlocked = 0;
	struct winsize size = {.ws_row = s->rows, .ws_col = s->cols};
	bool user = as_user(s->uid, s->gid); /* a terminal belongs to whoever opens it */
	*master = user ? keep_fd(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)) : -1;
	int err = user ? errno : EPERM;
	as_agent();
	errno = err;
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlocked) < 0 || ioctl(*master, TIOCSWINSZ, &size) < 0)
		return -1;
	return ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* ours: out, err, in; theirs: in, out, err (or the terminal alone). Returns how many are theirs, -1 with errno. */
static int open_io(const struct spec *s, int ours[3], int theirs[3])
{
	int pair[2];
	if (s->flags & SPAWN_TTY) {
		theirs[0] = open_tty(s, &ours[0]);
		ours[2] = theirs[0] < 0 ? -1 : keep_fd(fcntl(ours[0], F_DUPFD_CLOEXEC, 0));
		return ours[2] < 0 ? -1 : 1;
	}
	for (int i = 0; i < 2; i++) {
		if (pipe2(pair, O_CLOEXEC) < 0)
			return -1;
		theirs[i + 1] = pair[1];
		if ((ours[i] = keep_fd(pair[0])) < 0 || fcntl(ours[i], F_SETFL, O_NONBLOCK) < 0)
			return -1;
	}
	if (!(s->flags & SPAWN_STDIN))
		return (theirs[0] = fcntl(null_fd, F_DUPFD_CLOEXEC, 0)) < 0 ? -1 : 3;
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	theirs[0] = pair[0];
	ours[2] = keep_fd(pair[1]);
	return ours[2] < 0 || fcntl(ours[2], F_SETFL, O_NONBLOCK) < 0 ? -1 : 3;
}

static bool launch(struct proc *p, const struct spec *spec, const u8 *raw, size_t n)
{
	int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
	int count = open_io(spec, ours, theirs);
	struct sup *s = count < 0 ? NULL : pool_start(raw, n, theirs, count);
	int err = errno;
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	if (!s) {
		for (int i = 0; i < 3; i++)
			if (ours[i] >= 0)
				close(ours[i]);
		errno = err;
		return false;
	}
	p->sup = s;
	s->p = p;
	proc_wire(p, ours);
	return true;
}

static bool valid(const struct spec *s)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = strlen(s->id);
	if (!n || n > MAX_ID || strspn(s->id, alphabet) != n || s->cwd[0] != '/' || (s->flags & ~(SPAWN_TTY | SPAWN_STDIN)))
		return false;
	for (u32 i = 0; i < s->envc; i++) {
		char *eq = strchr(s->env[i], '=');
		if (!eq || eq == s->env[i])
			return false;
	}
	return s->uid != UINT32_MAX && s->gid != UINT32_MAX && (own_uid == 0 || s->uid == own_uid);
}

static void remember(struct proc *p, const struct spec *s)
{
	strcpy(p->id, s->id);
	for (u32 i = 0; i < s->argc && p->argv_len + 4 < ARGV_KEPT; i++, p->argc++) {
		u32 n = (u32)strlen(s->argv[i]), room = ARGV_KEPT - p->argv_len - 4;
		n = n < room ? n : room;
		memcpy(p->argv + p->argv_len, &n, 4);
		memcpy(p->argv + p->argv_len + 4, s->argv[i], n);
		p->argv_len += 4 + n;
	}
	p->uid = s->uid;
	p->flags = s->flags;
	p->drain = s->drain < 10000 ? s->drain : 10000;
	u32 wanted = s->capacity ? s->capacity : 1 << 20;
	p->j.max = wanted < 4096 ? 4096 : wanted > 16u << 20 ? 16u << 20 : wanted;
	p->started = wall;
}

void proc_spawn(u32 channel, struct rd *r)
{
	bool attach = rd_u8(r);
	u32 credit = rd_u32(r);
	struct str label = rd_str(r);
	const u8 *raw = r->p;
	size_t n = (size_t)(r->end - r->p);
	struct spec spec;
	if (r->bad || label.n > MAX_LABEL || !spec_parse(&spec, raw, n) || !valid(&spec))
		return w_error(channel, E_INVALID, 0, 0, "malformed process specification");
	u64 hash = 14695981039346656037u;
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ raw[i]) * 1099511628211u;
	struct proc *p = proc_find(spec.id);
	if (p && p->hash != hash)
		return w_error(channel, E_CONFLICT, 0, 0, "this process id names another process");
	if (p) {
		attach_open(channel, credit, p, 0, attach, true, true);
		return;
	}
	if (proc_running() >= MAX_RUNNING || !(p = calloc(1, sizeof *p)))
		return w_error(channel, E_RESOURCES, EAGAIN, 0, "too many processes");
	p->out.fd = p->err.fd = p->in.fd = -1;
	p->hash = hash;
	remember(p, &spec);
	memcpy(p->label, label.p, label.n);
	p->label_len = (u16)label.n;
	if (!attach_open(channel, credit, p, 0, attach, true, false)) {
		free(p);
		return;
	}
	proc_enter(p);
	if (!launch(p, &spec, raw, n))
		proc_failed(p, STAGE_SETUP, errno);
}
