/* A program whose first thread ends while another runs on: to the kernel a zombie, and not over. With an argument it kills its parent first. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static char state_of(pid_t pid)
{
	char path[32], state = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	if (!f || fscanf(f, "%*d %*s %c", &state) != 1)
		state = 0;
	if (f)
		fclose(f);
	return state;
}

static void *run_on(void *orphan)
{
	while (state_of(getpid()) != 'Z')
		usleep(1000);
	if (orphan)
		kill(getppid(), SIGKILL);
	if (write(1, "alone\n", 6) == 6)
		for (;;)
			pause();
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t other;
	if (pthread_create(&other, NULL, run_on, argc > 1 ? argv[1] : NULL) != 0)
		return 1;
	syscall(SYS_exit, 0);
}
