/* The site's copy of the log, what it answers to a coordinator that lost it, and what the root may
 * take back: against a coordinator that lies. */
#include "common/clock.h"
#include "ledger/event.h"
#include "support/check.h"
#include "unit/client/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t rewritten; /* fill of the entries that tell() keeps; 0: those of stage_cite() */

static int setup(void **state)
{
    if (stage_setup(state)) return 1;
    rewritten = 0;
    dure_diag diag = {{0}};
    if (session_open_log(st->s, &diag)) fail_msg("%s", diag.text);
    return 0;
}

/* Entries `from` to `to` of the log that stage_cite() signs. */
static void send_entries(uint64_t from, uint64_t to, uint8_t fill)
{
    dure_buf bytes;
    dure_msg_entries e = {.kind = DURE_ENTRIES_LOG, .from = from, .total = to};
    dure_buf_init(&bytes, DURE_ENTRIES_ANSWER_BYTES);
    for (uint64_t i = from; i < to; i++) {
        const uint8_t leaf[2] = {(uint8_t)i, fill};
        dure_put_bytes(&bytes, leaf, 2);
        e.n_entries++;
    }
    e.n_bytes = (uint32_t)bytes.n;
    assert_ok(session_on_entries(st->s, &e, dure_buf_span(&bytes), NULL));
    dure_buf_fini(&bytes);
}

static uint64_t kept(void)
{
    return dure_leaf_log_size(st->s->copy.log);
}

/* The site has verified a log of n entries, as a round cites it. */
static void verify_log(uint64_t n)
{
    stage_cite(n, 0, 3);
    stage_open_round();
    assert_int_equal(dure_witness_head(st->s->witness).n, n);
    session_drop_round(st->s);
}

/* ---- the copy ---- */

static void test_copy_keeps_the_entries_of_the_checkpoint(void **state)
{
    (void)state;
    verify_log(4);
    assert_false(session_log_is_whole(st->s));
    send_entries(0, 3, 0);
    assert_int_equal(kept(), 0); /* not all of it is here */
    send_entries(3, 4, 0);
    assert_int_equal(kept(), 4);
    assert_true(session_log_is_whole(st->s));
    assert_ok(session_tick_log(st->s, dure_clock_monotonic_ms(), NULL));
}

/* Which the site was shown before, whatever proof comes with it now. */
static void test_copy_tells_the_beginning_of_the_log_without_a_proof(void **state)
{
    (void)state;
    const dure_merkle_proof none = {.n = 0};
    dure_merkle_head head = {.n = 2};
    verify_log(4);
    send_entries(0, 4, 0);
    assert_ok(dure_leaf_log_head(&head, st->s->copy.log, 2));
    assert_ok(session_check_history(st->s, &head, dure_buf_span(&st->note), &none, NULL));
    head.root.b[0] ^= 1;
    assert_err(session_check_history(st->s, &head, dure_buf_span(&st->note), &none, NULL),
               DURE_ERR_AUTH);
    assert_int_equal(dure_witness_head(st->s->witness).n, 4);
}

/* ---- proofs that begin elsewhere ---- */

/* A log of n entries, the first `same` of them those of stage_cite(), is shown with the proof from
 * `from` on. */
static dure_err show(uint64_t n, uint64_t from, uint64_t same, dure_merkle_head *head)
{
    char name[16];
    dure_leaf_log *log = NULL;
    dure_merkle_proof proof = {.n = 0};
    snprintf(name, sizeof name, "log%llu", (unsigned long long)same);
    assert_ok(dure_leaf_log_open(&log, temp_dir_file(&st->dir, name), DURE_LEAF_LOG_WRITE, NULL));
    for (uint64_t i = dure_leaf_log_size(log); i < 8; i++) {
        const uint8_t leaf[2] = {(uint8_t)i, i < same ? 0 : 9};
        assert_ok(dure_leaf_log_append(&(uint64_t){0}, log, dure_span_of(leaf, 2), NULL));
    }
    dure_checkpoint checkpoint;
    dure_checkpoint_origin(checkpoint.origin, "village", &st->s->federation_id);
    assert_ok(dure_leaf_log_head(&checkpoint.head, log, n));
    assert_ok(dure_leaf_log_consistency(&proof, log, n, from));
    dure_leaf_log_close(&log);
    dure_buf note;
    dure_buf_init(&note, DURE_NOTE_MAX);
    assert_ok(dure_checkpoint_sign(&note, &checkpoint, &st->f.coordinator_sign));
    if (head) *head = checkpoint.head;
    st->s->greet_ms = 0;
    dure_err err =
        session_check_history(st->s, &checkpoint.head, dure_buf_span(&note), &proof, NULL);
    dure_buf_fini(&note);
    return err;
}

/* HELLO said two entries, and crossed with the result that brought the third. */
static void hello_crosses(void)
{
    dure_merkle_head two;
    assert_ok(show(2, 0, 8, &two));
    session_note_start(st->s, &two);
    assert_ok(show(3, 2, 8, NULL));
}

static void test_site_asks_again_after_a_proof_from_its_last_hello(void **state)
{
    (void)state;
    hello_crosses();
    assert_err(show(5, 2, 8, NULL), DURE_ERR_CANCELLED);
    assert_int_equal(dure_witness_head(st->s->witness).n, 3);
    assert_true(st->s->greet_ms);
    assert_err(show(6, 5, 8, NULL), DURE_ERR_CANCELLED); /* sent before the HELLO was read */
    assert_ok(show(6, 3, 8, NULL));
    assert_int_equal(dure_witness_head(st->s->witness).n, 6);
}

/* That is no way to show it another log: nothing of it is taken, and not many are passed over. */
static void test_site_takes_no_other_log_by_a_proof_from_its_last_hello(void **state)
{
    (void)state;
    hello_crosses();
    assert_err(show(5, 3, 2, NULL), DURE_ERR_AUTH);
    for (int i = 0; i < SESSION_STARTS; i++)
        assert_err(show(5, 2, 2, NULL), DURE_ERR_CANCELLED);
    assert_err(show(5, 2, 2, NULL), DURE_ERR_AUTH);
    assert_int_equal(dure_witness_head(st->s->witness).n, 3);
}

/* Nor by showing the true one in between. */
static void test_site_takes_no_other_log_between_repeats_of_its_own(void **state)
{
    (void)state;
    hello_crosses();
    assert_err(show(5, 2, 2, NULL), DURE_ERR_CANCELLED);
    for (int i = 1; i < SESSION_STARTS; i++) {
        assert_ok(show(3, 2, 8, NULL));
        assert_err(show(5, 5, 2, NULL), DURE_ERR_CANCELLED); /* from where it was shown last */
    }
    assert_ok(show(3, 2, 8, NULL));
    assert_err(show(5, 5, 2, NULL), DURE_ERR_AUTH);
}

static void test_copy_keeps_nothing_else(void **state)
{
    (void)state;
    verify_log(4);
    send_entries(0, 4, 1);
    assert_int_equal(kept(), 0);
    assert_int_equal(st->s->copy.have, 0);
    assert_string_equal(st->event, "log_refused");
    send_entries(0, 4, 0);
    assert_int_equal(kept(), 4);
}

/* Ahead of the result that covers them they wait; another log then finds another root. */
static void test_copy_waits_for_the_checkpoint_of_what_comes_ahead(void **state)
{
    (void)state;
    send_entries(0, 4, 0);
    assert_int_equal(kept(), 0);
    assert_int_equal(st->s->copy.have, 4);
    verify_log(4);
    assert_int_equal(kept(), 4);
    send_entries(4, 6, 1);
    assert_int_equal(st->s->copy.have, 6);
    assert_int_equal(kept(), 4);
    st->s->copy.asked_ms = 0;
    assert_ok(session_tick_log(st->s, dure_clock_monotonic_ms(), NULL));
    assert_int_equal(st->s->copy.have, 4); /* forgotten: it is asked for when it is due */
}

static void test_copy_passes_over_what_was_not_asked_for(void **state)
{
    (void)state;
    verify_log(4);
    send_entries(1, 4, 0); /* not where the copy ends */
    assert_int_equal(st->s->copy.have, 0);
    const uint8_t bytes[] = {0, 0, 0, 9, 1};
    dure_msg_entries e = {.kind = DURE_ENTRIES_LOG, .n_entries = 1, .n_bytes = sizeof bytes};
    assert_ok(session_on_entries(st->s, &e, dure_span_of(bytes, sizeof bytes), NULL));
    assert_int_equal(st->s->copy.have, 0); /* cut short */
    e.n_bytes++;
    assert_ok(session_on_entries(st->s, &e, dure_span_of(bytes, sizeof bytes), NULL));
    e = (dure_msg_entries){.kind = DURE_ENTRIES_ROSTER, .n_entries = 1, .n_bytes = sizeof bytes};
    assert_ok(session_on_entries(st->s, &e, dure_span_of(bytes, sizeof bytes), NULL));
    assert_int_equal(st->s->copy.have, 0);
}

/* A coordinator cannot fill the site's memory with entries that nothing covers. */
static void test_copy_holds_little_that_is_not_verified(void **state)
{
    (void)state;
    dure_buf bytes;
    uint8_t *leaf = calloc(1, 32000);
    size_t most = 0;
    dure_buf_init(&bytes, DURE_ENTRIES_ANSWER_BYTES);
    for (int i = 0; i < 6; i++)
        dure_put_bytes(&bytes, leaf, 32000);
    for (int i = 0; i < 100; i++) {
        const dure_msg_entries e = {.kind = DURE_ENTRIES_LOG,
                                    .from = st->s->copy.have,
                                    .total = UINT64_MAX,
                                    .n_entries = 6,
                                    .n_bytes = (uint32_t)bytes.n};
        assert_ok(session_on_entries(st->s, &e, dure_buf_span(&bytes), NULL));
        if (st->s->copy.entries.n > most) most = st->s->copy.entries.n;
    }
    assert_true(most > 0 && most <= 2u << 20);
    assert_int_equal(kept(), 0);
    free(leaf);
    dure_buf_fini(&bytes);
}

/* ---- a coordinator that pretends to have lost something ---- */

static void ask_everything(void)
{
    static const uint64_t froms[] = {0, 1, 1000, UINT64_MAX};
    for (uint32_t kind = DURE_ENTRIES_LOG; kind <= DURE_ENTRIES_NOTES; kind++)
        for (size_t i = 0; i < 4; i++) {
            const dure_msg_entries_request q = {kind, froms[i]};
            assert_ok(session_on_entries_request(st->s, &q, NULL));
        }
    for (size_t i = 0; i < 4; i++) {
        dure_msg_blob_request q = {.offset = froms[i], .n_bytes = DURE_MSG_PAYLOAD_MAX};
        assert_ok(session_on_blob_request(st->s, &q, NULL));
        memcpy(q.digest, st->s->adapter_digest.b, sizeof q.digest);
        assert_ok(session_on_blob_request(st->s, &q, NULL));
    }
}

static void test_answering_changes_nothing_at_the_site(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    uint64_t length = 0, length_after = 0;
    dure_hash head, head_after;
    verify_log(4);
    send_entries(0, 4, 0);
    assert_ok(session_keep_sum(st->s, dure_span_of_text("a sum"), NULL));
    stage_make_config(2);
    stage_cite(4, 0, 3);
    st->n_open = 0;
    stage_open_round();
    assert_int_equal(st->n_open, 1);
    site->signed_round = site->last_round = 1;
    site->steps_used = 3;
    const dure_site_state before = *site;
    const dure_merkle_head seen = dure_witness_head(st->s->witness);
    dure_site_ledger_head(&head, &length, st->s->ledger);
    ask_everything();
    assert_memory_equal(&before, site, sizeof before);
    assert_int_equal(dure_witness_head(st->s->witness).n, seen.n);
    dure_site_ledger_head(&head_after, &length_after, st->s->ledger);
    assert_int_equal(length, length_after);
    assert_memory_equal(head.b, head_after.b, 32);
    assert_int_equal(kept(), 4);
    assert_non_null(st->s->round.client); /* the round goes on */
}

/* ---- what the root takes back ---- */

static dure_err tell(uint64_t epoch, uint64_t n_kept, uint64_t lost, const dure_sign_key *root)
{
    dure_hash leaves[8];
    dure_buf leaf;
    dure_event *event = calloc(1, sizeof *event);
    assert_true(n_kept <= 8);
    for (uint64_t i = 0; i < n_kept; i++) {
        const uint8_t bytes[2] = {(uint8_t)i, rewritten};
        assert_ok(dure_merkle_leaf(&leaves[i], dure_span_of(bytes, 2)));
    }
    *event = (dure_event){.kind = DURE_EVENT_NEW_EPOCH, .index = n_kept, .time_s = FIXTURE_JOINED};
    event->u.epoch = (dure_event_epoch){.federation_id = st->s->federation_id,
                                        .epoch = epoch,
                                        .kept.n = n_kept,
                                        .lost_n = lost,
                                        .reason = "a test"};
    assert_ok(dure_merkle_root(&event->u.epoch.kept.root, leaves, n_kept));
    assert_ok(dure_event_epoch_sign(&event->u.epoch, root));
    dure_buf_init(&leaf, DURE_LEAF_MAX);
    assert_ok(dure_event_encode(&leaf, event, NULL));
    const dure_msg_new_epoch m = {.leaf = dure_buf_span(&leaf)};
    dure_err err = session_on_new_epoch(st->s, &m, NULL);
    dure_buf_fini(&leaf);
    free(event);
    return err;
}

/* A result as entry 4, of a round that this site took part in and paid for. */
static void follow_a_result(void)
{
    dure_site_state *site = &st->s->site.state;
    verify_log(6);
    send_entries(0, 6, 0);
    memset(site->result_t3.b, 0x33, 32);
    memset(site->result_adapter.b, 0x44, 32);
    site->result_index = 4;
    site->last_round = site->signed_round = 5;
    site->steps_used = 3;
}

static void test_site_goes_on_after_a_loss_that_the_root_signed(void **state)
{
    (void)state;
    const dure_site_state *site = &st->s->site.state;
    follow_a_result();
    assert_ok(tell(1, 3, 6, &st->f.root));
    assert_string_equal(st->event, "new_epoch");
    assert_int_equal(dure_witness_head(st->s->witness).n, 3);
    assert_int_equal(kept(), 3);
    assert_int_equal(site->result_index, 0);
    assert_int_equal(site->result_t3.b[0], 0);
    /* What was paid and signed stays so. */
    assert_int_equal(site->last_round, 5);
    assert_int_equal(site->signed_round, 5);
    assert_int_equal(site->steps_used, 3);
    st->n_open = 0;
    stage_make_config(5);
    st->note.n = 0;
    stage_open_round();
    assert_int_equal(st->n_open, 0);
    if (!strstr(st->why, "opened again")) fail_msg("\"%s\"", st->why);
    stage_make_config(6);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
}

/* A result that is kept is still followed. */
static void test_site_keeps_a_result_that_was_not_lost(void **state)
{
    (void)state;
    follow_a_result();
    assert_ok(tell(1, 5, 6, &st->f.root));
    assert_int_equal(dure_witness_head(st->s->witness).n, 5);
    assert_int_equal(st->s->site.state.result_index, 4);
}

static void test_site_takes_a_loss_from_the_root_alone(void **state)
{
    (void)state;
    follow_a_result();
    assert_ok(tell(1, 3, 6, &st->f.coordinator_sign));
    assert_string_equal(st->event, "new_epoch_refused");
    assert_ok(tell(1, 3, 5, &st->f.root)); /* of less than it has seen */
    assert_string_equal(st->event, "new_epoch_refused");
    assert_ok(tell(1, 7, 9, &st->f.root)); /* keeps more than it has seen */
    assert_string_equal(st->event, "new_epoch_refused");
    rewritten = 1; /* keeps as many as it has seen, and others */
    assert_ok(tell(1, 3, 6, &st->f.root));
    assert_string_equal(st->event, "new_epoch_refused");
    if (!strstr(st->why, "not the first that this site has seen")) fail_msg("%s", st->why);
    const dure_msg_new_epoch junk = {.leaf = dure_span_of_text("junk")};
    assert_ok(session_on_new_epoch(st->s, &junk, NULL));
    assert_string_equal(st->event, "new_epoch_refused");
    assert_int_equal(dure_witness_head(st->s->witness).n, 6);
    assert_int_equal(st->s->site.state.result_index, 4);
    assert_int_equal(kept(), 6);
}

/* A statement works once: shown again after the log has grown, it would roll it back. */
static void test_site_takes_a_loss_once(void **state)
{
    (void)state;
    follow_a_result();
    assert_ok(tell(1, 3, 100, &st->f.root));
    st->n_open = 0;
    stage_make_config(6);
    stage_cite(3, 0, 3);
    stage_open_round();
    assert_int_equal(st->n_open, 1); /* moved on, if only to the same entries */
    session_drop_round(st->s);
    assert_ok(tell(1, 2, 100, &st->f.root));
    assert_string_equal(st->event, "new_epoch_refused");
    assert_int_equal(dure_witness_head(st->s->witness).n, 3);
    assert_ok(tell(2, 2, 100, &st->f.root));
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
}

/* Killed after the checkpoint's file was written and before the others. */
static void test_site_finishes_taking_a_loss_after_a_crash(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    follow_a_result();
    const dure_site_state before = *site;
    assert_ok(tell(1, 3, 6, &st->f.root));
    site->result_index = before.result_index;
    site->result_t3 = before.result_t3;
    uint64_t index;
    assert_ok(dure_leaf_log_append(&index, st->s->copy.log, dure_span_of_text("lost"), NULL));
    session_close_log(st->s);
    assert_ok(session_open_log(st->s, NULL));
    assert_int_equal(kept(), 3);
    assert_int_equal(site->result_index, 0);
    assert_int_equal(site->result_t3.b[0], 0);
}

int main(void)
{
#define ON_STAGE(test) cmocka_unit_test_setup_teardown(test, setup, stage_teardown)
    const struct CMUnitTest tests[] = {
        ON_STAGE(test_copy_keeps_the_entries_of_the_checkpoint),
        ON_STAGE(test_copy_tells_the_beginning_of_the_log_without_a_proof),
        ON_STAGE(test_site_asks_again_after_a_proof_from_its_last_hello),
        ON_STAGE(test_site_takes_no_other_log_by_a_proof_from_its_last_hello),
        ON_STAGE(test_site_takes_no_other_log_between_repeats_of_its_own),
        ON_STAGE(test_copy_keeps_nothing_else),
        ON_STAGE(test_copy_waits_for_the_checkpoint_of_what_comes_ahead),
        ON_STAGE(test_copy_passes_over_what_was_not_asked_for),
        ON_STAGE(test_copy_holds_little_that_is_not_verified),
        ON_STAGE(test_answering_changes_nothing_at_the_site),
        ON_STAGE(test_site_goes_on_after_a_loss_that_the_root_signed),
        ON_STAGE(test_site_keeps_a_result_that_was_not_lost),
        ON_STAGE(test_site_takes_a_loss_from_the_root_alone),
        ON_STAGE(test_site_takes_a_loss_once),
        ON_STAGE(test_site_finishes_taking_a_loss_after_a_crash),
    };
    return cmocka_run_group_tests_name("client.session_log", tests, NULL, NULL);
}
