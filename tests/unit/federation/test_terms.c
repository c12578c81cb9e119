#include "federation/plan.h"
#include "federation/settings.h"
#include "federation/terms.h"
#include "fixture.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include "common/file.h"

#include <math.h>
#include <string.h>

static void test_terms_round_trip_through_their_encoding(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_buf buf;
    dure_buf_init(&buf, DURE_TERMS_MAX_BYTES);
    dure_terms_put(&buf, &f.terms);
    assert_ok(dure_buf_err(&buf));
    dure_reader r = dure_reader_of(dure_buf_span(&buf));
    dure_terms back;
    assert_ok(dure_terms_take(&back, &r, NULL));
    assert_ok(dure_reader_end(&r));
    dure_hash a, b;
    assert_ok(dure_terms_hash(&a, &f.terms));
    assert_ok(dure_terms_hash(&b, &back));
    assert_true(dure_hash_equal(&a, &b));
    dure_buf_fini(&buf);
}

/* The suite is in the version: a federation cannot be taken for one of the other. */
static void test_terms_of_the_hybrid_suite_are_other_terms(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_hash plain, hybrid, again;
    dure_terms back;
    dure_buf buf;
    assert_ok(dure_terms_hash(&plain, &f.terms));
    f.terms.cohort.post_quantum = true;
    assert_ok(dure_terms_hash(&hybrid, &f.terms));
    assert_false(dure_hash_equal(&plain, &hybrid));
    dure_buf_init(&buf, DURE_TERMS_MAX_BYTES);
    dure_terms_put(&buf, &f.terms);
    dure_reader r = dure_reader_of(dure_buf_span(&buf));
    assert_ok(dure_terms_take(&back, &r, NULL));
    assert_true(back.cohort.post_quantum);
    assert_ok(dure_terms_hash(&again, &back));
    assert_true(dure_hash_equal(&again, &hybrid));
    buf.data[1] = 3;
    r = dure_reader_of(dure_buf_span(&buf));
    assert_err(dure_terms_take(&back, &r, NULL), DURE_ERR_UNSUPPORTED);
    dure_buf_fini(&buf);
}

static void test_terms_cut_short_are_refused_at_every_length(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_buf buf;
    dure_buf_init(&buf, DURE_TERMS_MAX_BYTES);
    dure_terms_put(&buf, &f.terms);
    for (size_t n = 0; n < buf.n; n++) {
        dure_reader r = dure_reader_of(dure_span_of(buf.data, n));
        dure_terms back;
        assert_int_not_equal(dure_terms_take(&back, &r, NULL), DURE_OK);
    }
    dure_buf_fini(&buf);
}

static void assert_terms_refused(const dure_terms *terms, const char *names)
{
    dure_diag diag = {0};
    assert_int_not_equal(dure_terms_check(terms, &diag), DURE_OK);
    if (!strstr(diag.text, names)) fail_msg("\"%s\" does not name %s", diag.text, names);
}

static void test_terms_out_of_range_name_the_field(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    dure_terms t = f.terms;
    t.cohort.u_min = 2;
    assert_terms_refused(&t, "cohort.u_min");
    t = f.terms;
    t.cohort.collusion = 2; /* u_min must then be 4 */
    assert_terms_refused(&t, "cohort.u_min");
    t = f.terms;
    t.training.clip = NAN;
    assert_terms_refused(&t, "training.clip");
    t = f.terms;
    t.grid.range = 0.1;
    assert_terms_refused(&t, "grid.range");
    t = f.terms;
    t.layout.first_layer = 2;
    assert_terms_refused(&t, "adapter.first_layer");
    t = f.terms;
    t.training.privacy_mode = 5;
    assert_terms_refused(&t, "training.privacy");
    t = f.terms;
    t.training.privacy_mode = DURE_PRIVACY_CLIENT;
    assert_terms_refused(&t, "training.sigma_num");
    t = f.terms;
    t.training.sigma_num = 65536;
    assert_terms_refused(&t, "training.sigma_num");
    t = f.terms;
    t.training.delta = 1e-5; /* which every site chooses for itself */
    assert_terms_refused(&t, "training.delta");
    t = f.terms;
    strcpy(t.federation, "two words");
    assert_terms_refused(&t, "federation");
}

/* Whole sites: the noise is the terms', and the words of the sum are the clip's grid with room for
 * it. */
static void test_terms_that_share_noise_have_room_for_it(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    fixture_share_noise(&f);
    assert_ok(dure_terms_check(&f.terms, NULL));
    dure_terms t = f.terms, back;
    t.grid.limit /= 64; /* 294,424 units do not fit */
    t.grid.range /= 64;
    assert_terms_refused(&t, "grid.limit");
    t = f.terms;
    t.grid.range *= 2; /* an update of length C would be less than G units */
    assert_terms_refused(&t, "training.clip");
    t = f.terms;
    t.training.clip = 0.75;
    assert_terms_refused(&t, "training.clip");
    t = f.terms;
    t.grid.modulus_bits = 24;
    assert_terms_refused(&t, "24 bits");
    t = f.terms;
    t.training.sigma_num = 1;
    assert_terms_refused(&t, "too little for shares");
    t = f.terms;
    t.training.sigma_num = 400 * 65536;
    assert_terms_refused(&t, "more honest sites");
    static const double too_large[] = {0, -1e-5, 0.00101, 1, NAN};
    for (size_t i = 0; i < sizeof too_large / sizeof *too_large; i++) {
        t = f.terms;
        t.training.delta = too_large[i]; /* one site of 100, in every tenth run */
        assert_terms_refused(&t, "training.delta");
    }
    dure_buf buf;
    dure_hash with, without;
    dure_buf_init(&buf, DURE_TERMS_MAX_BYTES);
    dure_terms_put(&buf, &f.terms);
    dure_reader r = dure_reader_of(dure_buf_span(&buf));
    assert_ok(dure_terms_take(&back, &r, NULL));
    assert_ok(dure_reader_end(&r));
    assert_int_equal(back.training.sigma_num, f.terms.training.sigma_num);
    assert_true(back.training.delta == 1e-5);
    assert_ok(dure_terms_hash(&with, &f.terms));
    f.terms.training.sigma_num++;
    assert_ok(dure_terms_hash(&without, &f.terms));
    assert_false(dure_hash_equal(&with, &without));
    f.terms.training.sigma_num--;
    f.terms.training.delta = 1e-6;
    assert_ok(dure_terms_hash(&without, &f.terms));
    assert_false(dure_hash_equal(&with, &without));
    dure_buf_fini(&buf);
}

/* The plan that they come to: rounds, honest sites and parameters, whatever the batch. */
static void test_terms_that_share_noise_make_a_plan_of_rounds(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    const dure_declared d = {
        .n_pub = 1000, .q_k = UINT64_C(295147905179352825), .batch = 16, .sigma_num = 131072};
    dure_dp_plan plan = dure_federation_plan(&f.terms, &d, 2);
    assert_true(plan.mechanism == DURE_DP_POISSON_GAUSSIAN && plan.steps == 6 && !plan.honest);
    assert_true(plan.batch == 16 && plan.q_k == d.q_k &&
                dure_federation_round_steps(&f.terms) == 3);
    fixture_share_noise(&f);
    plan = dure_federation_plan(&f.terms, &d, 2);
    assert_ok(dure_dp_plan_check(&plan, NULL));
    assert_true(plan.mechanism == DURE_DP_SITE_GAUSSIAN && plan.steps == 2);
    assert_true(plan.honest == 2 && plan.n_params == 384 && plan.full && plan.batch == 1000);
    assert_true(dure_federation_round_steps(&f.terms) == 1);
}

/* An epsilon is stated at a delta that follows from the number of units: records, or sites. */
static void test_terms_say_the_delta_of_their_unit(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    const dure_declared few = {.n_pub = 60}, many = {.n_pub = 1000000};
    assert_true(fabs(dure_federation_delta(&f.terms, &few) * 600 - 1) < 1e-12);
    assert_true(fabs(dure_federation_delta(&f.terms, &many) * 1e7 - 1) < 1e-12);
    fixture_share_noise(&f);
    assert_true(dure_federation_delta(&f.terms, &few) == 1e-5);
    assert_true(dure_federation_delta(&f.terms, &many) == 1e-5);
}

/* 2t > n + c: three sites need t = 3, five 4, seven 5; ten with c = 3 need 7. */
static void test_terms_threshold_matches_the_table(void **state)
{
    (void)state;
    assert_int_equal(dure_terms_threshold(3, 1), 3);
    assert_int_equal(dure_terms_threshold(5, 1), 4);
    assert_int_equal(dure_terms_threshold(7, 1), 5);
    assert_int_equal(dure_terms_threshold(10, 3), 7);
    assert_int_equal(dure_terms_threshold(100, 33), 67);
}

static void test_terms_grid_is_fine_enough_for_the_dimension(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f);
    f.terms.layout.n_active = f.terms.layout.n_params = 65537; /* one more than 2^14 units suit */
    f.terms.training.grid_bits = 15;
    assert_ok(dure_terms_check(&f.terms, NULL));
    f.terms.training.grid_bits = 14;
    dure_diag diag = {0};
    assert_err(dure_terms_check(&f.terms, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "training.grid_bits is 14, but must be from 15 to 24"));
}

static void settings_of(dure_settings *s, const fixture *f)
{
    *s = (dure_settings){.terms = f->terms,
                         .endpoint = "tcp://127.0.0.1:7070",
                         .model = "/models/a \"quoted\" name.gguf",
                         .eval = "eval.jsonl",
                         .gate_margin = 0.01};
    memcpy(s->root_public, f->root.public_, sizeof s->root_public);
}

static void test_settings_round_trip_through_the_file(void **state)
{
    (void)state;
    temp_dir dir;
    temp_dir_make(&dir);
    fixture f;
    fixture_make(&f);
    dure_settings s, back;
    settings_of(&s, &f);
    s.terms.training.learning_rate = 0.1 + 0.2; /* needs all 17 digits */
    const char *path = temp_dir_file(&dir, "federation.yaml");
    assert_ok(dure_settings_write(path, &s, NULL));
    dure_diag diag = {0};
    if (dure_settings_read(&back, path, &diag)) fail_msg("%s", diag.text);
    dure_hash a, b;
    assert_ok(dure_terms_hash(&a, &s.terms));
    assert_ok(dure_terms_hash(&b, &back.terms));
    assert_true(dure_hash_equal(&a, &b));
    assert_false(back.terms.cohort.post_quantum);
    s.terms.cohort.post_quantum = true;
    assert_ok(dure_settings_write(path, &s, NULL));
    assert_ok(dure_settings_read(&back, path, NULL));
    assert_true(back.terms.cohort.post_quantum);
    assert_string_equal(s.model, back.model);
    assert_memory_equal(s.root_public, back.root_public, 32);
    temp_dir_remove(&dir);
}

/* Writes the file, replaces one line of it and reads it back. */
static void assert_line_refused(const char *line, const char *with, const char *names)
{
    temp_dir dir;
    temp_dir_make(&dir);
    fixture f;
    fixture_make(&f);
    dure_settings s;
    settings_of(&s, &f);
    const char *path = temp_dir_file(&dir, "federation.yaml");
    assert_ok(dure_settings_write(path, &s, NULL));
    dure_buf text, changed;
    assert_ok(dure_file_read(&text, path, DURE_SETTINGS_MAX_BYTES, NULL));
    const uint8_t *at = memmem(text.data, text.n, line, strlen(line));
    assert_non_null(at);
    const size_t before = (size_t)(at - text.data), after = before + strlen(line);
    dure_buf_init(&changed, DURE_SETTINGS_MAX_BYTES);
    dure_put_raw(&changed, text.data, before);
    dure_put_raw(&changed, with, strlen(with));
    dure_put_raw(&changed, text.data + after, text.n - after);
    dure_diag diag = {0};
    assert_int_not_equal(dure_settings_parse(&s, dure_buf_span(&changed), "federation.yaml", &diag),
                         DURE_OK);
    if (!strstr(diag.text, names)) fail_msg("\"%s\" does not name %s", diag.text, names);
    assert_non_null(strstr(diag.text, "federation.yaml"));
    dure_buf_fini(&text);
    dure_buf_fini(&changed);
    temp_dir_remove(&dir);
}

static void test_settings_errors_name_the_line(void **state)
{
    (void)state;
    assert_line_refused("  rounds: 2\n", "  rounds: many\n", "line: ");
    assert_line_refused("  rounds: 2\n", "", "rounds");
    assert_line_refused("  rounds: 2\n", "  rounds: 2\n  surprise: 1\n", "surprise");
    assert_line_refused("  targets: [q, v]\n", "  targets: [q, x]\n", "line: ");
    assert_line_refused("  clip: 1\n", "  clip: -1\n", "training.clip");
}

static void test_settings_refuse_an_empty_file(void **state)
{
    (void)state;
    dure_settings s;
    dure_diag diag = {0};
    assert_int_not_equal(dure_settings_parse(&s, dure_span_of_text(""), "f.yaml", &diag), DURE_OK);
    assert_non_null(strstr(diag.text, "f.yaml"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_terms_round_trip_through_their_encoding),
        cmocka_unit_test(test_terms_of_the_hybrid_suite_are_other_terms),
        cmocka_unit_test(test_terms_cut_short_are_refused_at_every_length),
        cmocka_unit_test(test_terms_that_share_noise_have_room_for_it),
        cmocka_unit_test(test_terms_that_share_noise_make_a_plan_of_rounds),
        cmocka_unit_test(test_terms_say_the_delta_of_their_unit),
        cmocka_unit_test(test_terms_out_of_range_name_the_field),
        cmocka_unit_test(test_terms_threshold_matches_the_table),
        cmocka_unit_test(test_terms_grid_is_fine_enough_for_the_dimension),
        cmocka_unit_test(test_settings_round_trip_through_the_file),
        cmocka_unit_test(test_settings_errors_name_the_line),
        cmocka_unit_test(test_settings_refuse_an_empty_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
