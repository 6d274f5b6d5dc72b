#include "host.h"

#include <string.h>

int main(int argc, char **argv) {
    if (argc >= 2 && strcmp(argv[1], "run") == 0) return run_main(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "probe") == 0) return probe_main(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "sync") == 0) return sync_main(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "kill") == 0) return kill_main(argc - 2, argv + 2);
    fail(INVALID, "fiberbox-host", "usage: fiberbox-host run WORD... | probe WORD... | sync DIRECTORY | kill AGENT SUPERVISOR FILE");
}
