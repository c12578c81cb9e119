/* A coordinator that runs a round again, less one member, to learn that member's part from the
 * difference of two sums. What the second run gets was trained afresh, with noise of its own. */
#include "client/work.h"
#include "common/clock.h"
#include "common/file.h"
#include "federation/global_adapter.h"
#include "federation/round_config.h"
#include "model/base_digest.h"
#include "support/check.h"
#include "support/tiny_model.h"
#include "unit/client/stage.h"
#ifdef DURE_TEST_EMULATED
#include "kernels/cuda/emulated.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the same number again ---- */

enum { SEATS = 4 };

static fixture_site dogwood;

/* A fourth site, so that a round less one member is still a round. */
static int four_sites(void **state)
{
    stage_setup(state);
    fixture_site_make(&dogwood, &st->f, "dogwood");
    assert_ok(dure_roster_add(st->roster, &dogwood.join, FIXTURE_JOINED, NULL));
    return 0;
}

/* An honest round's configuration with the first `n` of the four sites. */
static void seat(uint64_t round, size_t n)
{
    uint8_t keys[SEATS][32];
    dure_round_facts facts = {.run_id = 1, .round = round};
    assert_ok(dure_hash_bytes(&facts.adapter_digest, dure_buf_span(&st->adapter)));
    memcpy(keys[0], st->s->site.sign.public_, 32);
    memcpy(keys[1], st->others[0].own.public_, 32);
    memcpy(keys[2], st->others[1].own.public_, 32);
    memcpy(keys[3], dogwood.own.public_, 32);
    assert_ok(dure_round_config_make(st->config, &st->f.terms, st->roster, &facts,
                                     (const uint8_t(*)[32])keys, n, NULL));
}

static const dure_sign_key *key_of(const uint8_t sign_public[32])
{
    const dure_sign_key *keys[SEATS] = {&st->s->site.sign, &st->others[0].own, &st->others[1].own,
                                        &dogwood.own};
    for (size_t i = 0; i < SEATS; i++) {
        if (memcmp(keys[i]->public_, sign_public, 32) == 0) return keys[i];
    }
    fail_msg("a member has no key");
    return NULL;
}

/* The R0 of a member, as its own machine makes it; this site's own machine repeats its own. */
static void take_r0(dure_round_keys *out, uint32_t member)
{
    const dure_config *config = st->s->round.config;
    dure_secagg_client_opts opts = {.config = config,
                                    .config_hash = st->s->round.hash,
                                    .sign = key_of(config->members[member].sign_public),
                                    .coordinator_sign = st->f.coordinator_sign.public_,
                                    .rng = dure_rng_system(),
                                    .floors = {1, 0, 3}};
    dure_secagg_client *client = NULL;
    dure_secagg_actions actions = {0};
    dure_msg *msg = NULL;
    const bool own = member == st->s->round.self;
    if (!own) assert_ok(dure_secagg_client_new(&client, &opts, NULL));
    assert_ok(dure_secagg_client_start(&actions, own ? st->s->round.client : client, NULL));
    assert_int_equal(actions.n, 1);
    assert_ok(dure_msg_decode(&msg, actions.items[0].bytes, NULL));
    *out = msg->u.advertise.keys;
    out->member = member;
    dure_msg_free(&msg);
    dure_secagg_actions_fini(&actions);
    dure_secagg_client_free(&client);
}

/* A1, after which the site has given out shares. */
static void show_keys(void)
{
    static dure_round_keys keys[SEATS];
    dure_msg msg = {.type = DURE_MSG_KEYS, .u.keys = {.entries = keys}};
    const uint32_t n = st->s->round.config->n_members;
    memcpy(msg.u.keys.config_hash, st->s->round.hash.b, 32);
    for (uint32_t i = 0; i < n; i++)
        take_r0(&keys[i], i);
    msg.u.keys.n_entries = n;
    const dure_members all = dure_members_first(n);
    uint8_t bits[DURE_MEMBERS_BYTES_MAX];
    msg.u.keys.members = dure_members_put(bits, &all, n);
    assert_ok(session_on_round_message(st->s, &msg, NULL));
    assert_int_equal(dure_secagg_client_stage(st->s->round.client), DURE_STAGE_SHARED);
}

static void test_rerun_of_a_round_less_one_member_is_refused(void **state)
{
    (void)state;
    seat(1, SEATS);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
    show_keys();
    seat(1, SEATS - 1);
    stage_open_round();
    assert_int_equal(st->n_open, 1);
    if (!strstr(st->why, "opened again")) fail_msg("%s: %s", st->event, st->why);
}

/* The next number is a round of its own: nothing of the one before is in its keys. */
static void test_rerun_under_the_next_number_begins_anew(void **state)
{
    (void)state;
    dure_round_keys before, after;
    seat(1, SEATS);
    stage_open_round();
    show_keys();
    take_r0(&before, st->s->round.self);
    seat(2, SEATS - 1);
    stage_open_round();
    assert_int_equal(st->n_open, 2);
    assert_int_equal(dure_secagg_client_stage(st->s->round.client), DURE_STAGE_ADVERTISED);
    take_r0(&after, st->s->round.self);
    assert_memory_not_equal(before.mask_public, after.mask_public, sizeof before.mask_public);
    assert_memory_not_equal(before.commitment, after.commitment, sizeof before.commitment);
}

/* ---- the same steps again ---- */

enum { RECORDS = 24, BATCH = 8, N_ACTIVE = 768 };

typedef struct bench {
    temp_dir dir;
    fixture f;
    dure_site site;
    dure_buf adapter;
    dure_dp_plan plan;
    dure_work *work;
} bench;

static void write_records(const char *path)
{
    dure_buf text;
    dure_buf_init(&text, 1 << 16);
    for (int i = 0; i < RECORDS; i++)
        dure_put_format(&text, "{\"prompt\":\"say %d\",\"response\":\"number %d\"}\n", i, i);
    assert_ok(dure_file_write_atomic(path, dure_buf_span(&text), 0600, NULL));
    dure_buf_fini(&text);
}

/* The terms of the tiny model, with little noise beside large gradients. */
static void make_terms(dure_terms *t, const char *model)
{
    t->base = (dure_base){.architecture = "llama",
                          .n_layers = 2,
                          .n_embd = 64,
                          .n_ff = 96,
                          .n_head = 4,
                          .n_head_kv = 2,
                          .head_dim = 16,
                          .n_vocab = TINY_VOCAB,
                          .n_context = 512};
    t->layout.n_active = N_ACTIVE;
    t->layout.n_params = N_ACTIVE + 1024;
    t->training.max_length = 128;
    t->training.batch = BATCH;
    assert_ok(dure_base_digest(&t->base.digest, model, NULL));
}

static int bench_setup(void **state)
{
    bench *b = calloc(1, sizeof *b);
    dure_invitation invitation;
    dure_sign_key invite;
    dure_diag diag = {0};
    temp_dir_make(&b->dir);
    fixture_make(&b->f);
    dure_policy policy = {.federation = "village",
                          .name = "ash",
                          .endpoint = "tcp://127.0.0.1:1",
                          .source = "records",
                          .records = RECORDS,
                          .budget = {50, 1e-5},
                          .modes = DURE_POLICY_MODE(DURE_PRIVACY_RECORD),
                          .collusion = 1,
                          .min_sites = 3,
                          .max_rate = 1,
                          .max_clip = 1,
                          .max_steps = 100,
                          .n_bases = 1};
    snprintf(policy.model, sizeof policy.model, "%s", temp_dir_file(&b->dir, "base.gguf"));
    snprintf(policy.data, sizeof policy.data, "%s", temp_dir_file(&b->dir, "records.jsonl"));
    snprintf(policy.ledger, sizeof policy.ledger, "%s", temp_dir_file(&b->dir, "ledger"));
    tiny_model_write(policy.model, &(tiny_model_opts){.seed = 3});
    write_records(policy.data);
    make_terms(&b->f.terms, policy.model);
    policy.bases[0] = b->f.terms.base.digest;
    fixture_invite(&invitation, &invite, &b->f, "ash");
    if (dure_site_make(&b->site, temp_dir_file(&b->dir, "ash"), &policy, &invitation, &diag))
        fail_msg("%s", diag.text);
    b->site.state.declared =
        (dure_declared){.n_pub = RECORDS,
                        .q_k = (uint64_t)(((unsigned __int128)BATCH << 64) / RECORDS),
                        .batch = BATCH,
                        .sigma_num = 70000,
                        .sigma_den = 65536};
    assert_ok(dure_site_plan(&b->plan, &b->f.terms, &b->site.state.declared, NULL));
    assert_ok(dure_global_adapter_first(&b->adapter, &b->f.terms, NULL));
    const dure_work_opts opts = {.threads = 1};
    if (dure_work_open(&b->work, &b->site, &opts, &diag)) fail_msg("%s", diag.text);
    *state = b;
    return 0;
}

static int bench_teardown(void **state)
{
    bench *b = *state;
    dure_work_close(&b->work);
    dure_site_close(&b->site);
    dure_buf_fini(&b->adapter);
    temp_dir_remove(&b->dir);
    free(b);
    return 0;
}

/* Trains two steps of the plan, if it has any, under a configuration; the update is borrowed. */
static const int32_t *train(bench *b, uint8_t configuration, uint64_t first_step)
{
    dure_hash hash;
    const int32_t *units = NULL;
    size_t n = 0;
    dure_diag diag = {0};
    memset(hash.b, configuration, sizeof hash.b);
    const dure_work_round round = {.config_hash = &hash,
                                   .adapter = dure_buf_span(&b->adapter),
                                   .plan = b->plan.steps ? &b->plan : NULL,
                                   .first_step = first_step,
                                   .n_steps = 2};
    if (dure_work_start(b->work, &round, &diag)) fail_msg("%s", diag.text);
    const uint64_t end_ms = dure_clock_monotonic_ms() + 60000;
    while (dure_work_state_of(b->work, &diag) == DURE_WORK_TRAINING &&
           dure_clock_monotonic_ms() < end_ms)
        usleep(1000);
    if (dure_work_update(&units, &n, b->work, &diag)) fail_msg("%s", diag.text);
    assert_int_equal(n, N_ACTIVE);
    return units;
}

static size_t count_equal(const int32_t *a, const int32_t *b)
{
    size_t n = 0;
    for (size_t i = 0; i < N_ACTIVE; i++)
        n += a[i] == b[i];
    return n;
}

/* The same steps on the same records: only the noise can differ, and it differs everywhere. Were
 * it the same, the difference of the two sums would be the missing member's update. */
static void test_rerun_of_the_same_steps_has_other_noise(void **state)
{
    bench *b = *state;
    int32_t first[N_ACTIVE];
    memcpy(first, train(b, 1, 0), sizeof first);
    dure_work_drop(b->work);
    assert_true(count_equal(first, train(b, 2, 0)) < N_ACTIVE / 20);
    dure_work_drop(b->work);
    assert_true(count_equal(first, train(b, 1, 0)) < N_ACTIVE / 20); /* nor under the same hash */
}

/* Once paid for, or dropped, there is no update to be masked a second time. */
static void test_rerun_finds_no_update_after_its_round(void **state)
{
    bench *b = *state;
    const int32_t *units = NULL;
    size_t n = 0;
    char *attempt = dure_site_path(&b->site, DURE_SITE_ATTEMPT);
    train(b, 1, 0);
    assert_true(dure_file_exists(attempt));
    assert_ok(dure_work_charge(b->work, NULL));
    assert_err(dure_work_update(&units, &n, b->work, NULL), DURE_ERR_STATE);
    assert_null(units);
    assert_false(dure_file_exists(attempt));
    train(b, 2, 2);
    dure_work_drop(b->work);
    assert_err(dure_work_update(&units, &n, b->work, NULL), DURE_ERR_STATE);
    assert_false(dure_file_exists(attempt));
    free(attempt);
}

/* Rounds of a site without noise of its own; it is started again in between. */
static void train_two_rounds(int32_t units[N_ACTIVE], bench *b, bool restart)
{
    const dure_work_opts opts = {.threads = 1};
    train(b, 1, 0);
    assert_ok(dure_work_charge(b->work, NULL));
    if (restart) {
        dure_work_close(&b->work);
        assert_ok(dure_work_open(&b->work, &b->site, &opts, NULL));
    }
    memcpy(units, train(b, 2, 2), N_ACTIVE * sizeof *units);
    dure_work_drop(b->work);
}

/* Its records come in the same order, and its optimizer goes on where it was. */
static void test_a_restart_changes_no_training_without_noise(void **state)
{
    bench *b = *state;
    int32_t straight[N_ACTIVE], again[N_ACTIVE];
    char *training = dure_site_path(&b->site, DURE_SITE_TRAINING);
    b->plan.steps = 0;
    train_two_rounds(straight, b, false);
    assert_int_equal(unlink(training), 0);
    train_two_rounds(again, b, true);
    assert_memory_equal(straight, again, sizeof straight);
    assert_int_equal(unlink(training), 0);
    memcpy(again, train(b, 2, 2), sizeof again); /* without the optimizer's state */
    assert_memory_not_equal(straight, again, sizeof straight);
    free(training);
}

#ifdef DURE_TEST_EMULATED
/* In a federation with privacy, before it takes part in any round. */
static void test_work_refuses_a_gpu_that_is_not_sound(void **state)
{
    bench *b = *state;
    dure_diag diag = {{0}};
    const dure_work_opts opts = {.threads = 1};
    assert_true(dure_work_facts_of(b->work).proved > 0);
    dure_work_close(&b->work);
    dure_emulated_split_above(20);
    assert_err(dure_work_open(&b->work, &b->site, &opts, &diag), DURE_ERR_DEVICE);
    dure_emulated_split_above(SIZE_MAX);
    assert_non_null(strstr(diag.text, "changes with the records beside it"));
    assert_null(b->work);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rerun_of_a_round_less_one_member_is_refused,
                                        four_sites, stage_teardown),
        cmocka_unit_test_setup_teardown(test_rerun_under_the_next_number_begins_anew, four_sites,
                                        stage_teardown),
        cmocka_unit_test_setup_teardown(test_rerun_of_the_same_steps_has_other_noise, bench_setup,
                                        bench_teardown),
        cmocka_unit_test_setup_teardown(test_rerun_finds_no_update_after_its_round, bench_setup,
                                        bench_teardown),
        cmocka_unit_test_setup_teardown(test_a_restart_changes_no_training_without_noise,
                                        bench_setup, bench_teardown),
    };
#ifdef DURE_TEST_EMULATED
    /* The others ask nothing of a processor, and an emulated one is slow. */
    const struct CMUnitTest on_gpu[] = {
        cmocka_unit_test_setup_teardown(test_work_refuses_a_gpu_that_is_not_sound, bench_setup,
                                        bench_teardown),
        cmocka_unit_test_setup_teardown(test_rerun_of_the_same_steps_has_other_noise, bench_setup,
                                        bench_teardown),
    };
    return cmocka_run_group_tests(on_gpu, NULL, NULL);
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
