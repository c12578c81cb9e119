/* The protocol from end to end in one process, with sites that drop out between any two steps. */
#include "support/check.h"
#include "support/seeded_rng.h"
#include "world.h"

#include <string.h>

enum { SEVEN = 7 }; /* the largest round whose dropouts are all tried */

static void check_outcome(const world *w)
{
    dure_members u3;
    uint32_t plain[WORLD_WORDS];
    bool expected = world_expected(w, &u3);
    if (!expected) {
        assert_true(w->failed);
        assert_false(w->summed);
        return;
    }
    if (!w->summed) fail_msg("the round failed: %s", w->last_error);
    world_plain_sum(plain, w, &u3);
    assert_memory_equal(w->sum, plain, sizeof plain);
    dure_members got = dure_secagg_server_set(w->server, 3);
    assert_true(dure_members_equal(&got, &u3));
}

static void run_with(uint32_t n, const world_step *dies)
{
    world *w = world_new(n, 42 + n);
    memcpy(w->dies, dies, n * sizeof *dies);
    world_run(w);
    check_outcome(w);
    world_free(&w);
}

static void test_round_sums_exactly_without_dropouts(void **state)
{
    (void)state;
    world_step none[SEVEN] = {0};
    for (uint32_t n = 3; n <= 7; n++) {
        run_with(n, none);
    }
}

static void test_round_sums_32_bit_words(void **state)
{
    (void)state;
    world *w = world_new(4, 9);
    w->config.word_bits = 32;
    w->config.q_max = 1u << 28;
    w->units[2][7] = -(1 << 28);
    world_run(w);
    check_outcome(w);
    world_free(&w);
}

/* Every subset of the sites dies at the same point. */
static void test_round_survives_every_subset_at_every_step(void **state)
{
    (void)state;
    for (uint32_t n = 3; n <= 5; n++) {
        for (uint32_t subset = 1; subset < 1u << n; subset++) {
            for (int step = WORLD_R0; step <= WORLD_R4; step++) {
                world_step dies[SEVEN] = {0};
                for (uint32_t i = 0; i < n; i++) {
                    if (subset >> i & 1) dies[i] = (world_step)step;
                }
                run_with(n, dies);
            }
        }
    }
}

/* Every way in which four sites can die, each at a point of its own or not at all. */
static void test_round_survives_every_mixture_of_four(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 6 * 6 * 6 * 6; code++) {
        world_step dies[SEVEN] = {(world_step)(code % 6), (world_step)(code / 6 % 6),
                                  (world_step)(code / 36 % 6), (world_step)(code / 216)};
        run_with(4, dies);
    }
}

static void test_round_survives_random_mixtures_of_five_and_seven(void **state)
{
    (void)state;
    seeded_rng rng_state;
    dure_rng rng = seeded_rng_of(&rng_state, 7);
    for (int run = 0; run < 120; run++) {
        world_step dies[SEVEN] = {0};
        uint8_t random[SEVEN];
        assert_ok(dure_rng_fill(&rng, random, sizeof random));
        for (uint32_t i = 0; i < SEVEN; i++) {
            /* Mostly alive, so that most runs get as far as a sum. */
            dies[i] = random[i] < 64 ? (world_step)(1 + random[i] % 5) : WORLD_NEVER;
        }
        run_with(run % 2 ? 5 : 7, dies);
    }
}

static void test_round_below_the_threshold_tells_the_sites(void **state)
{
    (void)state;
    world *w = world_new(5, 1);
    w->dies[0] = w->dies[1] = WORLD_R2; /* t = 4 of 5, three are left */
    world_run(w);
    assert_true(w->failed);
    for (uint32_t i = 2; i < 5; i++) {
        assert_int_equal(dure_secagg_client_stage(w->clients[i]), DURE_STAGE_IDLE);
    }
    world_free(&w);
}

/* The coordinator dies right after it synced A(k): nothing of it, or of what was on its way, has
 * arrived. It comes back from its records and the round goes on. */
static void test_round_goes_on_after_a_crash_of_the_coordinator(void **state)
{
    (void)state;
    for (size_t k = 1; k <= 4; k++) {
        for (int dies = WORLD_NEVER; dies <= WORLD_R4; dies++) {
            world *w = world_new(5, 11 + k);
            w->crash_after = k;
            w->dies[4] = (world_step)dies;
            world_run(w);
            assert_int_equal(w->crash_after, 0);
            check_outcome(w);
            world_free(&w);
        }
    }
}

static dure_err resume(world *w, const dure_span *records, size_t k)
{
    dure_secagg_server_opts opts = {&w->config, w->config_hash, &w->coordinator};
    dure_secagg_actions actions = {0};
    dure_secagg_server *server = NULL;
    dure_err err = dure_secagg_server_resume(&server, &actions, &opts, records, k, NULL);
    assert_true(err ? server == NULL : server != NULL);
    dure_secagg_actions_fini(&actions);
    dure_secagg_server_free(&server);
    return err;
}

/* Whatever byte of a record is changed, signatures included. */
static void test_round_does_not_resume_from_altered_records(void **state)
{
    (void)state;
    world *w = world_new(3, 3);
    world_run(w);
    dure_span records[4];
    for (size_t i = 0; i < 4; i++) {
        records[i] = dure_buf_span(&w->records[i]);
    }
    assert_ok(resume(w, records, 4));
    for (size_t k = 0; k < 4; k++) {
        for (size_t at = 0; at < records[k].n; at += 1 + records[k].n / 150) {
            w->records[k].data[at] ^= 1;
            if (resume(w, records, k + 1) != DURE_ERR_FORMAT)
                fail_msg("byte %zu of A%zu was changed", at, k + 1);
            w->records[k].data[at] ^= 1;
        }
    }
    world_free(&w);
}

static void test_round_does_not_resume_from_truncated_records(void **state)
{
    (void)state;
    world *w = world_new(3, 3);
    world_run(w);
    for (size_t k = 0; k < 4; k++) {
        dure_span records[4];
        for (size_t i = 0; i < 4; i++) {
            records[i] = dure_buf_span(&w->records[i]);
        }
        for (size_t cut = 1; cut < records[k].n; cut *= 2) {
            records[k].n = w->records[k].n - cut;
            assert_err(resume(w, records, k + 1), DURE_ERR_FORMAT);
        }
    }
    world_free(&w);
}

/* The records of one round under the configuration of another. */
static void test_round_does_not_resume_from_the_records_of_another(void **state)
{
    (void)state;
    world *w = world_new(3, 3), *other = world_new(3, 4);
    world_run(w);
    world_run(other);
    dure_span records[4];
    for (size_t k = 0; k < 4; k++) {
        for (size_t i = 0; i < 4; i++) {
            records[i] = dure_buf_span(i == k ? &other->records[i] : &w->records[i]);
        }
        assert_err(resume(w, records, k + 1), DURE_ERR_FORMAT);
    }
    world_free(&w);
    world_free(&other);
}

int main(void)
{
    if (world_lacks_suite()) return WORLD_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_sums_exactly_without_dropouts),
        cmocka_unit_test(test_round_sums_32_bit_words),
        cmocka_unit_test(test_round_survives_every_subset_at_every_step),
        cmocka_unit_test(test_round_survives_every_mixture_of_four),
        cmocka_unit_test(test_round_survives_random_mixtures_of_five_and_seven),
        cmocka_unit_test(test_round_below_the_threshold_tells_the_sites),
        cmocka_unit_test(test_round_goes_on_after_a_crash_of_the_coordinator),
        cmocka_unit_test(test_round_does_not_resume_from_altered_records),
        cmocka_unit_test(test_round_does_not_resume_from_truncated_records),
        cmocka_unit_test(test_round_does_not_resume_from_the_records_of_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
