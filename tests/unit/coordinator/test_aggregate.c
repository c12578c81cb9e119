#include "coordinator/aggregate.h"
#include "support/check.h"
#include "support/temp_dir.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WORDS = 100, CHUNK = 32, SITES = 3 };

/* A round of three sites whose vectors carry no masks, so that the sum can be seen. */
typedef struct spools {
    temp_dir dir;
    dure_config config;
    dure_byte_budget budget;
    dure_aggregate *aggregate;
    uint8_t vectors[SITES][3 * WORDS];
    int32_t plain[WORDS];
} spools;

static void make(spools *s)
{
    memset(s, 0, sizeof *s);
    temp_dir_make(&s->dir);
    s->config = (dure_config){
        .round = 5, .n_members = SITES, .n_words = WORDS, .word_bits = 24, .chunk_words = CHUNK};
    s->budget.limit = 1 << 20;
    for (uint32_t m = 0; m < SITES; m++) {
        uint32_t words[WORDS];
        snprintf(s->config.members[m].name, sizeof s->config.members[m].name, "site%u", m);
        for (uint32_t i = 0; i < WORDS; i++) {
            const int32_t value = (int32_t)(i * 37 + m * 1001) % 5000 - 2500;
            s->plain[i] += value;
            words[i] = dure_mask_word(value, 24);
        }
        dure_mask_pack(s->vectors[m], words, WORDS, 24);
    }
    assert_ok(dure_aggregate_open(&s->aggregate, s->dir.path, &s->config, &s->budget, NULL));
}

static void end(spools *s)
{
    dure_aggregate_free(&s->aggregate);
    temp_dir_remove(&s->dir);
}

static dure_err give(spools *s, uint32_t member, uint32_t chunk)
{
    const size_t n = dure_config_chunk_bytes(&s->config, chunk);
    const size_t at = chunk * dure_config_chunk_bytes(&s->config, 0);
    return dure_aggregate_accept(s->aggregate, member, chunk,
                                 dure_span_of(s->vectors[member] + at, n), 1, NULL);
}

static void give_all(spools *s, uint32_t member)
{
    uint32_t first, n;
    assert_ok(dure_aggregate_collect(s->aggregate, member, 0, NULL));
    while (dure_aggregate_next(&first, &n, s->aggregate, member))
        for (uint32_t i = 0; i < n; i++)
            assert_ok(give(s, member, first + i));
    assert_ok(dure_aggregate_settle(s->aggregate, member, NULL));
}

static dure_masks *no_masks(const spools *s)
{
    dure_masks *masks;
    assert_ok(dure_masks_new(&masks, &s->config, 1));
    return masks;
}

static dure_err sum_of(int32_t *sum, spools *s, uint32_t n, dure_diag *diag)
{
    const dure_members u3 = dure_members_first(n);
    dure_masks *masks = no_masks(s);
    int32_t *there = NULL;
    dure_err err = dure_aggregate_sum(&there, s->aggregate, &u3, masks, diag);
    if (there) memcpy(sum, there, WORDS * sizeof *sum);
    assert_true(!there == (err != DURE_OK));
    free(there);
    dure_masks_free(&masks);
    return err;
}

static void test_aggregate_sums_what_was_spooled(void **state)
{
    (void)state;
    spools s;
    int32_t sum[WORDS];
    make(&s);
    for (uint32_t m = 0; m < SITES; m++)
        give_all(&s, m);
    assert_ok(sum_of(sum, &s, SITES, NULL));
    assert_memory_equal(sum, s.plain, sizeof sum);
    assert_int_equal(s.budget.used, 0);
    end(&s);
}

static void test_aggregate_root_comes_with_the_last_chunk(void **state)
{
    (void)state;
    spools s;
    dure_hash root, want;
    uint32_t first, n;
    dure_vector_tree tree = {0};
    make(&s);
    assert_ok(dure_aggregate_collect(s.aggregate, 0, 0, NULL));
    for (uint32_t i = 0; i < 4; i++) {
        assert_false(dure_aggregate_root(&root, s.aggregate, 0));
        while (dure_aggregate_next(&first, &n, s.aggregate, 0))
            assert_true(first + n > i);
        assert_ok(give(&s, 0, i));
        assert_ok(dure_vector_tree_add(
            &tree, &s.config,
            dure_span_of(s.vectors[0] + 96 * i, dure_config_chunk_bytes(&s.config, i))));
    }
    assert_false(dure_aggregate_root(&root, s.aggregate, 0)); /* it is not synced */
    assert_ok(dure_aggregate_settle(s.aggregate, 0, NULL));
    assert_true(dure_aggregate_root(&root, s.aggregate, 0));
    assert_ok(dure_vector_tree_root(&want, &tree, &s.config));
    assert_true(dure_hash_equal(&root, &want));
    end(&s);
}

static void test_aggregate_refuses_wrong_lengths_and_unasked_chunks(void **state)
{
    (void)state;
    spools s;
    uint32_t first, n;
    make(&s);
    assert_err(give(&s, 0, 0), DURE_ERR_STATE);
    assert_ok(dure_aggregate_collect(s.aggregate, 0, 0, NULL));
    assert_err(give(&s, 0, 0), DURE_ERR_PROTO);
    assert_true(dure_aggregate_next(&first, &n, s.aggregate, 0));
    assert_err(dure_aggregate_accept(s.aggregate, 0, 0, dure_span_of(s.vectors[0], 95), 1, NULL),
               DURE_ERR_PROTO);
    assert_err(dure_aggregate_accept(s.aggregate, 0, 3, dure_span_of(s.vectors[0], 96), 1, NULL),
               DURE_ERR_PROTO);
    assert_err(dure_aggregate_accept(s.aggregate, 0, 4, dure_span_of(s.vectors[0], 96), 1, NULL),
               DURE_ERR_PROTO);
    assert_ok(give(&s, 0, 0));
    assert_ok(give(&s, 0, 0)); /* a repeat is ignored */
    assert_int_equal(dure_aggregate_received(s.aggregate), 96);
    end(&s);
}

static void test_aggregate_goes_on_after_a_restart(void **state)
{
    (void)state;
    spools s;
    uint32_t first, n;
    int32_t sum[WORDS];
    make(&s);
    give_all(&s, 0);
    give_all(&s, 1);
    assert_ok(dure_aggregate_collect(s.aggregate, 2, 0, NULL));
    assert_true(dure_aggregate_next(&first, &n, s.aggregate, 2));
    assert_ok(give(&s, 2, 0));
    assert_true(dure_aggregate_next(&first, &n, s.aggregate, 2));
    assert_ok(give(&s, 2, 1));
    dure_aggregate_free(&s.aggregate);
    /* A chunk that was torn by the crash. */
    char path[300];
    snprintf(path, sizeof path, "%s/spool/5/2", s.dir.path);
    assert_int_equal(truncate(path, 96 + 10), 0);
    assert_ok(dure_aggregate_open(&s.aggregate, s.dir.path, &s.config, &s.budget, NULL));
    for (uint32_t m = 0; m < 2; m++) {
        dure_hash root;
        assert_ok(dure_aggregate_collect(s.aggregate, m, 0, NULL));
        assert_true(dure_aggregate_root(&root, s.aggregate, m));
    }
    assert_ok(dure_aggregate_collect(s.aggregate, 2, 0, NULL));
    assert_true(dure_aggregate_next(&first, &n, s.aggregate, 2));
    assert_int_equal(first, 1);
    do
        for (uint32_t i = first; i < first + n; i++)
            assert_ok(give(&s, 2, i));
    while (dure_aggregate_next(&first, &n, s.aggregate, 2));
    assert_ok(dure_aggregate_settle(s.aggregate, 2, NULL));
    assert_ok(sum_of(sum, &s, SITES, NULL));
    assert_memory_equal(sum, s.plain, sizeof sum);
    end(&s);
}

/* Chunks of two of the three came; the third's first one, too, before it was lost. */
static void lose_the_third(spools *s)
{
    uint32_t first, n;
    give_all(s, 0);
    give_all(s, 1);
    assert_ok(dure_aggregate_collect(s->aggregate, 2, 0, NULL));
    assert_true(dure_aggregate_next(&first, &n, s->aggregate, 2));
    assert_ok(give(s, 2, 0));
}

static void sum_of_two(spools *s)
{
    int32_t sum[WORDS];
    assert_ok(sum_of(sum, s, 2, NULL));
    for (uint32_t i = 0; i < WORDS; i++)
        assert_int_equal(sum[i], s->plain[i] - (int32_t)((int32_t)(i * 37 + 2002) % 5000 - 2500));
}

static void test_aggregate_leaves_out_who_was_lost_on_the_way(void **state)
{
    (void)state;
    spools s;
    make(&s);
    lose_the_third(&s);
    sum_of_two(&s);
    assert_err(give(&s, 2, 1), DURE_ERR_STATE); /* too late: the sum is taken */
    end(&s);
}

static void test_aggregate_leaves_out_who_was_discarded(void **state)
{
    (void)state;
    spools s;
    make(&s);
    lose_the_third(&s);
    dure_aggregate_discard(s.aggregate, 2);
    sum_of_two(&s);
    end(&s);
}

/* Its first chunk is in the running sum from before. */
static void test_aggregate_takes_a_discarded_one_again(void **state)
{
    (void)state;
    spools s;
    int32_t sum[WORDS];
    make(&s);
    lose_the_third(&s);
    dure_aggregate_discard(s.aggregate, 2);
    give_all(&s, 2);
    assert_ok(sum_of(sum, &s, SITES, NULL));
    assert_memory_equal(sum, s.plain, sizeof sum);
    end(&s);
}

static void test_aggregate_notices_a_spool_that_changed(void **state)
{
    (void)state;
    spools s;
    int32_t sum[WORDS];
    dure_diag diag = {{0}};
    make(&s);
    lose_the_third(&s);
    char path[300];
    snprintf(path, sizeof path, "%s/spool/5/1", s.dir.path);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fputc(s.vectors[1][0] ^ 1, f), s.vectors[1][0] ^ 1);
    fclose(f);
    assert_err(sum_of(sum, &s, 2, &diag), DURE_ERR_AUTH);
    assert_non_null(strstr(diag.text, "site1"));
    end(&s);
}

static void test_aggregate_tells_of_a_disk_that_failed(void **state)
{
    (void)state;
    spools s;
    uint32_t first, n;
    struct rlimit before, little;
    make(&s);
    assert_ok(dure_aggregate_collect(s.aggregate, 0, 0, NULL));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = before;
    little.rlim_cur = 100; /* less than two chunks */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    dure_err err = DURE_OK;
    while (!err && dure_aggregate_next(&first, &n, s.aggregate, 0))
        for (uint32_t i = 0; !err && i < n; i++)
            err = give(&s, 0, first + i);
    /* Of a chunk or, when all were taken, of the whole. */
    if (!err) err = dure_aggregate_settle(s.aggregate, 0, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_not_equal(err, DURE_OK);
    dure_hash root;
    assert_false(dure_aggregate_root(&root, s.aggregate, 0));
    end(&s);
}

static void test_aggregate_needs_every_vector_of_the_set(void **state)
{
    (void)state;
    spools s;
    int32_t sum[WORDS];
    make(&s);
    give_all(&s, 0);
    give_all(&s, 1);
    assert_err(sum_of(sum, &s, SITES, NULL), DURE_ERR_STATE);
    assert_ok(sum_of(sum, &s, 2, NULL));
    assert_err(sum_of(sum, &s, 2, NULL), DURE_ERR_STATE); /* a round has one sum */
    end(&s);
}

static void test_aggregate_keeps_to_the_budget(void **state)
{
    (void)state;
    spools s;
    uint32_t first, n;
    make(&s);
    s.budget.limit = 96;
    for (uint32_t m = 0; m < 2; m++) {
        assert_ok(dure_aggregate_collect(s.aggregate, m, 0, NULL));
        assert_true(dure_aggregate_next(&first, &n, s.aggregate, m));
        assert_ok(give(&s, m, 0));
    }
    assert_true(dure_aggregate_next(&first, &n, s.aggregate, 0));
    assert_int_equal(n, 1); /* its part is less than a chunk while both flow */
    dure_aggregate_discard(s.aggregate, 0);
    assert_true(dure_aggregate_next(&first, &n, s.aggregate, 1));
    assert_int_equal(n, 2);
    end(&s);
}

static void test_aggregate_removes_its_spools_and_stale_ones(void **state)
{
    (void)state;
    spools s;
    char path[300];
    make(&s);
    give_all(&s, 0);
    assert_ok(dure_aggregate_remove_stale(s.dir.path, 5, NULL));
    snprintf(path, sizeof path, "%s/spool/5/0", s.dir.path);
    assert_int_equal(access(path, F_OK), 0);
    assert_ok(dure_aggregate_remove_stale(s.dir.path, 6, NULL));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_ok(dure_aggregate_remove(s.aggregate, NULL));
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aggregate_sums_what_was_spooled),
        cmocka_unit_test(test_aggregate_root_comes_with_the_last_chunk),
        cmocka_unit_test(test_aggregate_refuses_wrong_lengths_and_unasked_chunks),
        cmocka_unit_test(test_aggregate_goes_on_after_a_restart),
        cmocka_unit_test(test_aggregate_leaves_out_who_was_lost_on_the_way),
        cmocka_unit_test(test_aggregate_leaves_out_who_was_discarded),
        cmocka_unit_test(test_aggregate_takes_a_discarded_one_again),
        cmocka_unit_test(test_aggregate_notices_a_spool_that_changed),
        cmocka_unit_test(test_aggregate_tells_of_a_disk_that_failed),
        cmocka_unit_test(test_aggregate_needs_every_vector_of_the_set),
        cmocka_unit_test(test_aggregate_keeps_to_the_budget),
        cmocka_unit_test(test_aggregate_removes_its_spools_and_stale_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
