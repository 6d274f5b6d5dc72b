#include "agent.h"
void watch_open(u32 channel, struct rd *r) { (void)r; w_error(channel, E_UNSUPPORTED, 0, 0, "later"); }
