/* What the fuzzer has the agent run, by its first argument: e.g. "wd" writes something and leaves a daemon behind. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char buf[8192];
	memset(buf, 'x', sizeof buf);
	for (const char *step = argc > 1 ? argv[1] : ""; *step; step++) {
		if (*step == 'w' && write(1, buf, sizeof buf) < 0)
			return 1;
		if (*step == 'e' && write(2, "error\n", 6) < 0)
			return 1;
		if (*step == 'r')
			while (read(0, buf, sizeof buf) > 0)
				;
		if (*step == 'd' && fork() == 0) {
			setsid();
			pause();
		}
		if (*step == 'k')
			kill(getpid(), SIGKILL);
		if (*step == 's')
			usleep(2000);
		if (*step == 'p')
			pause();
	}
	return argc & 1;
}
