/* A whole round in one process: the server machine, n client machines, and a network between them
 * whose every message a test may drop, change or forge. */
#pragma once

#include "secagg/client.h"
#include "secagg/server.h"

#define WORLD_MAX 100
#define WORLD_WORDS 100 /* four chunks of 32 words, the last one short */

/* The step before whose message a site dies. */
typedef enum world_step {
    WORLD_NEVER,
    WORLD_R0,
    WORLD_R1,
    WORLD_R2,
    WORLD_R3,
    WORLD_R4,
} world_step;

struct world;

/* A message on its way: to the coordinator (`to_server`) from `member`, or from it to `member`.
 * Returns false to lose it. `msg` may be changed; what it points to is the callee's business. */
typedef bool world_hook(struct world *w, bool to_server, uint32_t member, dure_msg *msg);

typedef struct world_letter {
    bool to_server;
    uint32_t member;
    dure_buf frame;
} world_letter;

typedef struct world {
    uint32_t n;
    dure_config config;
    dure_hash config_hash;
    dure_sign_key coordinator, beacon, keys[WORLD_MAX];
    dure_secagg_client *clients[WORLD_MAX];
    dure_secagg_server *server;
    int32_t units[WORLD_MAX][WORLD_WORDS];
    world_step dies[WORLD_MAX];
    bool dead[WORLD_MAX];
    bool hold_masks; /* DURE_SECAGG_MASK is left to the test */
    world_hook *hook;

    uint8_t spool[WORLD_MAX][WORLD_WORDS * 4];
    dure_vector_tree trees[WORLD_MAX];
    uint32_t sum[WORLD_WORDS];
    bool summed, failed;
    char ended[256]; /* why it failed, as the server said */
    uint32_t blamed[WORLD_MAX], n_blamed;
    dure_buf records[4]; /* what the server persisted */
    size_t n_records;
    size_t crash_after;   /* the coordinator dies once it has written so many; 0: it does not */
    uint32_t signed_t3;   /* how often clients persisted an R3 */
    char last_error[512]; /* of a client's or the server's refused step */
    dure_err client_err[WORLD_MAX];
    char said[WORLD_MAX][512]; /* by a client, with it */

    world_letter *letters;
    size_t n_letters, at, capacity;
    uint64_t now_ms;
} world;

/* DURE_TEST_SUITE=hybrid in the environment runs every round of a test program in that suite. True,
 * with a word about it, when this machine's OpenSSL cannot: main() then returns WORLD_SKIPPED. */
bool world_lacks_suite(void);
#define WORLD_SKIPPED 77
/* Members, keys and random updates from `seed`; t for c = 1; the complete graph. */
world *world_new(uint32_t n, uint64_t seed);
/* On a sparse graph of n members, with k and t for c colluders and n - u_min dropouts as
 * dure_graph_choose() finds them. */
world *world_new_sparse(uint32_t n, uint64_t seed, uint32_t c, uint32_t u_min);
void world_free(world **w);
/* Runs until no message is on its way; sites that died are dropped at the server when it waits for
 * nobody else. */
void world_run(world *w);
/* Starts the clients (R0 into the network) without delivering anything. */
void world_start(world *w);
/* Delivers everything that is on its way. */
void world_deliver(world *w);
/* Puts a message on its way. */
void world_post(world *w, bool to_server, uint32_t member, const dure_msg *msg);

/* Whether the run must succeed by the rules, and with which U3. */
bool world_expected(const world *w, dure_members *u3);
/* The plain sum over `u3` in words, for comparison. */
void world_plain_sum(uint32_t *sum, const world *w, const dure_members *u3);
/* Names in an A1, A2 or A3 the members whose entries it has, and no others: the whole set, as long
 * as the graph is complete. */
void world_name_entries(const world *w, dure_msg *msg);
/* Carries out a client's actions; empties the list. */
void world_client_actions(world *w, uint32_t member, dure_secagg_actions *actions);
