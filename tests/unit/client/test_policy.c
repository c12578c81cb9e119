#include "client/policy.h"
#include "crypto/kem.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include "common/file.h"
#include "dp/calibrate.h"

#include <stdlib.h>
#include <string.h>

static dure_policy sample(void)
{
    dure_policy p = {.federation = "village",
                     .name = "ash",
                     .endpoint = "tcp://127.0.0.1:7070",
                     .data = "/data/records \"a\".jsonl",
                     .source = "records-2026",
                     .records = 1000,
                     .model = "/models/base.gguf",
                     .memory_mb = 2000,
                     .ledger = "/var/lib/dure/ledger",
                     .budget = {8, 1e-5},
                     .modes = DURE_POLICY_MODE(DURE_PRIVACY_RECORD),
                     .collusion = 1,
                     .min_sites = 3,
                     .min_noise = 0.5,
                     .max_rate = 0.25,
                     .max_clip = 1,
                     .max_steps = 100,
                     .n_bases = 2};
    memset(p.bases[0].b, 0xba, sizeof p.bases[0].b);
    memset(p.bases[1].b, 0x17, sizeof p.bases[1].b);
    return p;
}

static void test_policy_file_round_trips(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "site.yaml");
    dure_policy p = sample(), back;
    dure_diag diag = {0};
    assert_ok(dure_policy_write(path, &p, NULL));
    if (dure_policy_read(&back, path, &diag)) fail_msg("%s", diag.text);
    assert_memory_equal(&back, &p, sizeof p);
    temp_dir_remove(&dir);
}

/* Writes the sample, replaces `from` by `to`, and expects a sentence with `says`. */
static void refuses(const char *from, const char *to, const char *says)
{
    temp_dir dir;
    dure_buf text;
    dure_policy p = sample(), back;
    dure_diag diag = {0};
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "site.yaml");
    assert_ok(dure_policy_write(path, &p, NULL));
    assert_ok(dure_file_read(&text, path, DURE_POLICY_MAX_BYTES, NULL));
    char *copy = strndup((const char *)text.data, text.n), *at = strstr(copy, from);
    assert_non_null(at);
    dure_buf changed;
    dure_buf_init(&changed, DURE_POLICY_MAX_BYTES);
    dure_put_raw(&changed, copy, (size_t)(at - copy));
    dure_put_format(&changed, "%s%s", to, at + strlen(from));
    assert_err(dure_policy_parse(&back, dure_buf_span(&changed), "site.yaml", &diag),
               DURE_ERR_FORMAT);
    if (!strstr(diag.text, says)) fail_msg("\"%s\" does not say %s", diag.text, says);
    free(copy);
    dure_buf_fini(&text);
    dure_buf_fini(&changed);
    temp_dir_remove(&dir);
}

static void test_policy_empty_file_is_refused(void **state)
{
    (void)state;
    dure_policy p;
    dure_diag diag = {0};
    assert_err(dure_policy_parse(&p, dure_span_of(NULL, 0), "site.yaml", &diag), DURE_ERR_FORMAT);
    assert_string_equal(diag.text, "site.yaml is empty");
    assert_err(dure_policy_parse(&p, dure_span_of_text("# nothing\n"), "site.yaml", &diag),
               DURE_ERR_FORMAT);
}

static void test_policy_file_is_checked_by_its_schema(void **state)
{
    (void)state;
    refuses("  min_sites: 3", "  min_sties: 3", "min_sties");
    refuses("  min_sites: 3", "  min_sites: many", "min_sites");
    refuses("modes: [record]", "modes: [recrod]", "modes");
    refuses("modes: [record]", "modes: []", "modes");
    refuses("epsilon: 8", "epsilon: -1", "epsilon");
    refuses("delta: 1e-05", "delta: 1", "delta");
    refuses("delta: 1e-05", "delta: 0.001", "at most 1 / (10 x data.records)");
    refuses("epsilon: 8", "epsilon: 0", "above 0");
    refuses("max_rate: 0.25", "max_rate: 1.5", "max_rate");
    refuses("max_clip: 1", "max_clip: 0", "max_clip");
    refuses("memory_mb: 2000", "memory_mb: 99999999999", "memory_mb must be at most");
    refuses("memory_mb: 2000", "memory_mb: -1", "memory_mb");
    refuses("\"baba", "\"zaba", "bases");
    refuses("\"baba", "\"ba", "site.yaml");
    refuses("name: \"ash\"\n", "", "name");
}

/* A tenth of one over ten records is little, but not beside a hundred sites. */
static void test_policy_holds_delta_to_the_sites_where_they_are_protected(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    const char *path = temp_dir_file(&dir, "site.yaml");
    dure_policy p = sample(), back;
    dure_diag diag = {0};
    p.records = 10;
    p.budget.delta = 0.005;
    assert_ok(dure_policy_write(path, &p, NULL));
    assert_ok(dure_policy_read(&back, path, NULL));
    p.modes |= DURE_POLICY_MODE(DURE_PRIVACY_CLIENT);
    assert_ok(dure_policy_write(path, &p, NULL));
    assert_err(dure_policy_read(&back, path, &diag), DURE_ERR_FORMAT);
    assert_non_null(strstr(diag.text, "policy.delta must be at most 0.001"));
    p.budget.delta = 0.001;
    assert_ok(dure_policy_write(path, &p, NULL));
    assert_ok(dure_policy_read(&back, path, NULL));
    temp_dir_remove(&dir);
}

static dure_terms terms_of(const dure_policy *p)
{
    dure_terms t = {
        .base.digest = p->bases[0],
        .training = {.rounds = 10, .steps = 10, .clip = 1, .privacy_mode = DURE_PRIVACY_RECORD}};
    return t;
}

static dure_dp_plan plan_of(void)
{
    return (dure_dp_plan){.mechanism = DURE_DP_POISSON_GAUSSIAN,
                          .q_k = UINT64_C(1) << 61, /* an eighth */
                          .sigma_num = DURE_DP_SIGMA_DEN,
                          .clip = 1,
                          .grid_bits = 14,
                          .steps = 100,
                          .n_pub = 1000,
                          .batch = 125};
}

static void forbids(const dure_policy *p, const dure_terms *t, const dure_dp_plan *plan,
                    const char *rule)
{
    dure_diag diag = {0};
    assert_err(dure_policy_check_terms(p, t, plan, &diag), DURE_ERR_POLICY);
    if (!strstr(diag.text, rule)) fail_msg("\"%s\" does not name %s", diag.text, rule);
}

static void test_policy_holds_the_joined_plan_to_its_budget(void **state)
{
    (void)state;
    dure_policy p = sample();
    dure_dp_plan plan = plan_of();
    dure_diag diag = {0};
    plan.sigma_num = 4 * DURE_DP_SIGMA_DEN;
    assert_ok(dure_policy_check_budget(&p, &plan, NULL));
    p.budget.epsilon = 0.5;
    assert_err(dure_policy_check_budget(&p, &plan, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "put epsilon and delta back"));
    assert_ok(dure_calibrate_epsilon(&p.budget.epsilon, &plan, NULL, 1e-5));
    assert_ok(dure_policy_check_budget(&p, &plan, NULL));
    p.budget.delta = 1e-6;
    assert_err(dure_policy_check_budget(&p, &plan, &diag), DURE_ERR_POLICY);
}

static void test_policy_judges_the_terms(void **state)
{
    (void)state;
    dure_policy p = sample();
    dure_terms t = terms_of(&p);
    dure_dp_plan plan = plan_of();
    assert_ok(dure_policy_check_terms(&p, &t, &plan, NULL));
    plan.sigma_num = DURE_DP_SIGMA_DEN / 4;
    forbids(&p, &t, &plan, "min_noise");
    plan = plan_of();
    plan.q_k = UINT64_C(1) << 63;
    forbids(&p, &t, &plan, "max_rate");
    plan = plan_of();
    t.training.clip = 2;
    forbids(&p, &t, &plan, "max_clip");
    t = terms_of(&p);
    t.training.rounds = 11;
    forbids(&p, &t, &plan, "max_steps");
    t = terms_of(&p);
    t.base.digest.b[3] ^= 1;
    forbids(&p, &t, &plan, "bases");
}

static void test_policy_may_ask_for_the_hybrid_suite(void **state)
{
    (void)state;
    dure_policy p = sample();
    dure_terms t = terms_of(&p);
    dure_dp_plan plan = plan_of();
    p.post_quantum = true;
    forbids(&p, &t, &plan, "post_quantum");
    t.cohort.post_quantum = true;
    assert_int_not_equal(dure_policy_check_terms(&p, &t, &plan, NULL), DURE_ERR_POLICY);
}

/* Nobody takes part in a suite that his machine does not have, and nobody falls back from it. */
static void test_policy_says_what_the_hybrid_suite_needs(void **state)
{
    (void)state;
    dure_policy p = sample();
    dure_terms t = terms_of(&p);
    dure_dp_plan plan = plan_of();
    dure_diag diag = {{0}};
    t.cohort.post_quantum = true;
    if (dure_kem_available()) {
        assert_ok(dure_policy_check_terms(&p, &t, &plan, NULL));
        return;
    }
    assert_err(dure_policy_check_terms(&p, &t, &plan, &diag), DURE_ERR_UNSUPPORTED);
    assert_non_null(strstr(diag.text, "OpenSSL 3.5"));
    assert_non_null(strstr(diag.text, dure_kem_library()));
}

static void test_policy_takes_no_privacy_only_by_opting_in(void **state)
{
    (void)state;
    dure_policy p = sample();
    dure_terms t = terms_of(&p);
    t.training.privacy_mode = DURE_PRIVACY_NONE;
    forbids(&p, &t, NULL, "modes");
    p.modes |= DURE_POLICY_MODE(DURE_PRIVACY_NONE);
    assert_ok(dure_policy_check_terms(&p, &t, NULL, NULL));
}

/* Shared noise is sized for the c of the terms: whoever expects more colluders stays out. */
static void test_policy_takes_shared_noise_only_by_opting_in(void **state)
{
    (void)state;
    dure_policy p = sample();
    dure_terms t = terms_of(&p);
    dure_dp_plan plan = plan_of();
    t.training.privacy_mode = DURE_PRIVACY_CLIENT;
    t.cohort.collusion = 1;
    plan = (dure_dp_plan){.mechanism = DURE_DP_SITE_GAUSSIAN,
                          .full = true,
                          .sigma_num = DURE_DP_SIGMA_DEN,
                          .clip = 1,
                          .grid_bits = 14,
                          .steps = 10,
                          .n_pub = 1000,
                          .batch = 1000,
                          .honest = 2,
                          .n_params = 384};
    p.max_rate = 1;
    forbids(&p, &t, &plan, "modes");
    p.modes |= DURE_POLICY_MODE(DURE_PRIVACY_NONE) | DURE_POLICY_MODE(DURE_PRIVACY_SUBJECT);
    forbids(&p, &t, &plan, "modes");
    p.modes = DURE_POLICY_MODE(DURE_PRIVACY_CLIENT);
    assert_ok(dure_policy_check_terms(&p, &t, &plan, NULL));
    p.collusion = 2;
    forbids(&p, &t, &plan, "collusion");
    t.cohort.collusion = 2;
    assert_ok(dure_policy_check_terms(&p, &t, &plan, NULL));
    /* The same of a round, whatever was joined. */
    static dure_config c;
    c = (dure_config){.n_members = 9,
                      .threshold = 8,
                      .collusion = 1,
                      .privacy_mode = DURE_PRIVACY_CLIENT,
                      .clip = 1,
                      .rounds = 10,
                      .local_steps = 10};
    c.members[2] = (dure_member){.q_k = UINT64_C(1) << 61, .sigma_num = 1, .sigma_den = 1};
    memcpy(c.base_digest, p.bases[1].b, sizeof c.base_digest);
    dure_diag diag = {{0}};
    assert_err(dure_policy_check_round(&p, &c, 2, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "sized for 1 colluding sites"));
    c.collusion = 2;
    assert_ok(dure_policy_check_round(&p, &c, 2, NULL));
    p.modes = DURE_POLICY_MODE(DURE_PRIVACY_RECORD);
    assert_err(dure_policy_check_round(&p, &c, 2, NULL), DURE_ERR_POLICY);
}

static void test_policy_judges_the_cohort_of_a_round(void **state)
{
    (void)state;
    dure_policy p = sample();
    static dure_config c;
    c = (dure_config){.n_members = 5,
                      .threshold = 4,
                      .privacy_mode = DURE_PRIVACY_RECORD,
                      .clip = 1,
                      .rounds = 10,
                      .local_steps = 10};
    c.members[2] = (dure_member){.q_k = UINT64_C(1) << 61, .sigma_num = 1, .sigma_den = 1};
    memcpy(c.base_digest, p.bases[1].b, sizeof c.base_digest);
    assert_ok(dure_policy_check_round(&p, &c, 2, NULL));
    p.min_sites = 6;
    assert_err(dure_policy_check_round(&p, &c, 2, NULL), DURE_ERR_POLICY);
    p = sample();
    p.min_threshold = 5;
    assert_err(dure_policy_check_round(&p, &c, 2, NULL), DURE_ERR_POLICY);
    p = sample();
    p.collusion = 3; /* 2 * 4 is not above 5 + 3 */
    assert_err(dure_policy_check_round(&p, &c, 2, NULL), DURE_ERR_POLICY);
    p.collusion = 2; /* 2 * 3 is above 3 + 2, but one honest site hides in no sum */
    c.n_members = c.threshold = 3;
    dure_diag diag = {{0}};
    assert_err(dure_policy_check_round(&p, &c, 2, &diag), DURE_ERR_POLICY);
    assert_non_null(strstr(diag.text, "beside the colluding ones"));
    p.collusion = 1;
    assert_ok(dure_policy_check_round(&p, &c, 2, NULL));
    c.n_members = 5;
    c.threshold = 4;
    p = sample();
    c.members[2].q_k = 0; /* every record */
    assert_err(dure_policy_check_round(&p, &c, 2, NULL), DURE_ERR_POLICY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy_file_round_trips),
        cmocka_unit_test(test_policy_empty_file_is_refused),
        cmocka_unit_test(test_policy_file_is_checked_by_its_schema),
        cmocka_unit_test(test_policy_holds_delta_to_the_sites_where_they_are_protected),
        cmocka_unit_test(test_policy_holds_the_joined_plan_to_its_budget),
        cmocka_unit_test(test_policy_judges_the_terms),
        cmocka_unit_test(test_policy_may_ask_for_the_hybrid_suite),
        cmocka_unit_test(test_policy_says_what_the_hybrid_suite_needs),
        cmocka_unit_test(test_policy_takes_no_privacy_only_by_opting_in),
        cmocka_unit_test(test_policy_takes_shared_noise_only_by_opting_in),
        cmocka_unit_test(test_policy_judges_the_cohort_of_a_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
