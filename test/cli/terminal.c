/*
 * terminal ROWS COLS COMMAND...
 *
 * A terminal for a test: runs COMMAND on a new pseudoterminal of that size.
 * Standard input is what is typed, standard output what is shown; each line
 * "ROWS COLS" on descriptor 3 changes the size. When the command has ended,
 * descriptor 4 gets the terminal's modes as the command left them, and the
 * exit code is the command's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

static int copy(int from, int to) {
    char data[4096];
    ssize_t n = read(from, data, sizeof data);
    for (ssize_t done = 0; done < n;) {
        ssize_t w = write(to, data + done, (size_t)(n - done));
        if (w < 0) return 0;
        done += w;
    }
    return n > 0;
}

static int resize(int from, int terminal) {
    char line[64];
    struct winsize size = {0};
    ssize_t n = read(from, line, sizeof line - 1);
    if (n <= 0) return 0;
    line[n] = '\0';
    if (sscanf(line, "%hu %hu", &size.ws_row, &size.ws_col) == 2) ioctl(terminal, TIOCSWINSZ, &size);
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    struct winsize size = {.ws_row = (unsigned short)atoi(argv[1]), .ws_col = (unsigned short)atoi(argv[2])};
    int terminal, slave;
    if (openpty(&terminal, &slave, NULL, NULL, &size) != 0) return 2;
    pid_t pid = fork();
    if (pid < 0) return 2;
    if (pid == 0) {
        close(terminal);
        close(3);
        close(4);
        login_tty(slave);
        execvp(argv[3], argv + 3);
        _exit(127);
    }
    /* The slave stays open, so that what the command wrote last is not lost and its modes can be read. */
    struct pollfd fds[] = {{.fd = 0, .events = POLLIN}, {.fd = 3, .events = POLLIN}, {.fd = terminal, .events = POLLIN}};
    int status, ended = 0;
    for (;;) {
        int ready = poll(fds, 3, ended ? 50 : 20);
        if (ready < 0 && errno != EINTR) break;
        if (ready > 0 && fds[0].revents && !copy(0, terminal)) fds[0].fd = -1;
        if (ready > 0 && fds[1].revents && !resize(3, terminal)) fds[1].fd = -1;
        if (ready > 0 && fds[2].revents && !copy(terminal, 1)) break;
        if (ended && !(ready > 0 && fds[2].revents)) break;
        if (!ended && waitpid(pid, &status, WNOHANG) == pid) ended = 1;
    }
    if (!ended) waitpid(pid, &status, 0);
    struct termios modes;
    if (tcgetattr(slave, &modes) == 0)
        dprintf(4, "icanon=%d echo=%d isig=%d opost=%d\n", !!(modes.c_lflag & ICANON), !!(modes.c_lflag & ECHO),
                !!(modes.c_lflag & ISIG), !!(modes.c_oflag & OPOST));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
