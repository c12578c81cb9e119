/* A round for tests and benchmarks of the secure sum: the constants that it does not look at, and
 * members without keys. The caller sets threshold, u_min, collusion, n_words, chunk_words, q_max
 * and the members' keys, and what it wants otherwise. */
#pragma once

#include "proto/config.h"

#include <stdio.h>

static inline void round_config(dure_config *c, uint32_t n_members)
{
    *c = (dure_config){
        .suite = DURE_SUITE_X25519_AES256CTR,
        .run_id = 1,
        .round = 1,
        .n_members = n_members,
        .word_bits = 24,
        .range = 0.0625,
        .share_lifetime_ms = 3600000,
        .privacy_mode = DURE_PRIVACY_NONE,
        .clip = 1,
        .grid_bits = 15,
        .rounds = 1,
        .local_steps = 1,
        .method = DURE_METHOD_FFA,
        .rank = 4,
        .alpha = 8,
        .targets = 1,
        .max_length = 512,
        .optimizer = DURE_LOCAL_ADAMW,
        .learning_rate = 1e-3,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .optimizer_epsilon = 1e-8,
        .server_rate = 1,
    };
    for (uint32_t i = 0; i < n_members; i++) {
        dure_member *m = &c->members[i];
        *m = (dure_member){.n_pub = 100, .batch = 6, .sigma_den = 1};
        snprintf(m->name, sizeof m->name, "site-%04u", i);
        snprintf(m->organisation, sizeof m->organisation, "organisation-%u", i);
    }
}
