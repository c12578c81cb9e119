/* A round that comes to its end where the update is masked, because of what another site or the
 * coordinator sent: the site's session outlives it, unpaid. */
#include "client/work.h"
#include "secagg/client_int.h"
#include "secagg/server.h"
#include "support/check.h"
#include "unit/client/stage.h"

#include <stdlib.h>
#include <string.h>

bool __wrap_dure_work_next_step(dure_trainer_step *step, dure_work *work);
dure_work_state __wrap_dure_work_state_of(dure_work *work, dure_diag *why);
dure_err __wrap_dure_work_update(const int32_t **units, size_t *n, dure_work *work,
                                 dure_diag *diag);
bool __wrap_dure_work_lost(const dure_work *work, dure_diag *why);

/* Training is over, and its update is zero. */
bool __wrap_dure_work_next_step(dure_trainer_step *step, dure_work *work)
{
    (void)step, (void)work;
    return false;
}

dure_work_state __wrap_dure_work_state_of(dure_work *work, dure_diag *why)
{
    (void)work, (void)why;
    return DURE_WORK_TRAINED;
}

static int32_t *update;

dure_err __wrap_dure_work_update(const int32_t **units, size_t *n, dure_work *work, dure_diag *diag)
{
    (void)work, (void)diag;
    *units = update;
    *n = st->s->round.config->n_words;
    return DURE_OK;
}

static const char *lost;

bool __wrap_dure_work_lost(const dure_work *work, dure_diag *why)
{
    (void)work;
    if (lost) dure_diag_set(why, DURE_ERR_USAGE, "%s", lost);
    return lost != NULL;
}

static dure_secagg_client *own_client(void)
{
    return st->s->round.client;
}

/* The two other sites' machines; a place is NULL for this site. */
static dure_secagg_client *machines[SITES];
static dure_secagg_server *server;

static void make_machines(void)
{
    const dure_config *config = st->s->round.config;
    const dure_secagg_server_opts opts = {config, st->s->round.hash, &st->f.coordinator_sign};
    assert_ok(dure_secagg_server_new(&server, &opts, NULL));
    for (uint32_t i = 0; i < SITES; i++) {
        if (i == st->s->round.self) continue;
        const bool first =
            memcmp(config->members[i].sign_public, st->others[0].own.public_, DURE_KEY_BYTES) == 0;
        const dure_secagg_client_opts client = {.config = config,
                                                .config_hash = st->s->round.hash,
                                                .sign = &st->others[first ? 0 : 1].own,
                                                .coordinator_sign = st->f.coordinator_sign.public_,
                                                .rng = dure_rng_system(),
                                                .floors = {1, 0, 3}};
        assert_ok(dure_secagg_client_new(&machines[i], &client, NULL));
    }
}

/* A message of the coordinator to one of the sites; what that one's machine answers is in *said. */
static void tell(dure_buf *said, uint32_t member, const dure_msg *msg)
{
    dure_secagg_actions actions = {0};
    dure_buf_init(said, DURE_MSG_BYTES_MAX);
    if (member == st->s->round.self) {
        assert_ok(session_on_round_message(st->s, msg, NULL));
        if (msg->type != DURE_MSG_KEYS) return;
        const dure_span r1 = dure_buf_span(&own_client()->replies[1]);
        dure_put_raw(said, r1.data, r1.n);
        return;
    }
    assert_ok(dure_secagg_client_step(&actions, machines[member], msg, 1, NULL));
    if (actions.n && actions.items[0].kind == DURE_SECAGG_SEND)
        dure_put_raw(said, actions.items[0].bytes.data, actions.items[0].bytes.n);
    dure_secagg_actions_fini(&actions);
}

static void answer(dure_secagg_actions *next, uint32_t member, dure_span frame)
{
    dure_msg *msg = NULL;
    dure_diag diag = {0};
    assert_ok(dure_msg_decode(&msg, frame, NULL));
    if (dure_secagg_server_step(next, server, member, msg, NULL, &diag)) fail_msg("%s", diag.text);
    dure_msg_free(&msg);
}

/* Delivers what the server sends; the answers to it bring about `next`. */
static void deliver(dure_secagg_actions *next, const dure_secagg_actions *actions)
{
    for (size_t i = 0; i < actions->n; i++) {
        const dure_secagg_action *a = &actions->items[i];
        dure_buf said;
        dure_msg *msg = NULL;
        if (a->kind != DURE_SECAGG_SEND) continue;
        assert_ok(dure_msg_decode(&msg, a->bytes, NULL));
        tell(&said, a->member, msg);
        if (said.n) answer(next, a->member, dure_buf_span(&said));
        dure_buf_fini(&said);
        dure_msg_free(&msg);
    }
}

/* They read the round's configuration, which the session ends before they do. */
static void free_machines(void)
{
    for (uint32_t i = 0; i < SITES; i++)
        dure_secagg_client_free(&machines[i]);
    dure_secagg_server_free(&server);
}

/* An honest round up to A2: the shares are there, and the update is waited for. */
static void reach_masking(void)
{
    dure_secagg_actions a1 = {0}, a2 = {0}, none = {0};
    stage_open_round();
    assert_non_null(own_client());
    make_machines();
    for (uint32_t i = 0; i < SITES; i++) {
        dure_secagg_actions r0 = {0};
        assert_ok(dure_secagg_client_start(&r0, i == st->s->round.self ? own_client() : machines[i],
                                           NULL));
        answer(&a1, i, r0.items[0].bytes);
        dure_secagg_actions_fini(&r0);
    }
    deliver(&a2, &a1);
    deliver(&none, &a2);
    dure_secagg_actions_fini(&a1);
    dure_secagg_actions_fini(&a2);
    dure_secagg_actions_fini(&none);
    free_machines();
    assert_int_equal(dure_secagg_client_stage(own_client()), DURE_STAGE_TRAINING);
    assert_true(st->s->round.mask_ready);
    update = calloc(st->s->round.config->n_words, sizeof *update);
    assert_non_null(update);
}

static int teardown(void **state)
{
    free(update);
    update = NULL;
    lost = NULL;
    return stage_teardown(state);
}

/* What A1 lets through and masking does not is the end of the round, not of the site. */
static void test_session_outlives_a_round_that_cannot_be_masked(void **state)
{
    (void)state;
    dure_diag diag = {0};
    reach_masking();
    const uint32_t other = (st->s->round.self + 1) % SITES;
    memset(own_client()->keys[client_rank(own_client(), other)].mask_public, 0, DURE_KEY_BYTES);
    if (session_tick_round(st->s, 2, &diag)) fail_msg("the session ends: \"%s\"", diag.text);
    assert_string_equal(st->event, "round_failed");
    assert_null(st->s->round.config);
    assert_int_equal(st->s->site.state.steps_used, 0); /* nothing left it */
    stage_make_config(2);
    stage_open_round();
    assert_int_equal(st->n_open, 2);
}

/* What the training says of the records does not come with it. */
static void test_session_does_not_tell_why_training_was_lost(void **state)
{
    (void)state;
    reach_masking();
    const uint32_t other = (st->s->round.self + 1) % SITES;
    memset(own_client()->keys[client_rank(own_client(), other)].mask_public, 0, DURE_KEY_BYTES);
    lost = "record 7 is what went wrong";
    assert_ok(session_tick_round(st->s, 2, NULL));
    assert_string_equal(st->event, "round_failed");
    assert_null(strstr(st->why, "record 7"));
}

/* This machine's own fault still ends it, as anywhere else. */
static void test_session_ends_with_an_update_of_another_shape(void **state)
{
    (void)state;
    dure_diag diag = {0};
    reach_masking();
    update[0] = INT32_MAX;
    assert_err(session_tick_round(st->s, 2, &diag), DURE_ERR_USAGE);
    if (!strstr(diag.text, "exceeds Q")) fail_msg("%s", diag.text);
    assert_int_equal(st->s->site.state.steps_used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_session_outlives_a_round_that_cannot_be_masked,
                                        stage_setup, teardown),
        cmocka_unit_test_setup_teardown(test_session_does_not_tell_why_training_was_lost,
                                        stage_setup, teardown),
        cmocka_unit_test_setup_teardown(test_session_ends_with_an_update_of_another_shape,
                                        stage_setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
