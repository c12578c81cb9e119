/* One valid value of each message type and of the configuration, for the proto tests. */
#pragma once

#include "proto/messages.h"

/* A message of the type whose lists have `n` entries; its pointers borrow from static storage. */
dure_msg sample_message(dure_msg_type type, size_t n);

/* The same with all that the hybrid suite adds, at its longest. */
dure_msg sample_hybrid_message(dure_msg_type type, size_t n);

/* `n` members, t and u_min as high as c = 1 needs, 24-bit words. */
void sample_config(dure_config *config, uint32_t n);
