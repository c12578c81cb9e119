/* The server's state, shared by server.c (phases), server_steps.c (what sites say),
 * server_records.c (what is synced and how it is resumed) and server_unmask.c (from R4 to the masks
 * of the sum). */
#pragma once

#include "secagg/graph.h"
#include "secagg/hybrid.h"
#include "secagg/roll.h"
#include "secagg/server.h"
#include "secagg/transcript.h"

/* What one member has sent. */
typedef struct server_member {
    dure_round_keys keys;
    dure_msg *r1; /* SHARES, owned */
    dure_hash r1_hash;
    dure_survivor r2;
    dure_attested r3;
    dure_msg *r4; /* UNMASK, owned */
} server_member;

struct dure_secagg_server {
    dure_secagg_server_opts opts;
    dure_secagg_phase phase;
    dure_members u1, u2, u3, u4; /* as far as they are fixed */
    dure_members answered;       /* valid answers in this phase */
    dure_members away;           /* not waited for: disconnected or aborted */
    dure_members out;            /* broke the protocol or left: cannot answer any more */

    uint8_t beacon[DURE_SIGNATURE_BYTES]; /* sparse graph, once it is out */
    dure_graph graph;                     /* n is 0 as long as a beacon is waited for */
    server_member *members;               /* by number */
    uint8_t *kem_keys;                    /* hybrid suite: behind keys, a place for each member */
    dure_members gave;                    /* sent R4 */
    uint32_t n_ready;                     /* of the members below, enough shares are here */
    dure_members liars;
    uint32_t unrecovered; /* whose secret the shares so far do not give */

    dure_hash t1, t2, t3;
    dure_roll r0s, r1s, r2s; /* of U1, U2, U3 */
    dure_masks *unmasker;
};

/* server_steps.c: checks one answer and keeps it. DURE_ERR_STATE is not the member's fault. */
dure_err server_take(dure_secagg_server *s, uint32_t member, const dure_msg *msg,
                     const dure_hash *root, dure_diag *diag);
/* What `from` sent for `to` in its R1; empty when they are the same. Borrowed. */
dure_sealed server_sealed_for(const dure_secagg_server *s, uint32_t from, uint32_t to);
dure_secagg_who server_who(const dure_secagg_server *s, uint32_t member);
/* What is on the wire for the beacon: empty on the complete graph. Borrowed. */
dure_span server_beacon(const dure_secagg_server *s);

/* U1, U2 or U3 is fixed: its roll, and T1, T2 or T3. */
dure_err server_fix_keys(dure_secagg_server *s);
dure_err server_fix_shares(dure_secagg_server *s);
dure_err server_fix_vectors(dure_secagg_server *s);
/* The frames of A1..A4 for one member: A4's is the same for all. */
dure_err server_make_a1(dure_buf *frame, const dure_secagg_server *s, uint32_t member);
dure_err server_make_a2(dure_buf *frame, const dure_secagg_server *s, uint32_t member);
dure_err server_make_a3(dure_buf *frame, const dure_secagg_server *s, uint32_t member);
dure_err server_make_a4(dure_buf *frame, const dure_secagg_server *s);

/* server_records.c: the record of the present phase, with the answers of `set`; and taking one
 * back: the phase is then ready to be closed as it was. DURE_ERR_FORMAT for another round's. */
dure_err server_put_record(dure_buf *record, const dure_secagg_server *s, const dure_members *set);
dure_err server_take_record(dure_secagg_server *s, dure_span record);

/* server_unmask.c: whether t shares are here for each secret that the sum needs; then tries to
 * recover them. DURE_ERR_AUTH: not yet; DURE_ERR_PROTO: never, since what a member wrapped under
 * its own secret does not open. *of is the member at which it stopped. New liars are added to
 * s->liars. */
bool server_is_ready(dure_secagg_server *s);
dure_err server_unmask(dure_secagg_server *s, uint32_t *of);
/* Whether a sum over `set` needs a secret of this member: as one of it, or of U2 with masks that
 * members of the set have. */
bool server_needs(const dure_secagg_server *s, const dure_members *set, uint32_t member);
/* Least number of R3 signatures: t, and 2 s > |U0| + c. */
size_t server_quorum(const dure_secagg_server *s);
