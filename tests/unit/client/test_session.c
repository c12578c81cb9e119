/* The checks of a site before a round, against a coordinator that lies. */
#include "federation/global_adapter.h"
#include "secagg/transcript.h"
#include "support/check.h"
#include "unit/client/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_refused(const char *says)
{
    assert_null(st->s->round.config);
    assert_int_equal(st->n_open, 0);
    if (!strstr(st->why, says)) fail_msg("%s: \"%s\" does not say %s", st->event, st->why, says);
}

/* ---- before a round ---- */

static void test_session_takes_part_in_an_honest_round(void **state)
{
    (void)state;
    stage_open_round();
    assert_non_null(st->s->round.client);
    assert_int_equal(st->n_open, 1);
    assert_int_equal(dure_secagg_client_stage(st->s->round.client), DURE_STAGE_ADVERTISED);
    assert_int_equal(st->s->load.what, DOWNLOAD_ADAPTER);
    stage_open_round(); /* once more: the same round */
    assert_int_equal(st->n_open, 1);
}

static void test_session_refuses_an_unsigned_configuration(void **state)
{
    (void)state;
    st->break_signature = true;
    stage_open_round();
    assert_refused("");
}

static void test_session_refuses_a_replayed_round(void **state)
{
    (void)state;
    st->s->site.state.last_round = 1;
    stage_open_round();
    assert_refused("opened again");
}

/* It would be paid for and synced, and no later round had a number left. */
static void test_session_refuses_a_round_far_ahead(void **state)
{
    (void)state;
    static const uint64_t leaps[] = {UINT64_C(1) << 63, UINT64_MAX, (UINT64_C(1) << 40) + 6};
    st->s->site.state.last_round = 5;
    for (size_t i = 0; i < sizeof leaps / sizeof *leaps; i++) {
        stage_make_config(leaps[i]);
        stage_open_round();
        assert_refused("too far ahead");
    }
    st->s->site.state.last_round = INT64_MAX - 1;
    stage_make_config(UINT64_C(1) << 63); /* not far ahead, but no disk keeps it */
    stage_open_round();
    assert_refused("too far ahead");
    st->s->site.state.last_round = 5;
    stage_make_config((UINT64_C(1) << 40) + 5);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
}

static void test_session_refuses_altered_terms(void **state)
{
    (void)state;
    st->config->learning_rate *= 2;
    stage_open_round();
    assert_refused("training");
    stage_make_config(1);
    st->config->share_lifetime_ms *= 2;
    stage_open_round();
    assert_refused("cohort");
}

/* The coordinator would rather have keys that a recorded round can be opened with later. */
static void test_session_refuses_a_downgrade_of_the_suite(void **state)
{
    (void)state;
    st->s->site.invitation.terms.cohort.post_quantum = true; /* as the root signed them */
    assert_int_equal(st->config->suite, DURE_SUITE_X25519_AES256CTR);
    stage_open_round();
    assert_refused("suite");
    st->s->site.invitation.terms.cohort.post_quantum = false;
    st->s->site.policy.post_quantum = true; /* or as the site alone wants them */
    stage_open_round();
    assert_refused("post_quantum");
}

static void test_session_refuses_less_noise_than_declared(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SITES; i++) {
        st->config->members[i].sigma_num /= 2;
    }
    stage_open_round();
    assert_refused("declared");
}

static void test_session_refuses_what_its_policy_forbids(void **state)
{
    (void)state;
    st->s->site.policy.min_noise = 5;
    stage_open_round();
    assert_refused("min_noise");
    st->s->site.policy.min_noise = 0;
    st->s->site.policy.min_sites = 4;
    stage_open_round();
    assert_refused("min_sites");
}

static void test_session_refuses_when_the_plan_is_used(void **state)
{
    (void)state;
    st->s->site.state.steps_used = st->s->plan.steps - 2; /* a round takes three */
    stage_open_round();
    assert_refused("steps are used");
    assert_string_equal(st->event, "budget_refused");
}

/* ---- what is paid ---- */

/* The folder goes back to before the payment; the owner's ledger does not. */
static void test_session_restored_to_an_older_folder_uses_no_step_twice(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    dure_diag diag = {0};
    stage_open_round();
    if (session_pay(st->s, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(site->steps_used, 3);
    session_drop_round(st->s);
    site->steps_used = site->last_round = 0;
    st->n_open = 0;
    stage_open_round();
    assert_refused("opened again");
    stage_make_config(2);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
    assert_int_equal(site->steps_used, 3);
    if (session_pay(st->s, &diag)) fail_msg("%s", diag.text);
    session_drop_round(st->s);
    site->steps_used = site->last_round = 0;
    st->n_open = 0;
    stage_make_config(3);
    stage_open_round();
    assert_refused("steps are used"); /* two rounds of three were the whole plan */
}

static void test_session_pays_for_no_step_that_another_copy_paid_for(void **state)
{
    (void)state;
    uint64_t before = 0, after = 0;
    dure_hash head;
    dure_diag diag = {0};
    stage_open_round();
    assert_ok(session_pay(st->s, NULL));
    dure_site_ledger_head(&head, &before, st->s->ledger);
    st->s->site.state.steps_used = 0; /* as the copy believes */
    assert_err(session_pay(st->s, &diag), DURE_ERR_STATE);
    assert_non_null(strstr(diag.text, "another copy"));
    assert_int_equal(st->s->site.state.steps_used, 0);
    dure_site_ledger_head(&head, &after, st->s->ledger);
    assert_int_equal(after, before);
}

static void test_session_does_not_open_under_a_tightened_budget(void **state)
{
    (void)state;
    char dir[512], yaml[600];
    dure_diag diag = {0};
    snprintf(dir, sizeof dir, "%s", temp_dir_file(&st->dir, "ash"));
    snprintf(yaml, sizeof yaml, "%s/" DURE_SITE_YAML, dir);
    const dure_session_opts opts = {.dir = dir};
    dure_policy policy = st->s->site.policy;
    assert_ok(dure_site_save_state(&st->s->site, NULL));
    dure_session_close(&st->s);
    policy.budget.epsilon = 0.01;
    assert_ok(dure_policy_write(yaml, &policy, NULL));
    assert_err(dure_session_open(&st->s, &opts, &diag), DURE_ERR_POLICY);
    if (!strstr(diag.text, "epsilon")) fail_msg("%s", diag.text);
    policy.budget.epsilon = 50;
    assert_ok(dure_policy_write(yaml, &policy, NULL));
    assert_err(dure_session_open(&st->s, &opts, &diag), DURE_ERR_NOT_FOUND); /* the model */
}

/* The owner reads the path of his ledger; the coordinator does not. */
static void test_session_tells_the_coordinator_a_fixed_sentence(void **state)
{
    (void)state;
    char before[DURE_MSG_TEXT_SIZE] = "";
    for (dure_abort_code code = DURE_ABORT_CHECK; code <= DURE_ABORT_RESTARTED; code++) {
        dure_msg msg;
        dure_hash hash = {{1}}, digest;
        assert_ok(session_make_refusal(&msg, st->s, &hash, 0, code));
        const dure_msg_abort *abort = &msg.u.abort;
        assert_int_equal(abort->code, code);
        assert_true(abort->text[0] != 0);
        assert_null(strstr(abort->text, "/"));
        const dure_secagg_who who = {&hash, 0};
        assert_ok(dure_secagg_digest_abort(&digest, who, code, abort->text));
        assert_ok(dure_sign_verify(st->s->site.sign.public_, DURE_SECAGG_LABEL_ABORT,
                                   dure_hash_span(&digest), abort->signature));
        if (code <= DURE_ABORT_BUDGET) assert_string_not_equal(abort->text, before);
        snprintf(before, sizeof before, "%s", abort->text);
    }
}

static void test_session_refuses_a_rewritten_roster(void **state)
{
    (void)state;
    stage_open_round();
    session_drop_round(st->s);
    st->n_open = 0;
    /* The same sites in another order: entry 0 is not the one that was seen. */
    dure_join own = dure_roster_at(st->roster, 0)->join;
    dure_roster_free(&st->roster);
    assert_ok(dure_roster_new(&st->roster, st->f.root.public_));
    assert_ok(dure_roster_add(st->roster, &st->others[0].join, FIXTURE_JOINED, NULL));
    assert_ok(dure_roster_add(st->roster, &own, FIXTURE_JOINED, NULL));
    assert_ok(dure_roster_add(st->roster, &st->others[1].join, FIXTURE_JOINED, NULL));
    stage_make_config(2);
    stage_open_round();
    assert_refused("rewritten");
}

static void test_session_refuses_a_roster_with_a_gap(void **state)
{
    (void)state;
    st->roster_from = 1;
    stage_open_round();
    assert_refused("left out entries");
}

static void test_session_refuses_to_leave_the_last_result(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    memset(site->result_t3.b, 0x33, 32);
    memset(site->result_adapter.b, 0x44, 32);
    site->result_index = 2;
    stage_cite(4, 0, 3);
    memset(st->config->previous_t3, 0x33, 32);
    stage_open_round();
    assert_refused("does not start from its adapter");
    memcpy(site->result_adapter.b, st->config->adapter_digest, 32);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
}

/* Whatever else it names there, the rule which adapter it starts from must hold. */
static void test_session_refuses_a_round_that_follows_something_else(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    memset(st->config->previous_t3, 0x55, 32); /* a result that the site never saw */
    stage_open_round();
    assert_refused("does not follow the last result");
    memset(site->result_t3.b, 0x33, 32);
    memcpy(site->result_adapter.b, st->config->adapter_digest, 32);
    stage_open_round(); /* not the one that it saw */
    assert_refused("does not follow the last result");
    memset(st->config->previous_t3, 0, 32); /* as if there had been none */
    stage_open_round();
    assert_refused("does not follow the last result");
}

static void test_session_refuses_a_first_round_with_another_adapter(void **state)
{
    (void)state;
    dure_buf next;
    dure_hash digest;
    int32_t *sum = calloc((size_t)st->f.terms.layout.n_active, sizeof *sum);
    sum[0] = 1; /* B is not zero: it would not be the federation's first one */
    assert_ok(dure_global_adapter_next(&next, &st->f.terms, dure_buf_span(&st->adapter), sum, SITES,
                                       NULL));
    assert_ok(dure_global_adapter_check(&st->f.terms, dure_buf_span(&next), NULL));
    assert_ok(dure_hash_bytes(&digest, dure_buf_span(&next)));
    memcpy(st->config->adapter_digest, digest.b, 32);
    stage_open_round();
    assert_refused("federation's first adapter");
    dure_buf_fini(&next);
    free(sum);
}

static void test_session_refuses_a_log_without_the_result_that_the_round_follows(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    memset(site->result_t3.b, 0x33, 32);
    memcpy(site->result_adapter.b, st->config->adapter_digest, 32);
    site->result_index = 4;
    stage_cite(4, 0, 3); /* entries 0 to 3 */
    memset(st->config->previous_t3, 0x33, 32);
    stage_open_round();
    assert_refused("without the result");
    stage_cite(5, 0, 3);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
}

/* A coordinator that never cites a log could show every site another one. */
static void test_session_refuses_a_round_after_a_result_that_cites_no_log(void **state)
{
    (void)state;
    dure_site_state *site = &st->s->site.state;
    memset(site->result_t3.b, 0x33, 32);
    memcpy(site->result_adapter.b, st->config->adapter_digest, 32);
    memset(st->config->previous_t3, 0x33, 32);
    stage_open_round();
    assert_refused("without the result");
}

static void test_session_refuses_an_adapter_with_another_frozen_factor(void **state)
{
    (void)state;
    dure_terms other = st->f.terms;
    dure_buf file = {0};
    other.layout.seed++;
    assert_ok(dure_global_adapter_check(&st->f.terms, dure_buf_span(&st->adapter), NULL));
    assert_ok(dure_global_adapter_first(&file, &other, NULL));
    assert_err(dure_global_adapter_check(&st->f.terms, dure_buf_span(&file), NULL), DURE_ERR_AUTH);
    stage_open_round();
    assert_int_equal(st->s->load.what, DOWNLOAD_ADAPTER);
    dure_put_raw(&st->s->load.bytes, file.data, file.n);
    assert_ok(session_on_adapter(st->s, NULL));
    assert_int_equal(st->s->adapter.n, 0);
    assert_null(st->s->round.config);
    dure_buf_fini(&file);
}

/* The digest that the round names, and the bytes of another adapter that would pass by itself. */
static void test_session_refuses_other_bytes_than_the_digest_names(void **state)
{
    (void)state;
    dure_buf other;
    int32_t *sum = calloc((size_t)st->f.terms.layout.n_active, sizeof *sum);
    sum[0] = 1;
    assert_ok(dure_global_adapter_next(&other, &st->f.terms, dure_buf_span(&st->adapter), sum,
                                       SITES, NULL));
    stage_open_round();
    dure_msg_blob_chunk chunk = {.total_bytes = other.n, .n_bytes = (uint32_t)other.n};
    memcpy(chunk.digest, st->config->adapter_digest, 32);
    assert_ok(session_on_blob(st->s, &chunk, dure_buf_span(&other), NULL));
    assert_int_equal(st->s->adapter.n, 0);
    assert_null(st->s->round.config);
    dure_buf_fini(&other);
    free(sum);
}

/* ---- the log that a round cites ---- */

static void test_session_takes_a_checkpoint_with_a_quorum(void **state)
{
    (void)state;
    stage_cite(4, 0, 3);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
    assert_int_equal(dure_witness_head(st->s->witness).n, 4);
}

static void test_session_refuses_a_checkpoint_without_a_quorum(void **state)
{
    (void)state;
    stage_cite(4, 0, 2); /* 2 * 2 is not above 3 + 1 */
    stage_open_round();
    assert_refused("cosigned");
}

/* Sites that are in the roster and not in the round. */
static void join_more(unsigned n, int64_t joined_s)
{
    for (unsigned i = 0; i < n; i++) {
        char name[8];
        fixture_site *more = calloc(1, sizeof *more);
        snprintf(name, sizeof name, "more%u", i);
        fixture_site_make(more, &st->f, name);
        assert_ok(dure_roster_add(st->roster, &more->join, joined_s, NULL));
        free(more);
    }
    stage_make_config(1);
}

static void test_session_counts_cosignatures_with_its_own_bound_on_lying_sites(void **state)
{
    (void)state;
    join_more(1, FIXTURE_JOINED);
    stage_cite(4, 0, 3);
    st->s->site.policy.collusion = 2; /* 2 * 3 is above 4 + 1, but not above 4 + 2 */
    stage_open_round();
    assert_refused("cosigned");
    st->s->site.policy.collusion = 1;
    stage_open_round();
    assert_int_equal(st->n_open, 1);
}

/* The coordinator says when a site joined: it must not choose by that who counts. */
static void test_session_counts_sites_that_are_said_to_have_joined_late(void **state)
{
    (void)state;
    join_more(2, FIXTURE_EXPIRES - 1);
    stage_cite(4, 0, 3); /* 2 * 3 is not above 5 + 1 */
    stage_open_round();
    assert_refused("cosigned");
}

static void test_session_refuses_a_checkpoint_that_is_not_the_one_sent(void **state)
{
    (void)state;
    stage_cite(4, 0, 3);
    st->config->checkpoint_root[0] ^= 1;
    stage_open_round();
    assert_refused("not the one that was sent");
}

static void test_session_refuses_a_forked_log(void **state)
{
    (void)state;
    stage_cite(4, 0, 3);
    stage_open_round();
    session_drop_round(st->s);
    st->n_open = 0;
    stage_make_config(2);
    stage_cite(4, 9, 3); /* as many leaves, others */
    stage_open_round();
    assert_refused("");
    stage_make_config(2);
    stage_cite(6, 0, 3); /* longer, but without the proof */
    stage_open_round();
    assert_refused("");
}

static void test_session_refuses_to_go_back_to_an_older_checkpoint(void **state)
{
    (void)state;
    stage_cite(4, 0, 3);
    stage_open_round();
    session_drop_round(st->s);
    st->n_open = 0;
    stage_make_config(2); /* cites nothing, and sends no note */
    dure_buf_fini(&st->note);
    stage_open_round();
    assert_refused("rolled back or forked");
    stage_make_config(2);
    stage_cite(2, 0, 3);
    stage_open_round();
    assert_refused("rolled back or forked");
    stage_make_config(2);
    stage_cite(4, 0, 3); /* the same again */
    stage_open_round();
    assert_int_equal(st->n_open, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_session_takes_part_in_an_honest_round),
        TEST(test_session_refuses_an_unsigned_configuration),
        TEST(test_session_refuses_a_replayed_round),
        TEST(test_session_refuses_a_round_far_ahead),
        TEST(test_session_refuses_altered_terms),
        TEST(test_session_refuses_a_downgrade_of_the_suite),
        TEST(test_session_refuses_less_noise_than_declared),
        TEST(test_session_refuses_what_its_policy_forbids),
        TEST(test_session_refuses_when_the_plan_is_used),
        TEST(test_session_restored_to_an_older_folder_uses_no_step_twice),
        TEST(test_session_pays_for_no_step_that_another_copy_paid_for),
        TEST(test_session_does_not_open_under_a_tightened_budget),
        TEST(test_session_tells_the_coordinator_a_fixed_sentence),
        TEST(test_session_refuses_a_rewritten_roster),
        TEST(test_session_refuses_a_roster_with_a_gap),
        TEST(test_session_refuses_to_leave_the_last_result),
        TEST(test_session_refuses_a_round_that_follows_something_else),
        TEST(test_session_refuses_a_first_round_with_another_adapter),
        TEST(test_session_refuses_a_log_without_the_result_that_the_round_follows),
        TEST(test_session_refuses_a_round_after_a_result_that_cites_no_log),
        TEST(test_session_refuses_an_adapter_with_another_frozen_factor),
        TEST(test_session_refuses_other_bytes_than_the_digest_names),
        TEST(test_session_takes_a_checkpoint_with_a_quorum),
        TEST(test_session_refuses_a_checkpoint_without_a_quorum),
        TEST(test_session_counts_cosignatures_with_its_own_bound_on_lying_sites),
        TEST(test_session_counts_sites_that_are_said_to_have_joined_late),
        TEST(test_session_refuses_a_checkpoint_that_is_not_the_one_sent),
        TEST(test_session_refuses_a_forked_log),
        TEST(test_session_refuses_to_go_back_to_an_older_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
