/* The client's state, shared by client.c (life, masking, the end) and client_steps.c (what the
 * coordinator says). */
#pragma once

#include "crypto/shamir.h"
#include "secagg/client.h"
#include "secagg/graph.h"
#include "secagg/hybrid.h"
#include "secagg/roll.h"
#include "secagg/transcript.h"

/* A1..A4 and the replies R1..R4; slot 0 is R0. */
#define CLIENT_STEPS 5

/* Wiped as a whole after R4 and at every end. The arrays have a place for this site and each
 * neighbour, by rank in `near`. */
typedef struct client_secrets {
    dure_round_key channel, mask;        /* e_u, m_u */
    uint8_t b[DURE_SHAMIR_SECRET_BYTES]; /* b_u */
    dure_share_pair *held;               /* of member v's secrets, this site's share */
    /* Hybrid suite: what member v and this site agreed on for their mask. */
    uint8_t (*kem)[DURE_KEM_SHARED_BYTES];
} client_secrets;

struct dure_secagg_client {
    dure_secagg_client_opts opts;
    uint32_t self;
    uint32_t collusion, least; /* the stricter of configuration and floors */
    uint32_t run_colluders;    /* dure_graph_run_colluders() of them */
    dure_graph graph;          /* from A1 on */
    dure_members near;         /* this site and its neighbours; empty before A1 */
    dure_stage stage;
    bool ended;
    uint64_t expires_ms; /* 0: R1 was not sent yet */
    client_secrets secrets;

    dure_round_keys own;   /* as R0 sent them */
    dure_hash own_r0;      /* the digest that R0's signature covers */
    dure_round_keys *keys; /* of U1, from A1, by rank in `near` */
    uint8_t own_kem[DURE_MSG_KEM_KEYS_BYTES];
    uint8_t *kem_keys; /* hybrid suite: behind keys[] */
    dure_members u1, u2, u3;
    dure_hash t1, t2, t3, own_r1, root;

    dure_hash seen[CLIENT_STEPS]; /* digest of the accepted A1..A4 */
    bool has_seen[CLIENT_STEPS];
    dure_buf replies[CLIENT_STEPS]; /* R0..R4 as they were sent; empty before */

    uint8_t *vector; /* masked and packed */
    size_t vector_bytes;
    uint8_t *chunk_sent; /* one byte a chunk */
    uint32_t chunks_left;
};

/* The handlers of client_steps.c. They check everything before they change anything, and append
 * what to do. Any error ends the round. */
dure_err client_on_keys(dure_secagg_actions *actions, dure_secagg_client *c,
                        const dure_msg_keys *msg, dure_diag *diag);
dure_err client_on_shares(dure_secagg_actions *actions, dure_secagg_client *c,
                          const dure_msg_shares_for *msg, dure_diag *diag);
dure_err client_on_survivors(dure_secagg_actions *actions, dure_secagg_client *c,
                             const dure_msg_survivors *msg, dure_diag *diag);
dure_err client_on_signatures(dure_secagg_actions *actions, dure_secagg_client *c,
                              const dure_msg_signatures *msg, dure_diag *diag);

/* Encodes `msg` as the reply of `step` and appends its send. */
dure_err client_reply(dure_secagg_actions *actions, dure_secagg_client *c, unsigned step,
                      const dure_msg *msg, dure_diag *diag);
dure_secagg_who client_who(const dure_secagg_client *c, uint32_t member);
/* The place of a member of `near`. */
size_t client_rank(const dure_secagg_client *c, uint32_t member);
/* Wipes what R4 no longer needs, or everything. */
void client_forget(dure_secagg_client *c);
