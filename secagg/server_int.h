/* The server's state, shared by server.c (phases), server_steps.c (what sites say) and
 * server_unmask.c (from R4 to the masks of the sum). */
#pragma once

#include "secagg/hybrid.h"
#include "secagg/server.h"
#include "secagg/transcript.h"

struct dure_secagg_server {
    dure_secagg_server_opts opts;
    dure_secagg_phase phase;
    dure_members u1, u2, u3, u4; /* as far as they are fixed */
    dure_members answered;       /* valid answers in this phase */
    dure_members away;           /* not waited for: disconnected or aborted */
    dure_members out;            /* broke the protocol or left: cannot answer any more */

    dure_round_keys keys[DURE_MEMBERS_MAX];
    uint8_t *kem_keys;              /* hybrid suite: behind keys[], a place for each member */
    dure_msg *r1[DURE_MEMBERS_MAX]; /* SHARES, owned */
    dure_hash r1_hash[DURE_MEMBERS_MAX];
    dure_survivor r2[DURE_MEMBERS_MAX];
    dure_attested r3[DURE_MEMBERS_MAX];
    dure_msg *r4[DURE_MEMBERS_MAX]; /* UNMASK, owned */
    dure_members liars;

    dure_hash t1, t2, t3;
    dure_buf a1, a3, a4; /* the frames that everybody gets */
    dure_masks *unmasker;
};

/* server_steps.c: checks one answer and keeps it. DURE_ERR_STATE is not the member's fault. */
dure_err server_take(dure_secagg_server *s, uint32_t member, const dure_msg *msg,
                     const dure_hash *root, dure_diag *diag);
/* What `from` sent for `to` in its R1; empty when they are the same. Borrowed. */
dure_sealed server_sealed_for(const dure_secagg_server *s, uint32_t from, uint32_t to);
dure_secagg_who server_who(const dure_secagg_server *s, uint32_t member);

/* server_unmask.c: tries to recover every secret of the sum from the R4s so far.
 * DURE_ERR_AUTH: not yet. New liars are added to s->liars. */
dure_err server_unmask(dure_secagg_server *s);
/* Least number of R3 signatures: t, and 2 s > |U0| + c. */
size_t server_quorum(const dure_secagg_server *s);

/* Encodings that are kept and sent: A1, A3, A4 for all, A2 for one. */
dure_err server_make_a1(dure_secagg_server *s);
dure_err server_make_a2(dure_buf *frame, const dure_secagg_server *s, uint32_t member);
dure_err server_make_a3(dure_secagg_server *s);
dure_err server_make_a4(dure_secagg_server *s);
