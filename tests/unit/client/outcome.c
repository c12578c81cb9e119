#include "unit/client/outcome.h"

#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an honest coordinator makes of sums of ones. */
static void make_sum(outcome *o)
{
    size_t n = (size_t)st->f.terms.layout.n_active;
    int32_t *sum = calloc(n, sizeof *sum);
    uint8_t *bytes = calloc(n, 4);
    for (size_t i = 0; i < n; i++) {
        sum[i] = (int32_t)(i % 7) - 3;
    }
    dure_server_step_sum_put(bytes, sum, n);
    dure_buf_init(&o->sum, 4 * n);
    dure_put_raw(&o->sum, bytes, 4 * n);
    assert_ok(dure_global_adapter_next(&o->next, &st->f.terms, dure_buf_span(&st->adapter), sum,
                                       SITES - o->less, NULL));
    free(sum);
    free(bytes);
}

static void make_genesis(dure_buf *leaf)
{
    dure_event *event = calloc(1, sizeof *event);
    event->kind = DURE_EVENT_GENESIS;
    event->time_s = FIXTURE_JOINED;
    dure_event_genesis *genesis = &event->u.genesis;
    genesis->federation_id = st->s->federation_id;
    snprintf(genesis->federation, sizeof genesis->federation, "village");
    memcpy(genesis->root_public, st->f.root.public_, 32);
    memcpy(genesis->coordinator_sign, st->f.coordinator_sign.public_, 32);
    memset(genesis->terms.b, 0x7e, sizeof genesis->terms.b);
    genesis->collusion = 1;
    dure_buf_init(leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(leaf, event, NULL));
    free(event);
}

void make_result_in(outcome *o, size_t n_leaves, void (*twist)(dure_event *event))
{
    dure_event *event = calloc(1, sizeof *event);
    dure_hash leaves[3], others[2], t3;
    dure_buf genesis, leaf, note, frame;
    memset(t3.b, 0x73, sizeof t3.b);
    make_sum(o);
    dure_round_outcome facts = {.config_hash = st->s->round.hash,
                                .t3 = t3,
                                .u2 = dure_members_first(SITES),
                                .u3 = dure_members_first(SITES)};
    assert_ok(dure_hash_bytes(&facts.sum, dure_buf_span(&o->sum)));
    assert_ok(dure_hash_bytes(&facts.adapter_out, dure_buf_span(&o->next)));
    dure_round_event_make(event, DURE_EVENT_CLOSED, st->s->round.config, &facts, FIXTURE_JOINED);
    event->index = 1;
    if (twist) twist(event);
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    dure_buf_init(&note, DURE_NOTE_MAX);
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    assert_ok(dure_event_encode(&leaf, event, NULL));
    make_genesis(&genesis);
    dure_buf_init(&o->log, 2 * DURE_LEAF_MAX);
    dure_put_bytes(&o->log, genesis.data, genesis.n);
    dure_put_bytes(&o->log, leaf.data, leaf.n);
    assert_ok(dure_merkle_leaf(&leaves[0], dure_buf_span(&genesis)));
    assert_ok(dure_merkle_leaf(&leaves[1], dure_buf_span(&leaf)));
    assert_ok(dure_merkle_leaf(&leaves[2], dure_span_of_text("later")));
    others[0] = leaves[0];
    others[1] = leaves[2];
    dure_checkpoint checkpoint = {.head.n = n_leaves};
    dure_checkpoint_origin(checkpoint.origin, "village", &st->s->federation_id);
    assert_ok(dure_merkle_root(&checkpoint.head.root, leaves, n_leaves));
    assert_ok(dure_checkpoint_sign(&note, &checkpoint, &st->f.coordinator_sign));
    dure_msg msg = {.type = DURE_MSG_RESULT,
                    .u.result = {.leaf = dure_buf_span(&leaf),
                                 .leaf_index = 1,
                                 .checkpoint = dure_buf_span(&note),
                                 .inclusion = (const uint8_t(*)[32])others,
                                 .n_inclusion = n_leaves - 1,
                                 .consistency = (const uint8_t(*)[32]) & leaves[2],
                                 .n_consistency = n_leaves - 2}};
    memcpy(msg.u.result.config_hash, st->s->round.hash.b, 32);
    memcpy(msg.u.result.t3, event->u.round.t3.b, 32);
    memcpy(msg.u.result.sum_digest, event->u.round.result.b, 32);
    memcpy(msg.u.result.adapter_digest, event->u.round.adapter_out.b, 32);
    assert_ok(dure_msg_encode(&frame, &msg, NULL));
    assert_ok(dure_msg_decode(&o->msg, dure_buf_span(&frame), NULL));
    dure_buf_fini(&genesis);
    dure_buf_fini(&leaf);
    dure_buf_fini(&note);
    dure_buf_fini(&frame);
    free(event);
}

void make_result(outcome *o, void (*twist)(dure_event *event))
{
    make_result_in(o, 2, twist);
}

void pretend_summed(void)
{
    stage_open_round();
    assert_non_null(st->s->round.config);
    dure_buf_init(&st->s->adapter, st->adapter.n);
    dure_put_raw(&st->s->adapter, st->adapter.data, st->adapter.n);
    assert_ok(dure_hash_bytes(&st->s->adapter_digest, dure_buf_span(&st->adapter)));
    st->s->round.charged = true;
    st->s->site.state.steps_used = 3;
    st->s->site.state.signed_round = 1;
    memset(st->s->site.state.signed_t3.b, 0x73, 32);
    st->s->site.state.round_hash = st->s->round.hash;
    st->s->site.state.round_u2 = dure_members_first(SITES);
    st->s->site.state.round_u3 = dure_members_first(SITES);
}

dure_err deliver(outcome *o, dure_diag *diag)
{
    dure_err err = session_on_result(st->s, &o->msg, diag);
    dure_msg_free(&o->msg);
    if (err || st->s->load.what != DOWNLOAD_SUM) return err;
    dure_put_raw(&st->s->load.bytes, o->sum.data, o->sum.n);
    return session_on_sum(st->s, diag);
}

void outcome_fini(outcome *o)
{
    dure_msg_free(&o->msg);
    dure_buf_fini(&o->sum);
    dure_buf_fini(&o->next);
    dure_buf_fini(&o->log);
}

void assert_refuses(outcome *o, const char *says)
{
    dure_diag diag = {0};
    assert_err(deliver(o, &diag), DURE_ERR_AUTH);
    if (!strstr(diag.text, says)) fail_msg("\"%s\" does not say %s", diag.text, says);
    assert_int_equal(st->n_done, 0);
    assert_int_equal(st->s->site.state.result_index, 0); /* no round starts from it */
}

void assert_follows(outcome *o)
{
    dure_diag diag = {0};
    if (deliver(o, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->s->site.state.result_index, 1);
    assert_int_equal(st->s->adapter.n, o->next.n);
    assert_memory_equal(st->s->adapter.data, o->next.data, o->next.n);
}
