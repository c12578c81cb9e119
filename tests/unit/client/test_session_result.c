/* The checks of a site after a round, against a coordinator that lies. */
#include "secagg/transcript.h"
#include "support/check.h"
#include "unit/client/outcome.h"

#include <stdlib.h>
#include <string.h>

static void test_session_follows_the_sum_to_the_same_adapter(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    make_result(&o, NULL);
    assert_follows(&o);
    assert_int_equal(st->n_done, 1);
    assert_null(st->s->round.config);
    assert_int_equal(st->s->site.state.rounds_done, 1);
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
    outcome_fini(&o);
}

static void assert_result_refused(void (*twist)(dure_event *event), const char *says)
{
    outcome o = {0};
    pretend_summed();
    make_result(&o, twist);
    assert_refuses(&o, says);
    outcome_fini(&o);
}

static void twist_adapter(dure_event *event)
{
    event->u.round.adapter_out.b[0] ^= 1;
}

static void twist_time(dure_event *event)
{
    event->time_s++;
}

/* The coordinator was started again meanwhile, and its log has grown. */
static void test_session_follows_the_log_while_it_fetches_the_sum(void **state)
{
    (void)state;
    outcome first = {0}, again = {0}, other = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result_in(&first, 2, NULL);
    make_result_in(&again, 3, NULL);
    make_result_in(&other, 3, twist_time);
    assert_ok(session_on_result(st->s, &first.msg, &diag));
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
    assert_ok(session_on_result(st->s, &again.msg, &diag));
    assert_int_equal(dure_witness_head(st->s->witness).n, 3);
    assert_err(session_on_result(st->s, &other.msg, &diag), DURE_ERR_AUTH);
    if (!strstr(diag.text, "two log entries")) fail_msg("%s", diag.text);
    dure_put_raw(&st->s->load.bytes, first.sum.data, first.sum.n);
    assert_ok(session_on_sum(st->s, &diag));
    assert_int_equal(st->s->site.state.result_index, 1);
    outcome_fini(&first);
    outcome_fini(&again);
    outcome_fini(&other);
}

/* A HELLO that says two entries crosses with the result that brings the third: the result comes
 * again, with the proof from two on. */
static void test_session_takes_a_result_again_that_crossed_with_its_hello(void **state)
{
    (void)state;
    outcome first = {0}, grown = {0}, again = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result_in(&first, 2, NULL);
    make_result_in(&grown, 3, NULL);
    make_result_in(&again, 3, NULL);
    assert_ok(session_on_result(st->s, &first.msg, &diag));
    assert_ok(session_on_result(st->s, &grown.msg, &diag));
    if (session_on_result(st->s, &again.msg, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(dure_witness_head(st->s->witness).n, 3);
    outcome_fini(&first);
    outcome_fini(&grown);
    outcome_fini(&again);
}

static void test_session_refuses_an_adapter_that_does_not_follow(void **state)
{
    (void)state;
    assert_result_refused(twist_adapter, "does not follow from the sum");
}

static void twist_survivors(dure_event *event)
{
    event->u.round.t3.b[0] ^= 1;
}

static void test_session_refuses_other_survivors(void **state)
{
    (void)state;
    assert_result_refused(twist_survivors, "other survivors");
}

static void twist_round(dure_event *event)
{
    event->u.round.h_c.b[0] ^= 1;
}

static void test_session_refuses_the_entry_of_another_round(void **state)
{
    (void)state;
    assert_result_refused(twist_round, "another round");
}

static void twist_charge(dure_event *event)
{
    event->u.round.members[0].part = DURE_PART_NONE; /* ash, the first by name */
}

static void test_session_refuses_an_entry_that_does_not_charge_it(void **state)
{
    (void)state;
    assert_result_refused(twist_charge, "charge");
}

static void twist_noise(dure_event *event)
{
    event->u.round.members[1].plan.sigma_num *= 10;
}

static void twist_part(dure_event *event)
{
    event->u.round.members[1].part = DURE_PART_NONE;
}

static void twist_count(dure_event *event)
{
    event->u.round.members[2].part = DURE_PART_UPLOADED;
}

static void twist_roster(dure_event *event)
{
    event->u.round.roster_head.b[0] ^= 1;
}

static void test_session_refuses_an_entry_with_more_noise_than_there_was(void **state)
{
    (void)state;
    assert_result_refused(twist_noise, "come to");
}

static void test_session_refuses_an_entry_that_spares_another_site(void **state)
{
    (void)state;
    assert_result_refused(twist_part, "come to");
}

static void test_session_refuses_an_entry_with_another_number_of_survivors(void **state)
{
    (void)state;
    assert_result_refused(twist_count, "come to");
}

static void test_session_refuses_an_entry_of_another_roster(void **state)
{
    (void)state;
    assert_result_refused(twist_roster, "come to");
}

static void twist_gate(dure_event *event)
{
    event->time_s++;
    event->u.round.gate = (dure_event_gate){DURE_VERDICT_PASSED, 10, 2.0, 1.5};
}

static void test_session_leaves_the_gate_to_the_coordinator(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    make_result(&o, twist_gate);
    assert_follows(&o);
    assert_int_equal(st->n_done, 1);
    outcome_fini(&o);
}

/* As it dropped out before the survivors were named: how many they are is the entry's word. */
static void forget_survivors(void)
{
    st->s->site.state.signed_round = 0;
    st->s->site.state.round_hash = (dure_hash){{0}};
}

static void test_session_follows_a_round_that_it_did_not_see_through(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    forget_survivors();
    make_result(&o, NULL);
    assert_follows(&o);
    assert_int_equal(st->n_done, 1);
    outcome_fini(&o);
}

/* A coordinator can end a round at every site before there are survivors. */
static void test_session_refuses_another_adapter_without_having_seen_the_survivors(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    forget_survivors();
    make_result(&o, twist_adapter);
    assert_refuses(&o, "does not follow from the sum");
    outcome_fini(&o);
}

/* In the first round it is still fetching the adapter, which the coordinator need not send. */
static void test_session_refuses_another_adapter_before_it_has_the_first(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    forget_survivors();
    make_result(&o, twist_adapter);
    dure_buf_fini(&st->s->adapter);
    assert_refuses(&o, "does not follow from the sum");
    outcome_fini(&o);
}

/* ---- rounds of others ---- */

/* As a site that was in no round. */
static void leave_to_others(void)
{
    dure_site_state *site = &st->s->site.state;
    site->signed_round = site->last_round = 0;
    site->round_hash = (dure_hash){{0}};
    session_drop_round(st->s);
}

static void make_others_result(outcome *o, void (*twist)(dure_event *event))
{
    pretend_summed();
    make_result(o, twist);
    leave_to_others();
}

/* Round 2, from where round 1 started: nothing trains in this test, so its adapter comes later. */
static void open_the_next(void)
{
    const size_t n = st->s->adapter.n;
    st->s->adapter.n = 0;
    stage_make_config(2);
    stage_open_round();
    assert_int_equal(st->s->round.config->round, 2);
    st->s->adapter.n = n;
}

static void twist_without_it(dure_event *event)
{
    event->u.round.members[0].part = DURE_PART_NONE; /* ash, the first by name */
}

/* What the next round has to follow; and the site says that the log extends what it saw. */
static void test_session_notes_a_result_of_others_and_follows_it(void **state)
{
    (void)state;
    outcome o = {.less = 1}, again = {.less = 1};
    pretend_summed();
    make_result(&o, twist_without_it);
    make_result(&again, twist_without_it);
    leave_to_others();
    assert_follows(&o);
    assert_int_equal(st->s->site.state.result_t3.b[0], 0x73);
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
    assert_int_equal(st->n_done, 0);
    assert_ok(session_on_result(st->s, &again.msg, NULL)); /* known: nothing is fetched again */
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    outcome_fini(&o);
    outcome_fini(&again);
}

static void twist_adapter_without_it(dure_event *event)
{
    twist_without_it(event);
    twist_adapter(event);
}

static void test_session_refuses_another_adapter_of_a_round_of_others(void **state)
{
    (void)state;
    outcome o = {0};
    make_others_result(&o, twist_adapter_without_it);
    assert_refuses(&o, "does not follow from the sum");
    outcome_fini(&o);
}

/* It was away for a round, and has not the adapter that this one started from. */
static void test_session_notes_a_result_that_it_cannot_follow(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    make_others_result(&o, twist_without_it);
    st->s->adapter_digest.b[0] ^= 1;
    if (session_on_result(st->s, &o.msg, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    assert_int_equal(st->s->site.state.result_index, 1);
    outcome_fini(&o);
}

static void twist_start(dure_event *event)
{
    twist_without_it(event);
    event->u.round.adapter_in.b[0] ^= 1;
}

static void tell_log(const outcome *o)
{
    const dure_msg_entries e = {
        .kind = DURE_ENTRIES_LOG, .n_entries = 2, .total = 2, .n_bytes = (uint32_t)o->log.n};
    assert_ok(session_on_entries(st->s, &e, dure_buf_span(&o->log), NULL));
}

/* As if it had been away: but its copy of the log has no round in between. */
static void test_session_refuses_a_result_that_starts_from_elsewhere(void **state)
{
    (void)state;
    outcome o = {0};
    assert_ok(session_open_log(st->s, NULL));
    make_others_result(&o, twist_start);
    tell_log(&o);
    assert_refuses(&o, "starts from another adapter");
    outcome_fini(&o);
}

/* The next round's survivors are signed by now, and of the one before nothing is left. */
static void be_beside_the_next(outcome *o, void (*twist)(dure_event *event))
{
    make_others_result(o, twist);
    open_the_next();
    st->s->site.state.signed_round = st->s->site.state.last_round = 2;
}

static void test_session_follows_a_result_beside_the_round_in_hand(void **state)
{
    (void)state;
    outcome o = {0};
    be_beside_the_next(&o, NULL);
    assert_follows(&o);
    assert_null(st->s->round.config); /* what started where that round did is over */
    outcome_fini(&o);
}

static void test_session_refuses_another_adapter_beside_the_round_in_hand(void **state)
{
    (void)state;
    outcome o = {0};
    be_beside_the_next(&o, twist_adapter);
    assert_refuses(&o, "does not follow from the sum");
    outcome_fini(&o);
}

/* What follows a result is looked at once that one is followed itself. */
static void test_session_asks_for_a_result_again_that_came_during_a_download(void **state)
{
    (void)state;
    outcome o = {0}, other = {0};
    pretend_summed();
    make_result(&o, NULL);
    make_result_in(&other, 3, twist_adapter);
    other.msg->u.result.config_hash[0] ^= 1;
    assert_ok(session_on_result(st->s, &o.msg, NULL));
    assert_ok(session_on_result(st->s, &other.msg, NULL));
    assert_int_equal(dure_witness_head(st->s->witness).n, 2);
    assert_int_equal(st->s->load.what, DOWNLOAD_SUM);
    assert_true(st->s->open_missed);
    outcome_fini(&o);
    outcome_fini(&other);
}

/* HELLO said two entries and crossed with what brought the third; the result comes with the log of
 * two, and right behind it the round that follows it. */
static void cross_with_hello(outcome *late, outcome *again)
{
    outcome first = {.less = 1};
    const dure_merkle_proof none = {.n = 0};
    dure_merkle_proof proof = {.n = 1};
    pretend_summed();
    make_result(&first, twist_without_it);
    make_result(late, twist_without_it);
    make_result_in(again, 3, twist_without_it);
    leave_to_others();
    const dure_msg_result *r = &again->msg->u.result;
    memcpy(proof.nodes[0].b, r->consistency[0], 32);
    assert_ok(dure_witness_update(st->s->witness, first.msg->u.result.checkpoint, &none, NULL));
    const dure_merkle_head two = dure_witness_head(st->s->witness);
    session_note_start(st->s, &two);
    assert_ok(dure_witness_update(st->s->witness, r->checkpoint, &proof, NULL));
    outcome_fini(&first);
    assert_ok(session_on_result(st->s, &late->msg, NULL));
    assert_int_equal(st->s->load.what, DOWNLOAD_NOTHING);
    assert_true(st->s->greet_ms);
    stage_make_config(2);
    memset(st->config->previous_t3, 0x73, 32);
    stage_open_round();
    assert_string_not_equal(st->event, "round_refused"); /* nobody is told anything */
    assert_true(st->s->open_missed);
}

static void test_session_leaves_a_round_behind_a_result_that_crossed(void **state)
{
    (void)state;
    outcome late = {.less = 1}, again = {.less = 1};
    cross_with_hello(&late, &again);
    assert_follows(&again);
    memcpy(st->config->adapter_digest, st->s->adapter_digest.b, 32);
    const size_t n = st->s->adapter.n;
    st->s->adapter.n = 0;
    stage_open_round(); /* it is looked at: this one cites no log */
    st->s->adapter.n = n;
    if (!strstr(st->why, "without the result")) fail_msg("%s", st->why);
    outcome_fini(&late);
    outcome_fini(&again);
}

/* Were the result not sent again, the site would ignore rounds for ever. */
static void test_session_leaves_one_round_alone_behind_a_result(void **state)
{
    (void)state;
    outcome late = {.less = 1}, again = {.less = 1};
    cross_with_hello(&late, &again);
    stage_open_round();
    if (!strstr(st->why, "does not follow the last result")) fail_msg("%s", st->why);
    outcome_fini(&late);
    outcome_fini(&again);
}

static void test_session_refuses_a_result_of_others_that_counts_it(void **state)
{
    (void)state;
    outcome o = {0};
    make_others_result(&o, NULL);
    assert_refuses(&o, "took no part");
    outcome_fini(&o);
}

/* It signed R3 and lost its secrets: the survivors are those that it signed. */
static void test_session_refuses_a_result_of_others_with_other_survivors(void **state)
{
    (void)state;
    outcome o = {0};
    make_others_result(&o, NULL);
    st->s->site.state.signed_round = st->s->site.state.last_round = 1;
    memset(st->s->site.state.signed_t3.b, 0x74, 32);
    assert_refuses(&o, "other survivors");
    outcome_fini(&o);
}

static void test_session_asks_for_a_round_again_that_came_during_a_download(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, NULL);
    if (session_on_result(st->s, &o.msg, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->s->load.what, DOWNLOAD_SUM);
    stage_make_config(2);
    st->n_open = 0;
    stage_open_round();
    assert_int_equal(st->n_open, 0);
    assert_int_equal(st->s->load.what, DOWNLOAD_SUM); /* still fetched and followed */
    assert_true(st->s->open_missed);
    outcome_fini(&o);
}

static void test_session_refuses_an_entry_that_is_not_in_the_log(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, NULL);
    o.msg->u.result.leaf_index = 1;
    ((uint8_t *)(uintptr_t)o.msg->u.result.inclusion)[0] ^= 1;
    assert_err(deliver(&o, &diag), DURE_ERR_AUTH);
    assert_int_equal(st->n_done, 0);
    outcome_fini(&o);
}

/* The site has seen four entries; the round cites none, so as to show a log without them. */
static void test_session_refuses_a_result_in_a_forked_log(void **state)
{
    (void)state;
    outcome o = {0};
    dure_merkle_proof none = {.n = 0};
    stage_cite(4, 0, 0);
    assert_ok(dure_witness_update(st->s->witness, dure_buf_span(&st->note), &none, NULL));
    dure_buf_fini(&st->note);
    stage_make_config(1);
    pretend_summed();
    make_result(&o, NULL);
    assert_refuses(&o, "forked");
    assert_int_equal(dure_witness_head(st->s->witness).n, 4);
    outcome_fini(&o);
}

/* Only what is on disk is left of the round: its configuration and the reply, for this T3. */
static void restart_after_r4(void)
{
    dure_site_state *site = &st->s->site.state;
    dure_revealed share = {.member = 0, .kind = DURE_SHARE_SELF};
    dure_msg msg = {.type = DURE_MSG_UNMASK, .u.unmask = {.entries = &share, .n_entries = 1}};
    memcpy(msg.u.unmask.config_hash, st->s->round.hash.b, 32);
    memset(msg.u.unmask.t3, 0x73, 32);
    assert_ok(dure_msg_encode(&site->reply, &msg, NULL));
    dure_put_raw(&site->round_config, st->s->round.encoding.data, st->s->round.encoding.n);
    site->round_hash = st->s->round.hash;
    session_drop_round(st->s);
}

static dure_err say_signatures(uint8_t t3)
{
    dure_msg msg = {.type = DURE_MSG_SIGNATURES};
    memcpy(msg.u.signatures.config_hash, st->s->site.state.round_hash.b, 32);
    memset(msg.u.signatures.t3, t3, 32);
    return session_on_round_message(st->s, &msg, NULL);
}

static void test_session_repeats_a_stored_reply_for_its_own_survivors_alone(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    pretend_summed();
    restart_after_r4();
    assert_ok(say_signatures(0x73));
    assert_true(site->reply.n > 0);
    assert_string_not_equal(st->event, "round_failed");
    assert_ok(say_signatures(0x74));
    assert_string_equal(st->event, "round_failed");
    assert_int_equal(site->reply.n, 0);
    assert_null(st->s->round.config);
}

static dure_err say_abort(const dure_sign_key *key)
{
    dure_hash digest;
    dure_msg msg = {.type = DURE_MSG_ABORT, .u.abort = {.code = DURE_ABORT_RESTARTED}};
    dure_msg_text(msg.u.abort.text, "the round is over");
    memcpy(msg.u.abort.config_hash, st->s->site.state.round_hash.b, 32);
    const dure_secagg_who who = {&st->s->site.state.round_hash, DURE_SECAGG_COORDINATOR};
    assert_ok(dure_secagg_digest_abort(&digest, who, msg.u.abort.code, msg.u.abort.text));
    assert_ok(
        dure_sign(msg.u.abort.signature, key, DURE_SECAGG_LABEL_ABORT, dure_hash_span(&digest)));
    return session_on_round_message(st->s, &msg, NULL);
}

static void test_session_obeys_an_abort_after_a_restart_only_if_it_is_signed(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    pretend_summed();
    restart_after_r4();
    assert_ok(say_abort(&st->others[0].own));
    assert_true(site->reply.n > 0);
    assert_ok(say_abort(&st->f.coordinator_sign));
    assert_int_equal(site->reply.n, 0);
}

/* The coordinator calls the round over, and publishes its result all the same. */
static void call_over(outcome *o, void (*twist)(dure_event *event))
{
    pretend_summed();
    make_result(o, twist);
    restart_after_r4();
    assert_ok(say_abort(&st->f.coordinator_sign));
    assert_int_equal(st->s->site.state.reply.n, 0);
}

static void test_session_follows_a_round_that_was_called_over(void **state)
{
    (void)state;
    outcome o = {0};
    call_over(&o, NULL);
    assert_follows(&o);
    assert_int_equal(st->n_done, 1);
    outcome_fini(&o);
}

static void test_session_checks_the_survivors_of_a_round_that_was_called_over(void **state)
{
    (void)state;
    outcome o = {0};
    call_over(&o, twist_count);
    assert_refuses(&o, "come to");
    outcome_fini(&o);
}

static void test_session_checks_the_adapter_of_a_round_that_was_called_over(void **state)
{
    (void)state;
    outcome o = {0};
    call_over(&o, twist_adapter);
    assert_refuses(&o, "does not follow from the sum");
    outcome_fini(&o);
}

/* The coordinator opens the next round first, from where the last one started. */
static void test_session_follows_a_stored_round_beside_the_one_in_hand(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    make_result(&o, NULL);
    restart_after_r4();
    open_the_next();
    assert_follows(&o);
    assert_int_equal(st->n_done, 1);
    outcome_fini(&o);
}

static void test_session_checks_a_stored_round_beside_the_one_in_hand(void **state)
{
    (void)state;
    outcome o = {0};
    pretend_summed();
    make_result(&o, twist_count);
    restart_after_r4();
    open_the_next();
    assert_refuses(&o, "come to");
    outcome_fini(&o);
}

static void test_session_takes_a_result_after_a_restart(void **state)
{
    (void)state;
    outcome o = {0};
    dure_diag diag = {0};
    pretend_summed();
    make_result(&o, NULL);
    dure_site_state *site = &st->s->site.state;
    restart_after_r4();
    if (deliver(&o, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(st->n_done, 1);
    assert_int_equal(site->reply.n, 0);
    outcome_fini(&o);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_session_follows_the_sum_to_the_same_adapter),
        TEST(test_session_follows_the_log_while_it_fetches_the_sum),
        TEST(test_session_takes_a_result_again_that_crossed_with_its_hello),
        TEST(test_session_refuses_an_adapter_that_does_not_follow),
        TEST(test_session_refuses_other_survivors),
        TEST(test_session_refuses_the_entry_of_another_round),
        TEST(test_session_refuses_an_entry_that_does_not_charge_it),
        TEST(test_session_refuses_an_entry_with_more_noise_than_there_was),
        TEST(test_session_refuses_an_entry_that_spares_another_site),
        TEST(test_session_refuses_an_entry_with_another_number_of_survivors),
        TEST(test_session_refuses_an_entry_of_another_roster),
        TEST(test_session_leaves_the_gate_to_the_coordinator),
        TEST(test_session_follows_a_round_that_it_did_not_see_through),
        TEST(test_session_refuses_another_adapter_without_having_seen_the_survivors),
        TEST(test_session_refuses_another_adapter_before_it_has_the_first),
        TEST(test_session_notes_a_result_of_others_and_follows_it),
        TEST(test_session_refuses_another_adapter_of_a_round_of_others),
        TEST(test_session_notes_a_result_that_it_cannot_follow),
        TEST(test_session_refuses_a_result_that_starts_from_elsewhere),
        TEST(test_session_follows_a_result_beside_the_round_in_hand),
        TEST(test_session_refuses_another_adapter_beside_the_round_in_hand),
        TEST(test_session_asks_for_a_result_again_that_came_during_a_download),
        TEST(test_session_follows_a_round_that_was_called_over),
        TEST(test_session_checks_the_survivors_of_a_round_that_was_called_over),
        TEST(test_session_checks_the_adapter_of_a_round_that_was_called_over),
        TEST(test_session_follows_a_stored_round_beside_the_one_in_hand),
        TEST(test_session_checks_a_stored_round_beside_the_one_in_hand),
        TEST(test_session_leaves_a_round_behind_a_result_that_crossed),
        TEST(test_session_leaves_one_round_alone_behind_a_result),
        TEST(test_session_refuses_a_result_of_others_that_counts_it),
        TEST(test_session_refuses_a_result_of_others_with_other_survivors),
        TEST(test_session_asks_for_a_round_again_that_came_during_a_download),
        TEST(test_session_refuses_an_entry_that_is_not_in_the_log),
        TEST(test_session_refuses_a_result_in_a_forked_log),
        TEST(test_session_takes_a_result_after_a_restart),
        TEST(test_session_repeats_a_stored_reply_for_its_own_survivors_alone),
        TEST(test_session_obeys_an_abort_after_a_restart_only_if_it_is_signed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
