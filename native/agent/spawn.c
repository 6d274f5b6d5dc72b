/* Starting a process: what may be asked for, its pipes or terminal, and handing it to a supervisor. */
#include "proc.h"
#include <sys/ioctl.h>
#include <termios.h>

static int open_tty(const struct spec *s, int *master)
{
	int unlocked = 0;
	struct winsize size = {.ws_row = s->rows, .ws_col = s->cols};
	if (as_user(s->uid, s->gid)) /* a terminal belongs to whoever opens it */
		*master = keep_fd(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
	as_agent();
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlocked) < 0 || ioctl(*master, TIOCSWINSZ, &size) < 0)
		return -1;
	return ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* A pipe of which the end with this number is ours. */
static bool open_pipe(int end, int *ours, int *theirs)
{
	int pair[2];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return false;
	*theirs = pair[1 - end];
	*ours = keep_fd(pair[end]);
	return *ours >= 0 && fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

/* ours: in, out, err; theirs likewise, or the terminal alone. Returns how many are theirs, -1 with errno. */
static int open_io(const struct spec *s, int ours[3], int theirs[3])
{
	if (s->flags & SPAWN_TTY) {
		theirs[0] = open_tty(s, &ours[1]);
		ours[0] = theirs[0] < 0 ? -1 : keep_fd(fcntl(ours[1], F_DUPFD_CLOEXEC, 0));
		return ours[0] < 0 ? -1 : 1;
	}
	if (!(s->flags & SPAWN_STDIN))
		theirs[0] = fcntl(null_fd, F_DUPFD_CLOEXEC, 0);
	else if (!open_pipe(1, &ours[0], &theirs[0]))
		return -1;
	return theirs[0] >= 0 && open_pipe(0, &ours[1], &theirs[1]) && open_pipe(0, &ours[2], &theirs[2]) ? 3 : -1;
}

static bool launch(struct proc *p, const struct spec *spec, struct str raw)
{
	int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
	int count = open_io(spec, ours, theirs);
	bool done = count > 0 && pool_start(p, raw, theirs, count);
	for (int i = 0; i < 3; i++) {
		closing(theirs[i], 0);
		if (!done)
			closing(ours[i], 0);
	}
	if (!done)
		return false;
	if (ours[0] >= 0 && source_open(&p->in, p, ours[0], EPOLLOUT, on_input))
		source_want(&p->in, 0);
	source_open(&p->out, p, ours[1], EPOLLIN, on_output);
	if (ours[2] >= 0)
		source_open(&p->err, p, ours[2], EPOLLIN, on_output);
	return true;
}

static bool valid(const struct spec *s)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = strlen(s->id);
	if (!n || n > MAX_ID || strspn(s->id, alphabet) != n || s->cwd[0] != '/' || !s->argv[0][0])
		return false;
	for (u32 i = 0; i < s->envc; i++)
		if (s->env[i][0] == '=' || !strchr(s->env[i], '='))
			return false;
	return !(s->flags & ~(SPAWN_TTY | SPAWN_STDIN)) && s->uid != UINT32_MAX && s->gid != UINT32_MAX && (own_uid == 0 || s->uid == own_uid);
}

static struct proc *new_proc(const struct request *q, const struct spec *s, u64 hash)
{
	struct proc *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->out.fd = p->err.fd = p->in.fd = -1;
	p->input.cap = STDIN_CAP;
	u32 cap = s->capacity ? s->capacity : 1 << 20;
	p->j.cap = cap < 4096 ? 4096 : cap > 16u << 20 ? 16u << 20 : (cap + 4095) / 4096 * 4096;
	p->hash = hash;
	p->identity = (u32)q->n[0];
	p->started = wall;
	p->uid = s->uid;
	p->flags = s->flags;
	strcpy(p->id, s->id);
	p->label_len = (u16)q->text.n;
	memcpy(p->label, q->text.p, q->text.n);
	char *last = s->argv[s->argc - 1];
	size_t n = (size_t)(last + strlen(last) + 1 - s->argv[0]);
	p->argv_len = n < ARGV_KEPT ? (u16)n : ARGV_KEPT;
	memcpy(p->argv, s->argv[0], p->argv_len);
	p->argv[p->argv_len - 1] = 0;
	return p;
}

/* Whether there is room for another process; of the finished ones only so many are kept. */
static bool admit(void)
{
	u32 kept = 0, running = 0;
	for (struct proc *p = procs; p; p = p->next)
		if (proc_finished(p))
			kept++;
		else
			running++;
	while (kept-- >= MAX_KEPT && proc_evict())
		;
	return running < MAX_RUNNING;
}

int proc_spawn(struct request *q)
{
	struct spec spec;
	if (q->text.n > MAX_LABEL || !spec_parse(&spec, q->rest.p, q->rest.n) || !valid(&spec))
		return refuse(q, E_INVALID, 0, "malformed process specification");
	u64 hash = hash_of(q->rest.p, q->rest.n);
	struct proc *p = proc_find(spec.id);
	if (p && p->hash != hash)
		return refuse(q, E_CONFLICT, 0, "this process id names another process");
	if (p) {
		attach_open(q, p, 0, true, true);
		return ANSWERED;
	}
	if (proc_forgotten(spec.id))
		return refuse(q, E_CONFLICT, 0, "a process of this id has ended, and its output is not kept any more");
	if (proc_cancelled(spec.id))
		return refuse(q, E_CONFLICT, 0, "the start of this process was cancelled");
	if (!admit() || !(p = new_proc(q, &spec, hash)))
		return refuse(q, E_RESOURCES, 0, "too many processes");
	if (!attach_open(q, p, 0, false, true)) {
		free(p);
		return ANSWERED;
	}
	struct proc **end = &procs;
	while (*end)
		end = &(*end)->next;
	*end = p;
	limit_begin(p, (u32)q->n[1]);
	if (!launch(p, &spec, q->rest))
		proc_failed(p, spec.flags & SPAWN_TTY ? STAGE_TERMINAL : STAGE_SETUP, errno);
	return ANSWERED;
}
