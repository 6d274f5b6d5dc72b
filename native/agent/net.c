#include "agent.h"
void net_dial(u32 channel, struct rd *r) { (void)r; w_error(channel, E_UNSUPPORTED, 0, 0, "later"); }
void net_listen(u32 channel, struct rd *r) { (void)r; w_error(channel, E_UNSUPPORTED, 0, 0, "later"); }
