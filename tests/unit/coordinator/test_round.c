/* The round's own part: the table of states and messages, and time. The secure sum below it is
 * tested in tests/unit/secagg. */
#include "coordinator/round.h"
#include "federation/round_config.h"
#include "secagg/client.h"
#include "support/check.h"

#include "../federation/fixture.h"
#include "crypto/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 5 };

typedef struct table {
    fixture f;
    fixture_site sites[SITES];
    dure_roster *roster;
    dure_config *config;
    dure_hash hash;
    dure_round *round;
    dure_secagg_client *clients[SITES];
    dure_vector_tree trees[SITES];
    bool silent[SITES]; /* says nothing */
    uint64_t now_ms;
    char ended[256];
    size_t n_persisted;
    dure_members dropped; /* by the last tick */
} table;

static const dure_patience patience = {.silence_ms = 1000, .answer_ms = 5000};

static dure_round_opts opts_of(const table *t)
{
    return (dure_round_opts){.config = t->config,
                             .config_hash = t->hash,
                             .sign = &t->f.coordinator_sign,
                             .patience = patience};
}

static void setup_table(table *t)
{
    static const char *const names[SITES] = {"a", "b", "c", "d", "e"};
    const dure_round_facts facts = {.run_id = 1, .round = 1};
    uint8_t sign[SITES][32];
    dure_buf bytes;
    memset(t, 0, sizeof *t);
    t->now_ms = 100000;
    fixture_make(&t->f);
    assert_ok(dure_roster_new(&t->roster, t->f.root.public_));
    for (size_t i = 0; i < SITES; i++) {
        fixture_site_make(&t->sites[i], &t->f, names[i]);
        assert_ok(dure_roster_add(t->roster, &t->sites[i].join, FIXTURE_JOINED, NULL));
        memcpy(sign[i], t->sites[i].own.public_, 32);
    }
    t->config = calloc(1, sizeof *t->config);
    assert_non_null(t->config);
    assert_ok(dure_round_config_make(t->config, &t->f.terms, t->roster, &facts,
                                     (const uint8_t(*)[32])sign, SITES, NULL));
    dure_buf_init(&bytes, DURE_CONFIG_BYTES_MAX);
    assert_ok(dure_config_encode(&bytes, t->config, NULL));
    assert_ok(dure_round_config_hash(&t->hash, dure_buf_span(&bytes)));
    dure_buf_fini(&bytes);
    const dure_round_opts opts = opts_of(t);
    assert_ok(dure_round_new(&t->round, &opts, t->now_ms, NULL));
    for (size_t i = 0; i < SITES; i++) {
        const dure_secagg_client_opts client = {.config = t->config,
                                                .config_hash = t->hash,
                                                .sign = &t->sites[i].own,
                                                .coordinator_sign = t->f.coordinator_sign.public_,
                                                .rng = dure_rng_system(),
                                                .floors = {1, 3, 3}};
        assert_ok(dure_secagg_client_new(&t->clients[i], &client, NULL));
    }
}

static void end_table(table *t)
{
    for (size_t i = 0; i < SITES; i++)
        dure_secagg_client_free(&t->clients[i]);
    dure_round_free(&t->round);
    dure_roster_free(&t->roster);
    free(t->config);
}

static void from_site(table *t, uint32_t i, dure_span frame);

static void act_client(table *t, uint32_t i, dure_secagg_actions *actions)
{
    for (size_t k = 0; k < actions->n; k++) {
        const dure_secagg_action *a = &actions->items[k];
        if (a->kind == DURE_SECAGG_SEND && !t->silent[i]) from_site(t, i, a->bytes);
    }
    dure_secagg_actions_fini(actions);
}

/* Trains, in effect: an update of ones, all its chunks in one go. */
static void update(table *t, uint32_t i)
{
    dure_secagg_actions actions = {0};
    const size_t n = t->config->n_words;
    int32_t *units = calloc(n, sizeof *units);
    assert_non_null(units);
    for (size_t k = 0; k < n; k++)
        units[k] = 1;
    assert_ok(dure_secagg_client_update(&actions, t->clients[i], units, n, NULL));
    dure_secagg_actions_fini(&actions);
    free(units);
    assert_ok(
        dure_vector_tree_add(&t->trees[i], t->config, dure_secagg_client_vector(t->clients[i])));
    assert_ok(dure_secagg_client_sent(&actions, t->clients[i], 0, NULL));
    act_client(t, i, &actions);
}

static void to_site(table *t, uint32_t i, dure_span frame)
{
    dure_secagg_actions actions = {0};
    dure_msg *msg;
    if (t->silent[i]) return;
    assert_ok(dure_msg_decode(&msg, frame, NULL));
    assert_ok(dure_secagg_client_step(&actions, t->clients[i], msg, t->now_ms, NULL));
    dure_msg_free(&msg);
    act_client(t, i, &actions);
}

static void act_round(table *t, dure_secagg_actions *actions)
{
    for (size_t k = 0; k < actions->n; k++) {
        const dure_secagg_action *a = &actions->items[k];
        if (a->kind == DURE_SECAGG_PERSIST) t->n_persisted++;
        if (a->kind == DURE_SECAGG_SEND) to_site(t, a->member, a->bytes);
        if (a->kind == DURE_SECAGG_END) snprintf(t->ended, sizeof t->ended, "%s", a->text);
    }
    dure_secagg_actions_fini(actions);
}

static dure_err receive(table *t, uint32_t i, const dure_msg *msg)
{
    dure_secagg_actions actions = {0};
    dure_hash root;
    const bool whole = dure_vector_tree_root(&root, &t->trees[i], t->config) == DURE_OK;
    dure_err err =
        dure_round_receive(&actions, t->round, i, msg, whole ? &root : NULL, t->now_ms, NULL);
    act_round(t, &actions);
    return err;
}

static void from_site(table *t, uint32_t i, dure_span frame)
{
    dure_msg *msg;
    assert_ok(dure_msg_decode(&msg, frame, NULL));
    assert_ok(receive(t, i, msg));
    dure_msg_free(&msg);
}

static void start_all(table *t)
{
    for (uint32_t i = 0; i < SITES; i++) {
        dure_secagg_actions actions = {0};
        assert_ok(dure_secagg_client_start(&actions, t->clients[i], NULL));
        act_client(t, i, &actions);
    }
}

static void tick(table *t, uint64_t ms)
{
    dure_secagg_actions actions = {0};
    t->now_ms += ms;
    assert_ok(dure_round_tick(&actions, &t->dropped, t->round, t->now_ms));
    act_round(t, &actions);
}

static dure_err say(table *t, uint32_t i, dure_msg_type type)
{
    dure_msg msg = {.type = type};
    if (type == DURE_MSG_HEARTBEAT) {
        memcpy(msg.u.heartbeat.config_hash, t->hash.b, 32);
        msg.u.heartbeat.step = 3;
    }
    if (type == DURE_MSG_CHUNK) memcpy(msg.u.chunk.config_hash, t->hash.b, 32);
    if (type == DURE_MSG_MASKED) memcpy(msg.u.masked.config_hash, t->hash.b, 32);
    if (type == DURE_MSG_UNMASK) memcpy(msg.u.unmask.config_hash, t->hash.b, 32);
    return receive(t, i, &msg);
}

static void test_round_runs_to_the_sum(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_KEYS);
    start_all(&t);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_VECTORS);
    for (uint32_t i = 0; i < SITES; i++)
        update(&t, i);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_SUMMED);
    assert_int_equal(t.n_persisted, 4);
    /* Late words change nothing any more. */
    assert_ok(say(&t, 0, DURE_MSG_UNMASK));
    assert_ok(say(&t, 0, DURE_MSG_CHUNK));
    end_table(&t);
}

static void test_round_refuses_what_is_not_possible_yet(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    assert_err(say(&t, 0, DURE_MSG_CHUNK), DURE_ERR_STATE);
    assert_err(say(&t, 0, DURE_MSG_MASKED), DURE_ERR_STATE);
    assert_err(say(&t, 0, DURE_MSG_UNMASK), DURE_ERR_STATE);
    assert_err(say(&t, 0, DURE_MSG_JOINED), DURE_ERR_STATE);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_KEYS);
    end_table(&t);
}

static void test_round_ignores_heartbeats_of_another_round(void **state)
{
    (void)state;
    table t;
    dure_msg msg = {.type = DURE_MSG_HEARTBEAT};
    setup_table(&t);
    assert_err(receive(&t, 0, &msg), DURE_ERR_STATE);
    assert_ok(say(&t, 0, DURE_MSG_HEARTBEAT));
    assert_int_equal(dure_round_step_of(t.round, 0), 3);
    end_table(&t);
}

static void test_round_drops_a_silent_site(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    t.silent[4] = true;
    start_all(&t);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_KEYS);
    tick(&t, patience.silence_ms / 2);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_KEYS);
    tick(&t, patience.silence_ms);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_VECTORS);
    assert_true(dure_members_has(&t.dropped, 4));
    assert_int_equal(dure_members_count(&t.dropped), 1);
    const dure_members u1 = dure_secagg_server_set(dure_round_sum(t.round), 1);
    assert_int_equal(dure_members_count(&u1), 4);
    end_table(&t);
}

static void test_round_waits_for_who_is_heard_while_training(void **state)
{
    (void)state;
    table t;
    char text[DURE_MSG_TEXT_SIZE];
    setup_table(&t);
    start_all(&t);
    for (uint32_t i = 0; i < 4; i++)
        update(&t, i);
    for (int k = 0; k < 100; k++) {
        assert_ok(say(&t, 4, DURE_MSG_HEARTBEAT));
        tick(&t, patience.silence_ms - 1);
    }
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_VECTORS);
    dure_round_waiting_text(text, t.round, t.now_ms);
    assert_string_equal(text, "training: waiting for e (uploads)");
    dure_round_waiting_text(text, t.round, t.now_ms + 12000);
    assert_string_equal(text, "training: waiting for e (silent for 12 s)");
    /* The secrets' lifetime ends it all the same, early enough for the last steps. */
    t.now_ms += t.config->share_lifetime_ms / 4 * 3;
    assert_ok(say(&t, 4, DURE_MSG_HEARTBEAT));
    tick(&t, 1);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_SUMMED);
    end_table(&t);
}

static void test_round_waits_a_moment_only_for_answers(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    t.silent[2] = true;
    start_all(&t);
    for (uint64_t ms = 0; ms <= patience.answer_ms; ms += 500) {
        assert_ok(say(&t, 2, DURE_MSG_HEARTBEAT));
        tick(&t, 500);
    }
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_VECTORS);
    end_table(&t);
}

/* It has the last round's sum to fetch over a slow line before it can give its keys. */
static void test_round_waits_for_who_still_fetches(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    t.silent[2] = true;
    start_all(&t);
    char text[DURE_MSG_TEXT_SIZE];
    for (int k = 0; k < 20; k++) {
        dure_round_moves(t.round, 2, t.now_ms);
        dure_round_waiting_text(text, t.round, t.now_ms);
        if (k > 0) assert_string_equal(text, "keys: waiting for c (fetches the last result)");
        tick(&t, patience.silence_ms - 1);
    }
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_KEYS);
    tick(&t, patience.silence_ms + 1);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_VECTORS);
    end_table(&t);
}

static void test_round_fails_when_too_few_remain(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    t.silent[1] = t.silent[2] = true;
    start_all(&t);
    tick(&t, patience.silence_ms + 1);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_FAILED);
    assert_non_null(strstr(t.ended, "only 3 sites"));
    assert_ok(say(&t, 0, DURE_MSG_HEARTBEAT));
    end_table(&t);
}

static void test_round_drops_a_site_that_forgot_it(void **state)
{
    (void)state;
    table t;
    setup_table(&t);
    start_all(&t);
    for (uint32_t i = 0; i < 4; i++)
        update(&t, i);
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_VECTORS);
    /* Restarted: it names no round, so it has no secrets of this one. */
    t.silent[4] = true;
    assert_ok(say(&t, 4, DURE_MSG_HELLO));
    assert_int_equal(dure_round_state_of(t.round), DURE_ROUND_SUMMED);
    end_table(&t);
}

static void test_round_tells_a_returning_site_what_it_is_owed(void **state)
{
    (void)state;
    table t;
    dure_secagg_actions actions = {0};
    dure_msg msg = {.type = DURE_MSG_HELLO};
    setup_table(&t);
    start_all(&t);
    memcpy(msg.u.hello.config_hash, t.hash.b, 32);
    assert_ok(dure_round_receive(&actions, t.round, 1, &msg, NULL, t.now_ms, NULL));
    size_t sends = 0;
    for (size_t k = 0; k < actions.n; k++) {
        if (actions.items[k].kind != DURE_SECAGG_SEND) continue;
        dure_msg *sent;
        sends++;
        assert_int_equal(actions.items[k].member, 1);
        assert_ok(dure_msg_decode(&sent, actions.items[k].bytes, NULL));
        assert_int_equal(sent->type, DURE_MSG_SHARES_FOR);
        dure_msg_free(&sent);
    }
    assert_int_equal(sends, 1);
    dure_secagg_actions_fini(&actions);
    end_table(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_runs_to_the_sum),
        cmocka_unit_test(test_round_refuses_what_is_not_possible_yet),
        cmocka_unit_test(test_round_ignores_heartbeats_of_another_round),
        cmocka_unit_test(test_round_drops_a_silent_site),
        cmocka_unit_test(test_round_waits_for_who_is_heard_while_training),
        cmocka_unit_test(test_round_waits_a_moment_only_for_answers),
        cmocka_unit_test(test_round_waits_for_who_still_fetches),
        cmocka_unit_test(test_round_fails_when_too_few_remain),
        cmocka_unit_test(test_round_drops_a_site_that_forgot_it),
        cmocka_unit_test(test_round_tells_a_returning_site_what_it_is_owed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
