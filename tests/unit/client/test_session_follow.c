/* What a site makes of rounds that the log closes and that it was not shown: of a coordinator that
 * puts them there, and of one that was there while the site was away. */
#include "federation/global_adapter.h"
#include "federation/server_step.h"
#include "ledger/round_event.h"
#include "support/check.h"
#include "unit/client/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MAX = 12 };

/* The coordinator's log, and the blobs that its rounds name. */
typedef struct history {
    dure_leaf_log *log;
    uint64_t closes[ROUNDS_MAX]; /* entry of each round's end */
    dure_buf adapters[ROUNDS_MAX + 1], sums[ROUNDS_MAX];
    uint32_t n;
} history;

static history h;
static unsigned n_cosigned;

dure_err __real_dure_witness_cosign(dure_cosignature *out, const dure_witness *witness,
                                    const dure_sign_key *key, uint64_t time_s);
dure_err __wrap_dure_witness_cosign(dure_cosignature *out, const dure_witness *witness,
                                    const dure_sign_key *key, uint64_t time_s);

dure_err __wrap_dure_witness_cosign(dure_cosignature *out, const dure_witness *witness,
                                    const dure_sign_key *key, uint64_t time_s)
{
    n_cosigned++;
    return __real_dure_witness_cosign(out, witness, key, time_s);
}

static void append(const dure_event *event)
{
    dure_buf leaf;
    uint64_t index;
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, event, NULL));
    assert_ok(dure_leaf_log_append(&index, h.log, dure_buf_span(&leaf), NULL));
    assert_int_equal(index, event->index);
    dure_buf_fini(&leaf);
}

static void begin_log(void)
{
    dure_event *event = calloc(1, sizeof *event);
    *event = (dure_event){.kind = DURE_EVENT_GENESIS, .time_s = FIXTURE_JOINED};
    dure_event_genesis *genesis = &event->u.genesis;
    genesis->federation_id = st->s->federation_id;
    snprintf(genesis->federation, sizeof genesis->federation, "village");
    memcpy(genesis->root_public, st->f.root.public_, 32);
    memcpy(genesis->coordinator_sign, st->f.coordinator_sign.public_, 32);
    memset(genesis->terms.b, 0x7e, sizeof genesis->terms.b);
    genesis->collusion = 1;
    append(event);
    free(event);
}

static int setup(void **state)
{
    if (stage_setup(state)) return 1;
    h = (history){.n = 0};
    n_cosigned = 0;
    assert_ok(
        dure_leaf_log_open(&h.log, temp_dir_file(&st->dir, "log"), DURE_LEAF_LOG_WRITE, NULL));
    assert_ok(session_open_log(st->s, NULL));
    dure_buf_init(&h.adapters[0], st->adapter.n);
    dure_put_raw(&h.adapters[0], st->adapter.data, st->adapter.n);
    begin_log();
    /* It was in a round before, as one that ended without a result. */
    st->s->site.state.last_round = 1;
    dure_buf_init(&st->s->adapter, st->adapter.n);
    dure_put_raw(&st->s->adapter, st->adapter.data, st->adapter.n);
    assert_ok(dure_hash_bytes(&st->s->adapter_digest, dure_buf_span(&st->adapter)));
    return 0;
}

static int teardown(void **state)
{
    dure_leaf_log_close(&h.log);
    for (uint32_t i = 0; i <= ROUNDS_MAX; i++)
        dure_buf_fini(&h.adapters[i]);
    for (uint32_t i = 0; i < ROUNDS_MAX; i++)
        dure_buf_fini(&h.sums[i]);
    return stage_teardown(state);
}

/* A round of the two others from `in` to `out`, with the sum of this round's number. */
static void close_round(const dure_buf *in, const dure_buf *out)
{
    dure_event *event = calloc(1, sizeof *event);
    dure_hash start;
    const uint32_t round = 10 + h.n;
    dure_round_outcome facts = {.t3 = {{(uint8_t)round}}, .u2 = dure_members_first(SITES)};
    stage_make_config(round);
    assert_ok(dure_hash_bytes(&start, dure_buf_span(in)));
    memcpy(st->config->adapter_digest, start.b, sizeof start.b);
    facts.config_hash = (dure_hash){{(uint8_t)round, 1}};
    facts.u2.word[0] &= ~(uint64_t)1; /* ash, the first by name, is not in it */
    facts.u3 = facts.u2;
    assert_ok(dure_hash_bytes(&facts.sum, dure_buf_span(&h.sums[h.n])));
    assert_ok(dure_hash_bytes(&facts.adapter_out, dure_buf_span(out)));
    dure_round_event_make(event, DURE_EVENT_CLOSED, st->config, &facts, FIXTURE_JOINED);
    event->index = h.closes[h.n] = dure_leaf_log_size(h.log);
    append(event);
    free(event);
    h.n++;
}

static void make_sum(void)
{
    const size_t n = (size_t)st->f.terms.layout.n_active;
    int32_t *sum = calloc(n, sizeof *sum);
    for (size_t i = 0; i < n; i++)
        sum[i] = (int32_t)((i + h.n) % 7) - 3;
    dure_buf *bytes = &h.sums[h.n];
    uint8_t *encoded = calloc(n, 4);
    dure_server_step_sum_put(encoded, sum, n);
    dure_buf_init(bytes, 4 * n);
    dure_put_raw(bytes, encoded, 4 * n);
    assert_ok(dure_global_adapter_next(&h.adapters[h.n + 1], &st->f.terms,
                                       dure_buf_span(&h.adapters[h.n]), sum, SITES - 1, NULL));
    free(encoded);
    free(sum);
}

static void honest_round(void)
{
    make_sum();
    close_round(&h.adapters[h.n], &h.adapters[h.n + 1]);
}

/* It leaves an adapter of the coordinator's own making, which no sum led to. */
static void bogus_round(void)
{
    make_sum();
    dure_buf *own = &h.adapters[h.n + 1];
    own->data[own->n - 5] ^= 1;
    close_round(&h.adapters[h.n], own);
}

/* ---- what the site is told ---- */

static void send_entries(uint64_t from)
{
    dure_buf bytes;
    const uint64_t total = dure_leaf_log_size(h.log);
    dure_msg_entries e = {.kind = DURE_ENTRIES_LOG, .from = from, .total = total};
    dure_buf_init(&bytes, DURE_ENTRIES_ANSWER_BYTES);
    for (uint64_t i = from; i < total; i++) {
        dure_buf leaf;
        assert_ok(dure_leaf_log_read(&leaf, h.log, i, NULL));
        dure_put_bytes(&bytes, leaf.data, leaf.n);
        dure_buf_fini(&leaf);
        e.n_entries++;
    }
    e.n_bytes = (uint32_t)bytes.n;
    assert_ok(session_on_entries(st->s, &e, dure_buf_span(&bytes), NULL));
    dure_buf_fini(&bytes);
}

/* RESULT of round i under the whole log. */
static dure_err say_result(uint32_t i, dure_diag *diag)
{
    dure_buf note, frame, leaf;
    dure_event *event = calloc(1, sizeof *event);
    dure_msg *received = NULL;
    dure_merkle_proof inclusion, consistency = {.n = 0};
    dure_checkpoint checkpoint;
    const uint64_t n = dure_leaf_log_size(h.log), seen = dure_witness_head(st->s->witness).n;
    dure_checkpoint_origin(checkpoint.origin, "village", &st->s->federation_id);
    assert_ok(dure_leaf_log_head(&checkpoint.head, h.log, n));
    assert_ok(dure_leaf_log_inclusion(&inclusion, h.log, n, h.closes[i]));
    if (seen && seen < n) assert_ok(dure_leaf_log_consistency(&consistency, h.log, n, seen));
    dure_buf_init(&note, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(&note, &checkpoint, &st->f.coordinator_sign));
    assert_ok(dure_leaf_log_read(&leaf, h.log, h.closes[i], NULL));
    assert_ok(dure_event_decode(event, dure_buf_span(&leaf), NULL));
    dure_msg msg = {.type = DURE_MSG_RESULT,
                    .u.result = {.leaf = dure_buf_span(&leaf),
                                 .leaf_index = h.closes[i],
                                 .checkpoint = dure_buf_span(&note),
                                 .inclusion = (const uint8_t(*)[32])inclusion.nodes,
                                 .n_inclusion = inclusion.n,
                                 .consistency = (const uint8_t(*)[32])consistency.nodes,
                                 .n_consistency = consistency.n}};
    memcpy(msg.u.result.config_hash, event->u.round.h_c.b, 32);
    memcpy(msg.u.result.t3, event->u.round.t3.b, 32);
    memcpy(msg.u.result.sum_digest, event->u.round.result.b, 32);
    memcpy(msg.u.result.adapter_digest, event->u.round.adapter_out.b, 32);
    dure_buf_init(&frame, DURE_MSG_BYTES_MAX);
    assert_ok(dure_msg_encode(&frame, &msg, NULL));
    assert_ok(dure_msg_decode(&received, dure_buf_span(&frame), NULL));
    dure_err err = session_on_result(st->s, &received, diag);
    dure_msg_free(&received);
    dure_buf_fini(&note);
    dure_buf_fini(&leaf);
    dure_buf_fini(&frame);
    free(event);
    return err;
}

/* Entries first, as a coordinator sends them. */
static void tell_result(uint32_t i)
{
    dure_diag diag = {{0}};
    send_entries(st->s->copy.have);
    if (say_result(i, &diag)) fail_msg("%s", diag.text);
}

static bool asks_for(const dure_buf *blob)
{
    dure_hash digest;
    assert_ok(dure_hash_bytes(&digest, dure_buf_span(blob)));
    return st->s->load.what == DOWNLOAD_SUM && dure_hash_equal(&st->s->load.digest, &digest);
}

static dure_err give_sum(uint32_t i, dure_diag *diag)
{
    assert_true(asks_for(&h.sums[i]));
    dure_put_raw(&st->s->load.bytes, h.sums[i].data, h.sums[i].n);
    return session_on_sum(st->s, diag);
}

static void give(uint32_t i)
{
    dure_diag diag = {{0}};
    if (give_sum(i, &diag)) fail_msg("%s", diag.text);
}

/* The coordinator says that it has no such blob. */
static void give_nothing(void)
{
    dure_msg_blob_chunk none = {.total_bytes = 0};
    memcpy(none.digest, st->s->load.digest.b, 32);
    assert_ok(session_on_blob(st->s, &none, dure_span_of("", 0), NULL));
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
}

static void assert_holds(uint32_t i)
{
    assert_int_equal(st->s->adapter.n, h.adapters[i].n);
    assert_memory_equal(st->s->adapter.data, h.adapters[i].data, h.adapters[i].n);
}

/* n rounds whose results were shown as they came. */
static void follow(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        honest_round();
        tell_result(i);
        give(i);
    }
    assert_int_equal(n_cosigned, n);
    assert_int_equal(st->s->site.state.proven, dure_leaf_log_size(h.log));
    assert_holds(n);
}

/* ---- a coordinator that lies ---- */

static void test_site_makes_up_for_a_round_that_it_was_never_shown(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    follow(1);
    bogus_round();
    honest_round();
    tell_result(2);
    assert_err(give_sum(1, &diag), DURE_ERR_AUTH); /* of the round that it was not shown */
    assert_non_null(strstr(diag.text, "does not follow from the sum"));
    assert_int_equal(n_cosigned, 1);
    assert_holds(1);
}

static void test_site_cosigns_nothing_over_a_round_whose_sum_is_kept_from_it(void **state)
{
    (void)state;
    follow(1);
    bogus_round();
    honest_round();
    tell_result(2);
    give_nothing();
    assert_int_equal(n_cosigned, 1);
    assert_string_equal(st->event, "not_cosigned");
    tell_result(2); /* again, as after a HELLO */
    give_nothing();
    assert_int_equal(n_cosigned, 1);
    assert_holds(1);
    /* Nor what comes after it, although that follows. */
    honest_round();
    tell_result(3);
    assert_int_equal(n_cosigned, 1);
}

/* The round that is shown goes on from what the site has; the one before it does not. */
static void test_site_cosigns_nothing_over_a_round_that_leads_aside(void **state)
{
    (void)state;
    follow(1);
    bogus_round();
    dure_buf_fini(&h.adapters[2]);
    dure_buf_init(&h.adapters[2], h.adapters[1].n);
    dure_put_raw(&h.adapters[2], h.adapters[1].data, h.adapters[1].n);
    honest_round(); /* from adapter 1 */
    tell_result(2);
    give(2);
    assert_holds(3);
    assert_int_equal(n_cosigned, 1);
    assert_string_equal(st->event, "not_cosigned");
    assert_true(st->s->site.state.proven <= h.closes[1]);
}

/* The result that the site knows, in a log that goes on behind it. */
static void test_site_cosigns_no_round_behind_the_result_that_it_is_shown(void **state)
{
    (void)state;
    follow(1);
    bogus_round();
    tell_result(0);
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    assert_int_equal(n_cosigned, 1);
    assert_string_equal(st->event, "not_cosigned");
}

static void test_site_refuses_a_round_that_it_was_never_shown_and_that_counts_it(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    follow(1);
    bogus_round();
    honest_round();
    /* As if it had renewed its keys to those of a site in the round. */
    memcpy(st->s->site.sign.public_, st->others[0].own.public_, 32);
    send_entries(st->s->copy.have);
    assert_err(say_result(2, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "took no part"));
}

static void test_site_cosigns_nothing_before_it_has_the_entries(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    follow(1);
    honest_round();
    if (say_result(1, &diag)) fail_msg("%s", diag.text); /* without them */
    give(1);
    assert_holds(2);
    assert_int_equal(n_cosigned, 1);
    send_entries(h.closes[1]);
    assert_int_equal(n_cosigned, 2);
    assert_int_equal(st->s->site.state.proven, dure_leaf_log_size(h.log));
    bogus_round();
    honest_round();
    if (say_result(3, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    send_entries(h.closes[2]);
    assert_int_equal(n_cosigned, 2);
}

/* ---- a site that was away ---- */

/* It has followed one round and missed two, is told of the next, and the first sum has come. */
static void come_back(void)
{
    follow(1);
    for (int i = 0; i < 3; i++)
        honest_round();
    tell_result(3);
    give(1);
}

static void test_site_makes_up_for_the_rounds_that_it_missed(void **state)
{
    (void)state;
    come_back();
    give(2);
    assert_int_equal(st->s->site.state.result_index, h.closes[2]);
    assert_int_equal(n_cosigned, 1); /* not before it is through */
    give(3);
    assert_holds(4);
    assert_int_equal(st->s->site.state.result_index, h.closes[3]);
    assert_int_equal(n_cosigned, 2);
    assert_int_equal(st->s->site.state.proven, dure_leaf_log_size(h.log));
}

static void test_site_goes_on_with_them_after_a_restart(void **state)
{
    (void)state;
    come_back();
    const dure_site_state before = st->s->site.state;
    give(2);
    /* Killed after the adapter was stored, and before the state was. */
    session_end_download(st->s);
    session_drop_round(st->s);
    st->s->site.state.proven = before.proven;
    st->s->site.state.result_index = before.result_index;
    st->s->site.state.result_t3 = before.result_t3;
    st->s->site.state.result_adapter = before.result_adapter;
    tell_result(3);
    give(3);
    assert_holds(4);
    assert_int_equal(n_cosigned, 2);
}

/* Who has missed very many does not fetch all their sums: a round that cites them speaks for them.
 */
static void test_site_waits_for_a_quorum_over_very_many_rounds(void **state)
{
    (void)state;
    follow(1);
    for (int i = 0; i < 10; i++)
        honest_round();
    tell_result(10);
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    assert_int_equal(n_cosigned, 1);
    assert_int_equal(st->s->site.state.result_index, h.closes[10]); /* which the round follows */
    st->s->site.state.proven = dure_leaf_log_size(h.log);           /* cited */
    tell_result(10);
    assert_int_equal(n_cosigned, 2);
}

static void test_site_counts_what_a_round_cites_as_proven(void **state)
{
    (void)state;
    stage_make_config(2);
    stage_cite(4, 0, 3);
    const size_t n = st->s->adapter.n;
    st->s->adapter.n = 0; /* nothing trains in this test, so its adapter comes later */
    stage_open_round();
    st->s->adapter.n = n;
    assert_int_equal(st->n_open, 1);
    assert_int_equal(st->s->site.state.proven, 4);
}

static void test_site_counts_nothing_as_proven_without_a_quorum(void **state)
{
    (void)state;
    stage_make_config(2);
    stage_cite(4, 0, 2);
    stage_open_round();
    assert_string_equal(st->event, "round_refused");
    assert_int_equal(st->s->site.state.proven, 0);
}

/* It has nothing to go by yet, and the first rounds' sums may be many. */
static void test_newcomer_begins_with_the_log_that_it_is_shown(void **state)
{
    (void)state;
    st->s->site.state.last_round = 0;
    dure_buf_fini(&st->s->adapter);
    for (int i = 0; i < 10; i++)
        honest_round();
    tell_result(9);
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    assert_int_equal(n_cosigned, 1);
    assert_int_equal(st->s->site.state.proven, dure_leaf_log_size(h.log));
    /* From then on it is none any more. */
    bogus_round();
    honest_round();
    tell_result(11);
    assert_int_equal(n_cosigned, 1);
}

static void test_newcomer_follows_a_few_rounds_from_the_first_adapter(void **state)
{
    (void)state;
    st->s->site.state.last_round = 0;
    dure_buf_fini(&st->s->adapter);
    honest_round();
    honest_round();
    tell_result(1);
    give(0);
    give(1);
    assert_holds(2);
    assert_int_equal(n_cosigned, 1);
}

int main(void)
{
#define ON_STAGE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ON_STAGE(test_site_makes_up_for_a_round_that_it_was_never_shown),
        ON_STAGE(test_site_cosigns_nothing_over_a_round_whose_sum_is_kept_from_it),
        ON_STAGE(test_site_cosigns_nothing_over_a_round_that_leads_aside),
        ON_STAGE(test_site_cosigns_no_round_behind_the_result_that_it_is_shown),
        ON_STAGE(test_site_refuses_a_round_that_it_was_never_shown_and_that_counts_it),
        ON_STAGE(test_site_cosigns_nothing_before_it_has_the_entries),
        ON_STAGE(test_site_makes_up_for_the_rounds_that_it_missed),
        ON_STAGE(test_site_goes_on_with_them_after_a_restart),
        ON_STAGE(test_site_waits_for_a_quorum_over_very_many_rounds),
        ON_STAGE(test_site_counts_what_a_round_cites_as_proven),
        ON_STAGE(test_site_counts_nothing_as_proven_without_a_quorum),
        ON_STAGE(test_newcomer_begins_with_the_log_that_it_is_shown),
        ON_STAGE(test_newcomer_follows_a_few_rounds_from_the_first_adapter),
    };
    return cmocka_run_group_tests_name("client.session_follow", tests, NULL, NULL);
}
